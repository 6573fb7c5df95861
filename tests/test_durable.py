from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from proxy.adapters.clock import LoopClock
from proxy.adapters.logs import configure
from proxy.adapters.metrics import Metrics
from proxy.adapters.state_dir import StateDir
from proxy.adapters.tasks import Tasks
from proxy.attempt import Attempts
from proxy.core.breaker_values import State
from proxy.core.outbox import Entry, Letter
from proxy.durable import FILE, Durable, terms
from proxy.redelivery import Redelivery
from tests.adapters.outbox_kit import call, event
from tests.path_kit import GOOD, REFUSED, Network, World
from tests.redis_kit import redis_server
from tests.rules_kit import rules

QUICK: dict[str, Any] = {"retry_first": "10ms", "retry_max": "50ms"}


class Process:
    """What of a sidecar concerns the outbox, on one state directory."""

    def __init__(self, folder: Path, world: World, secrets: dict[str, bytes] | None = None) -> None:
        self.world, self.stream = world, io.StringIO()
        clock = LoopClock()
        log = configure(clock.wall_ms, stream=self.stream)
        self.tasks = Tasks(lambda _, error: self.crashes.append(error))
        self.crashes: list[BaseException] = []
        self.state = StateDir.open(folder)
        attempts = Attempts(clock=clock, watch=world.watch, start=self.tasks.start)
        way = Redelivery(lambda: world.line, attempts, clock=clock, new_id=lambda: "0" * 32)
        self.durable = Durable(
            self.state,
            way,
            secret=lambda ref: (secrets or {}).get(ref.ref),
            clock=clock,
            figures=Metrics("t").outbox,
            log=log,
            tasks=self.tasks,
        )

    async def start(self, **outbox: Any) -> None:
        self.use(**outbox)
        await self.durable.start()

    def use(self, **outbox: Any) -> None:
        self.durable.use(rules(outbox={**QUICK, **outbox}))

    async def take(self, number: int = 1, call_id: str = "call_7") -> int | None:
        until = LoopClock().now() + 5.0
        reply = await self.durable.take(call(number, call_id), "webhook", until=until)
        return reply.status if reply is not None else None

    async def emptied(self) -> None:
        async with asyncio.timeout(20):
            while self.durable.box is not None and len(self.durable.box.lines):
                await asyncio.sleep(0.005)

    async def stop(self) -> None:
        await self.durable.stop(5.0)
        await self.durable.stop(5.0)
        await self.tasks.aclose()
        self.state.close()
        assert not self.crashes

    @property
    def numbers(self) -> list[int]:
        """What reached the webhook, in its order."""
        return [orjson.loads(outbound.body)["n"] for outbound, *_ in self.world.webhook.seen]

    @property
    def events(self) -> list[str]:
        return [json.loads(line)["event"] for line in self.stream.getvalue().splitlines()]


@pytest.fixture
async def processes(tmp_path: Path) -> AsyncIterator[Any]:
    started: list[Process] = []

    def new(world: World | None = None, **given: Any) -> Process:
        process = Process(tmp_path / "state", world or World(), **given)
        started.append(process)
        return process

    yield new
    for process in started:
        await process.stop()


async def test_what_one_process_took_the_next_one_delivers(processes: Any) -> None:
    down = World(webhook=Network(REFUSED))
    first = processes(down)
    await first.start()
    for number in (1, 2, 3):
        assert await first.take(number) == 200
    assert first.durable.has_queue("call_7")
    await first.stop()
    assert not first.durable.has_queue("call_7")

    second = processes(World())
    await second.start()
    await second.emptied()

    assert second.numbers == [1, 2, 3]


async def test_rules_that_change_after_the_stop_open_nothing(processes: Any) -> None:
    """Another process may hold the store by then."""
    process = processes()
    await process.start()
    await process.durable.stop(5.0)

    process.use()

    assert process.durable.box is None
    await process.durable.start()
    assert process.durable.box is not None


async def test_an_arm_that_heals_gets_all_of_it_once_and_in_order(processes: Any) -> None:
    webhook = Network(REFUSED)
    process = processes(World(webhook=webhook))
    await process.start()
    for number in range(1, 6):
        assert await process.take(number) == 200
    breaker = process.world.arms["webhook"].breaker
    async with asyncio.timeout(20):
        while breaker.state is not State.OPEN:
            await asyncio.sleep(0.005)
    tries = len(webhook.seen)
    webhook.answers = [GOOD]

    breaker.reset(0.0)
    process.durable.breaker_changed("webhook")
    await process.emptied()

    assert process.numbers[tries:] == [1, 2, 3, 4, 5]
    assert process.durable.box is not None
    assert process.durable.box.store.name == "sqlite"


async def test_a_breaker_that_opens_hastens_nothing(processes: Any) -> None:
    process = processes()
    process.durable.breaker_changed("webhook")
    await process.start(retry_first="10m", retry_max="10m")
    assert await process.take() == 200
    process.world.arms["webhook"].breaker.trip(0.0)

    process.durable.breaker_changed("webhook")
    await asyncio.sleep(0)

    assert process.numbers == []


async def test_without_a_place_events_are_not_taken_and_it_is_said_aloud(
    processes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    process = processes()
    process.state.close()
    process.state.why = "Read-only file system"
    await process.start()

    assert await process.take() is None
    assert not process.durable.has_queue("call_7")
    assert "Read-only file system" in process.durable.why_not
    assert process.events == ["outbox_unavailable"]


async def test_an_outbox_that_is_switched_off_touches_no_disk(processes: Any) -> None:
    process = processes()
    await process.start(enabled=False)

    assert await process.take() is None
    assert not process.state.file(FILE).exists()
    assert process.durable.why_not == "outbox.enabled is false"
    assert process.events == []


async def test_one_that_was_switched_off_still_delivers_what_waits(processes: Any) -> None:
    first = processes(World(webhook=Network(REFUSED)))
    await first.start()
    assert await first.take() == 200
    await first.stop()

    second = processes()
    await second.start(enabled=False)
    await second.emptied()

    assert second.numbers == [1]
    assert await second.take() is None


async def test_it_can_be_switched_on_and_off_while_it_runs(processes: Any) -> None:
    process = processes()
    await process.start(enabled=False)
    process.use(enabled=True)
    assert process.durable.box is not None
    async with asyncio.timeout(20):
        await process.durable.box.told.wait()
    assert await process.take(1) == 200

    process.use(enabled=False)
    assert await process.take(2) is None
    await process.emptied()
    assert process.numbers == [1]


async def test_new_rules_are_in_force_at_once(processes: Any) -> None:
    process = processes(World(webhook=Network(REFUSED)))
    await process.start()
    process.use(limit={"entries": 1}, give_up="1ms")
    assert await process.take(1, "a") == 200

    assert await process.take(2, "b") is None


async def test_a_redis_keeps_it_for_replicas_without_a_volume(processes: Any) -> None:
    async with redis_server() as server:
        first = processes(
            World(webhook=Network(REFUSED)), secrets={"env:REDIS": server.url.encode()}
        )
        first.state.close()
        await first.start(store="env:REDIS")
        assert await first.take() == 200
        await first.stop()

        second = processes()
        await second.start(store=server.url)
        assert second.durable.box is not None
        assert second.durable.box.store.name == "redis"
        await second.emptied()
        assert second.numbers == [1]
        await second.stop()


async def test_a_reference_to_a_url_that_is_absent_means_the_file(processes: Any) -> None:
    process = processes()
    await process.start(store="env:REDIS?")

    assert process.state.file(FILE).exists()


async def test_a_url_that_is_none_is_said_and_stops_nothing(processes: Any) -> None:
    process = processes(secrets={"env:REDIS": b"nonsense://"})
    await process.start(store="env:REDIS")

    assert await process.take() is None
    assert process.events == ["outbox_unavailable"]


async def test_a_redis_store_that_is_switched_off_is_not_asked(processes: Any) -> None:
    process = processes()
    await process.start(enabled=False, store="unix:///nowhere")

    assert process.durable.box is None


async def test_a_store_that_is_away_keeps_no_start_waiting_for_long(
    processes: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.durable.OPENING", 0.01)
    process = processes()
    process.state.file(FILE).mkdir()

    await process.start()

    assert await process.take() is None
    assert process.events[0] == "outbox_store_failed"


@pytest.mark.parametrize("early", [True, False])
async def test_who_is_in_a_hurry_does_not_wait_for_a_delivery(processes: Any, early: bool) -> None:
    held = asyncio.Event()

    async def holds() -> tuple[int, bytes]:
        await held.wait()
        return GOOD

    process = processes(World(webhook=Network(holds)))
    await process.start()
    assert await process.take() == 200
    async with asyncio.timeout(20):
        while not process.numbers:
            await asyncio.sleep(0.005)
    if early:
        process.durable.hurry()
    stopping = asyncio.ensure_future(process.durable.stop(600.0))
    await asyncio.sleep(0)
    process.durable.hurry()

    async with asyncio.timeout(20):
        await stopping


def test_what_the_rules_say_is_read() -> None:
    said = rules(
        outbox={"give_up": "2h", "retry_first": "3s", "retry_max": "1m", "parallel": 3,
                "limit": {"entries": 7, "size": "1MB"}}
    ).outbox  # fmt: skip
    read = terms(said)

    assert (read.most, read.most_bytes, read.parallel, read.enabled) == (7, 2**20, 3, True)
    assert (read.patience.first, read.patience.most, read.patience.give_up) == (3.0, 60.0, 7200.0)


class Follows:
    """The process that follows, as far as events go."""

    def __init__(self, room: bool) -> None:
        self.room = room
        self.posted: list[Entry] = []

    async def post(self, entry: Entry, letter: Letter, *, until: float) -> bool:
        self.posted.append(entry)
        return self.room


@pytest.mark.parametrize("room", [True, False])
async def test_once_another_process_follows_it_keeps_the_events(tmp_path: Path, room: bool) -> None:
    process = Process(tmp_path, World(webhook=Network(REFUSED)))
    await process.start()
    await process.durable.rest(1.0)
    assert await process.take(1) == 200  # It is kept still, but not delivered.
    await process.durable.stop(0.0)
    heir = process.durable.heir = Follows(room)

    assert await process.take(2) == (200 if room else None)
    assert await process.durable.keep(*event(3), until=0.0) is room
    assert [entry.call_id for entry in heir.posted] == ["call_7", "call_7"]
    process.durable.heir = None
    assert not await process.durable.keep(*event(4), until=0.0)
    await process.stop()


async def test_an_event_of_the_process_before_is_kept_in_its_line(tmp_path: Path) -> None:
    process = Process(tmp_path, World(webhook=Network(REFUSED)))
    await process.start(retry_first="10s", retry_max="10s")
    await process.take(1)

    assert await process.durable.keep(*event(2), until=LoopClock().now() + 5.0)
    assert process.durable.box is not None
    assert process.durable.box.lines.queued == 2
    process.use(enabled=False)
    assert not await process.durable.keep(*event(3), until=LoopClock().now() + 5.0)
    await process.stop()
