"""A backend's name moves from one machine to another: 127.0.0.1 and 127.0.0.2, the same port."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from proxy.adapters.upstream import HttpUpstream
from proxy.adapters.upstream.resolver import TTL
from proxy.core.model import Reply
from tests.adapters.upstream.origin import Client, Origin, Peer, failing, ok, post, read, until

HERE, THERE = "127.0.0.1", "127.0.0.2"


class Machine:
    """One address of the backend; answers with its own, `/slow` only when it is told to."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.finish = asyncio.Event()
        self.origin = Origin(self._script)
        self.asked = 0

    async def _script(self, peer: Peer) -> None:
        while request := await peer.request():
            self.asked += 1
            if b"/stream" in request:
                await peer.send(
                    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
                    b"Content-Length: 18\r\n\r\n" + self.address.encode()
                )
            if b"/slow" in request or b"/stream" in request:
                await self.finish.wait()
            body = self.address.encode()
            await peer.send(body if b"/stream" in request else ok(body))


class World:
    """Two machines behind one name, and the name server that tells where it stands."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.here, self.there = Machine(HERE), Machine(THERE)
        self.answer: list[str] | Exception = [HERE]
        self.lookups = 0
        self.free = threading.Event()
        self.free.set()

    async def start(self) -> None:
        await self.here.origin.start()
        await self.there.origin.start(host=THERE, port=self.here.origin.port)

    def _lookup(self, host: str, port: int, **_: Any) -> list[tuple[Any, ...]]:
        assert (host, port) == ("app.internal", self.here.origin.port)
        self.lookups += 1
        assert self.free.wait(10)
        if isinstance(self.answer, Exception):
            raise self.answer
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in self.answer]

    def upstream(self, **options: Any) -> HttpUpstream:
        url = f"http://app.internal:{self.here.origin.port}"
        return self.client.upstream(0, url=url, lookup=self._lookup, **options)

    async def ask(self, upstream: HttpUpstream, target: str = "/") -> Reply:
        deadline = self.client.soon(1000)
        return await upstream.send(post(target=target), [], deadline=deadline)

    def pass_ttl(self) -> None:
        self.client.clock.ahead += TTL

    async def looked(self, times: int) -> None:
        await until(lambda: self.lookups >= times)


@pytest.fixture
async def world(client: Client) -> AsyncIterator[World]:
    world = World(client)
    await world.start()
    yield world
    world.free.set()
    await world.here.origin.stop()
    await world.there.origin.stop()


async def test_within_its_time_a_name_is_not_asked_for_again(world: World) -> None:
    upstream = world.upstream()
    for _ in range(20):
        await world.ask(upstream)
    world.client.clock.ahead += TTL - 1
    await world.ask(upstream)
    assert world.lookups == 1


async def test_the_new_address_serves_once_the_time_is_over(world: World) -> None:
    """Nobody has to fail first, and no kept connection leads to the old machine."""
    upstream = world.upstream(keepalive=10_000.0)
    assert (await world.ask(upstream)).body == HERE.encode()
    world.answer = [THERE]
    world.pass_ttl()
    await until(lambda: upstream.idle == 0)

    for _ in range(3):
        assert (await world.ask(upstream)).body == THERE.encode()
    assert (world.here.asked, world.there.asked, upstream.opened_total) == (1, 3, 2)


@pytest.mark.parametrize("target", ["/slow", "/stream"])
async def test_what_runs_on_the_old_machine_ends_there_unharmed(world: World, target: str) -> None:
    upstream = world.upstream(stall=10_000.0)
    running = asyncio.create_task(world.ask(upstream, target))
    await until(lambda: world.here.asked == 1)
    world.answer = [THERE]
    world.pass_ttl()
    (connection,) = upstream._busy
    await until(lambda: connection.retired)
    assert (await world.ask(upstream)).body == THERE.encode()

    world.here.finish.set()
    assert await read(await running) in (HERE.encode(), HERE.encode() * 2)
    await until(lambda: upstream.busy == 0)
    assert upstream.idle == 1  # the new machine's; the old one's was not kept


async def test_while_the_name_server_fails_the_last_good_address_serves(world: World) -> None:
    upstream = world.upstream(keepalive=0.001)
    await world.ask(upstream)
    world.answer = socket.gaierror(-3, "Temporary failure in name resolution")
    for turn in range(1, 4):
        world.pass_ttl()
        assert (await world.ask(upstream)).body == HERE.encode()
        await world.looked(1 + turn)
    world.answer = [THERE]
    world.pass_ttl()
    assert (await world.ask(upstream)).body == THERE.encode()


async def test_a_name_server_that_hangs_holds_up_nobody(world: World) -> None:
    """Kept connections go on at once; a new one waits a part of its time, then goes by memory."""
    upstream = world.upstream(keepalive=10_000.0, connect_timeout=1.0)
    await world.ask(upstream)
    world.free.clear()
    world.pass_ttl()
    assert (await world.ask(upstream)).body == HERE.encode()
    await world.looked(2)

    running = asyncio.create_task(world.ask(upstream, "/slow"))
    await until(lambda: world.here.asked == 3)
    assert (await world.ask(upstream)).body == HERE.encode()
    assert (upstream.opened_total, world.lookups) == (2, 2)
    world.here.finish.set()
    await running


async def test_a_machine_that_dies_is_replaced_out_of_turn(world: World) -> None:
    """Its name is asked for anew when nobody answers there: the same request goes to the new."""
    upstream = world.upstream(keepalive=0.001)
    await world.ask(upstream)
    await world.here.origin.stop()
    world.answer = [THERE]
    world.client.clock.ahead += 2.0

    assert (await world.ask(upstream)).body == THERE.encode()
    assert world.lookups == 2


async def test_with_no_address_at_all_nothing_is_sent(world: World) -> None:
    world.answer = socket.gaierror(-2, "Name or service not known")
    failure = await failing(world.ask(world.upstream()))
    assert (failure.why, failure.sent, failure.detail) == (
        "connect",
        False,
        "the upstream's name cannot be resolved",
    )


async def test_a_connection_that_opens_while_the_name_moves_is_used_once(world: World) -> None:
    upstream = world.upstream(keepalive=10_000.0)
    real = upstream._dialer

    class Dialer:
        async def open(self, make: Any, patience: float) -> Any:
            connection = await real.open(make, patience)
            upstream._dialer = real
            world.answer = [THERE]
            world.pass_ttl()
            await until(lambda: not upstream._resolver.knows(connection.address))
            return connection

    upstream._dialer = Dialer()  # type: ignore[assignment]

    assert (await world.ask(upstream)).body == HERE.encode()
    assert upstream.idle == 0
    assert (await world.ask(upstream)).body == THERE.encode()
