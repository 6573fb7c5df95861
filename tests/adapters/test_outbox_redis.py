from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from msgspec.structs import replace
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import TimeoutError as NoAnswer

from proxy.adapters import outbox_redis
from proxy.adapters.clock import LoopClock
from proxy.adapters.outbox_redis import LEASE, RENEW, RedisOutbox, connect, entries_of
from proxy.core.outbox import State, pack_entry
from proxy.errors import StoreFailed
from tests.adapters.outbox_kit import Ear, event
from tests.fakes import FakeClock
from tests.redis_kit import RedisServer, redis_server


class Replica:
    """One sidecar's store on a shared Redis."""

    def __init__(self, server: RedisServer, me: str = "", clock: FakeClock | None = None) -> None:
        self.ear = Ear()
        self.client = connect(server.url)
        self.store = RedisOutbox(self.client, clock=clock or LoopClock(), me=me)
        self.running = asyncio.ensure_future(self.store.run(self.ear))

    async def until(self, holds: Callable[[], object]) -> None:
        async with asyncio.timeout(20):
            while not holds():
                await self.ear.news.wait()
                self.ear.news.clear()

    async def close(self) -> None:
        """As a process ends that drains."""
        await self.vanish()
        await self.store.aclose()

    async def vanish(self) -> None:
        """As a process ends that is killed: nothing is given back."""
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)


@contextlib.asynccontextmanager
async def replica(
    server: RedisServer, me: str = "", clock: FakeClock | None = None
) -> AsyncIterator[Replica]:
    one = Replica(server, me, clock)
    try:
        await one.until(lambda: one.ear.replacements or one.ear.failures)
        yield one
    finally:
        await one.close()


@pytest.fixture
async def server() -> AsyncIterator[RedisServer]:
    async with redis_server() as server:
        yield server


async def test_what_was_kept_is_told_to_who_comes_next(server: RedisServer) -> None:
    async with replica(server) as one:
        first = await one.store.put(*event(1))
        second = await one.store.put(*event(2, size=5000))
        third = await one.store.put(*event(3))
        dead = replace(third, state=State.DEAD, tries=3, reason="why")
        await one.store.remove(first.id)
        await one.store.update(dead)
        assert await one.store.letter(first.id) is None
    async with replica(server) as one:
        assert list(one.ear.entries.values()) == [second, dead]
        assert await one.store.letter(second.id) == event(2, size=5000)[1]
        assert first.id < second.id < third.id


async def test_it_survives_the_server_if_that_is_told_to(server: RedisServer) -> None:
    """Not promised: it is for the server's own persistence to say (here: appendfsync always)."""
    async with replica(server) as one:
        kept = await one.store.put(*event(1))
    await server.kill()
    await server.start()
    async with replica(server) as one:
        assert one.ear.entries == {kept.id: kept}


async def test_replicas_hear_of_each_other(server: RedisServer) -> None:
    async with replica(server, "one") as one, replica(server, "two") as two:
        kept = await one.store.put(*event(1))
        await two.until(lambda: two.ear.entries == {kept.id: kept})

        tried = replace(kept, tries=1)
        await two.store.update(tried)
        await one.until(lambda: one.ear.entries == {kept.id: tried})

        await two.store.remove(kept.id)
        await one.until(lambda: not one.ear.entries)


async def test_a_replica_is_not_told_what_it_did_itself(server: RedisServer) -> None:
    async with replica(server, "one") as one, replica(server, "two") as two:
        await one.store.put(*event(1))
        theirs = await two.store.put(*event(2))
        await one.until(lambda: one.ear.entries)

        assert list(one.ear.entries) == [theirs.id]


async def test_what_is_forgotten_is_not_brought_back_by_a_change(server: RedisServer) -> None:
    async with replica(server) as one:
        kept = await one.store.put(*event(1))
        await one.store.remove(kept.id)
        await one.store.update(replace(kept, tries=1))
    async with replica(server) as one:
        assert not one.ear.entries
    assert await server.ask("KEYS", "*entries*") == b"*0\r\n"


async def test_one_replica_delivers_and_hands_over_when_it_ends(server: RedisServer) -> None:
    clock = FakeClock()
    async with replica(server, "one", clock) as one:
        assert one.store.leading
        async with replica(server, "two", clock) as two:
            assert not two.store.leading
            await one.close()
            clock.advance(RENEW)
            async with asyncio.timeout(20):
                while not two.store.leading:
                    await asyncio.sleep(0.01)


async def test_who_could_not_renew_his_lease_stops_before_another_may_begin(
    server: RedisServer,
) -> None:
    """By its own clock, counted from before it asked: a process that was frozen knows at once."""
    clock = FakeClock()
    async with replica(server, "one", clock) as one:
        await one.vanish()
        clock.advance(LEASE - RENEW - 0.01)
        assert one.store.leading

        clock.advance(0.01)

        assert not one.store.leading


async def test_numbers_never_start_again_not_even_in_an_emptied_redis(server: RedisServer) -> None:
    async with replica(server) as one:
        before = await one.store.put(*event(1))
        await server.ask("FLUSHALL")

        after = await one.store.put(*event(2))

        assert after.id > before.id


async def test_a_redis_that_is_away_fails_at_once_and_is_had_again(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox_redis, "RECONNECT_FIRST", 0.01)
    async with replica(server) as one:
        kept = await one.store.put(*event(1))
        await server.kill()
        with pytest.raises(StoreFailed, match="redis: ConnectionError"):
            await one.store.put(*event(2))
        with pytest.raises(StoreFailed):
            await one.store.letter(kept.id)
        await one.until(lambda: one.ear.failures)
        assert not one.store.leading

        await server.start()
        await one.until(lambda: one.ear.replacements == 2)

        assert one.ear.entries == {kept.id: kept}
        assert one.store.leading


async def test_a_full_redis_refuses_and_nothing_is_kept(server: RedisServer) -> None:
    async with replica(server) as one:
        await server.ask("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(StoreFailed):
            await one.store.put(*event(1))
        await server.ask("CONFIG", "SET", "maxmemory", "0")

        await one.store.put(*event(2))

        assert one.ear.replacements == 1, "a clear no leaves nothing in doubt"


class Flaky:
    """A client whose next answers are lost, though its requests are not."""

    def __init__(self, server: RedisServer) -> None:
        self.lost: list[Exception] = []
        self._client = connect(server.url)

    async def execute_command(self, *arguments: Any) -> Any:
        answer = await self._client.execute_command(*arguments)
        if self.lost and arguments[0] == "EVAL" and "HSET" in arguments[1]:
            raise self.lost.pop(0)
        return answer

    async def aclose(self) -> None:
        await self._client.aclose()


async def test_a_put_whose_connection_broke_is_asked_again_and_kept_once(
    server: RedisServer,
) -> None:
    flaky = Flaky(server)
    flaky.lost = [NoConnection()]
    store = RedisOutbox(flaky, clock=LoopClock())
    kept = await store.put(*event(1))
    await store.aclose()

    async with replica(server) as one:
        assert one.ear.entries == {kept.id: kept}


async def test_a_put_that_was_never_answered_is_looked_for(server: RedisServer) -> None:
    """Its caller was told to come again; but what stands there is delivered, not left to lie."""
    flaky, ear = Flaky(server), Ear()
    store = RedisOutbox(flaky, clock=LoopClock())
    running = asyncio.ensure_future(store.run(ear))
    await ear.hears()
    flaky.lost = [NoAnswer()]
    with pytest.raises(StoreFailed):
        await store.put(*event(1))

    async with asyncio.timeout(20):
        while not ear.entries:
            await ear.hears()

    assert [entry.received_ms for entry in ear.entries.values()] == [event(1)[0].received_ms]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    await store.aclose()


async def test_a_letter_that_is_damaged_is_gone(server: RedisServer) -> None:
    async with replica(server) as one:
        kept = await one.store.put(*event(1))
        await server.ask("HSET", "callsplit:{outbox}:letters", f"{kept.id}h", "x")

        assert await one.store.letter(kept.id) is None


async def test_news_that_nobody_can_read_are_passed_over(server: RedisServer) -> None:
    async with replica(server, "one") as one, replica(server, "two") as two:
        news = "callsplit:{outbox}:news"
        await server.ask("XADD", news, "*", "i", "7", "e", "garbage", "w", "three")
        kept = await two.store.put(*event(1))
        await one.until(lambda: one.ear.entries)

        assert list(one.ear.entries) == [kept.id]


def test_entries_that_nobody_can_read_are_left_out() -> None:
    entry = replace(event(1)[0], id=2)
    log = [(b"1-0", {b"e": b"garbage"}), (b"2-0", {b"e": pack_entry(entry)}), (b"3-0", {})]

    assert entries_of(log, {}) == [entry]


async def test_what_is_no_url_is_said_without_it() -> None:
    with pytest.raises(StoreFailed) as caught:
        connect("redis+nonsense://:hunter2@x")

    assert "hunter2" not in str(caught.value)


async def test_a_redis_that_was_never_there_can_be_closed() -> None:
    clock = FakeClock()
    store = RedisOutbox(connect("unix:///nowhere/redis.sock"), clock=clock)
    store._leads_until = clock.now() + 5

    await store.aclose()

    assert not store.leading
