"""Names that change their addresses, and name servers that go away."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Sequence
from typing import Any

import pytest
import uvloop

from proxy.adapters.upstream import Endpoint
from proxy.adapters.upstream.resolver import TTL, Address, Resolver
from proxy.errors import UpstreamFailed
from tests.adapters.upstream.origin import until
from tests.fakes import FakeClock


class Names:
    """A name server under the test's control."""

    def __init__(self, *answers: Sequence[str] | Exception) -> None:
        self.answers = list(answers)
        self.asked = 0
        self.free = threading.Event()
        self.free.set()

    def __call__(self, host: str, port: int, **_: Any) -> list[tuple[Any, ...]]:
        assert self.free.wait(10)
        answer = self.answers[min(self.asked, len(self.answers) - 1)]
        self.asked += 1
        if isinstance(answer, Exception):
            raise answer
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, port)) for ip in answer]


class World:
    def __init__(self, names: Names, url: str = "http://app:80") -> None:
        self.clock = FakeClock()
        self.changes: list[frozenset[Address]] = []
        self.names = names
        self.resolver = Resolver(
            Endpoint.from_url(url), clock=self.clock, changed=self.changes.append, lookup=names
        )

    async def ips(self, patience: float = 10.0) -> list[str]:
        return [address[1][0] for address in await self.resolver.addresses(patience)]


async def test_addresses_are_kept_for_their_time_and_then_looked_up_again() -> None:
    world = World(Names(["192.0.2.1", "192.0.2.2", "192.0.2.1"], ["192.0.2.3"]))
    assert await world.ips() == ["192.0.2.1", "192.0.2.2"]
    world.clock.advance(TTL - 0.1)
    assert await world.ips() == ["192.0.2.1", "192.0.2.2"]
    assert world.names.asked == 1
    world.clock.advance(0.1)
    assert await world.ips() == ["192.0.2.3"]
    assert world.changes == [frozenset({(socket.AF_INET, ("192.0.2.3", 80))})]


async def test_the_same_addresses_in_another_order_are_no_change() -> None:
    world = World(Names(["192.0.2.1", "192.0.2.2"], ["192.0.2.2", "192.0.2.1"]))
    await world.ips()
    world.clock.advance(TTL)
    assert await world.ips() == ["192.0.2.2", "192.0.2.1"]
    assert world.changes == []


@pytest.mark.parametrize("answer", [socket.gaierror("away"), []])
async def test_the_last_good_addresses_outlive_the_name_server(answer: Any) -> None:
    world = World(Names(["192.0.2.1"], answer))
    await world.ips()
    for _ in range(3):
        world.clock.advance(TTL)
        assert await world.ips() == ["192.0.2.1"]
    assert world.names.asked == 4


async def test_a_name_that_never_resolved_fails_unsent_and_is_asked_again() -> None:
    world = World(Names(socket.gaierror("away"), ["192.0.2.1"]))
    with pytest.raises(UpstreamFailed) as caught:
        await world.ips()
    assert (caught.value.why, caught.value.sent) == ("connect", False)
    assert await world.ips() == ["192.0.2.1"]


async def test_a_slow_name_server_is_not_waited_for_beyond_patience_nor_asked_twice() -> None:
    world = World(Names(["192.0.2.1"], ["192.0.2.2"]))
    await world.ips()
    world.names.free.clear()
    world.clock.advance(TTL)
    assert await world.ips(patience=0.01) == ["192.0.2.1"]
    for found in await asyncio.gather(world.ips(0.01), world.ips(0.01)):
        assert found == ["192.0.2.1"]
    world.names.free.set()
    await until(lambda: bool(world.changes))
    assert await world.ips() == ["192.0.2.2"]
    assert world.names.asked == 2


async def test_nothing_known_and_no_patience_left_fails_unsent() -> None:
    world = World(Names(["192.0.2.1"]))
    world.names.free.clear()
    with pytest.raises(UpstreamFailed):
        await world.ips(patience=0.01)
    world.names.free.set()
    assert await world.ips() == ["192.0.2.1"]
    assert world.names.asked == 1


async def test_distrust_asks_again_but_not_in_a_storm() -> None:
    world = World(Names(["192.0.2.1"]))
    await world.ips()
    for _ in range(5):
        world.resolver.distrust()
        await world.ips()
    assert world.names.asked == 1
    world.clock.advance(1.0)
    await world.ips()
    assert world.names.asked == 2


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://127.0.0.1:81", (socket.AF_INET, ("127.0.0.1", 81))),
        ("http://[::1]:81", (socket.AF_INET6, ("::1", 81, 0, 0))),
        ("unix:/run/app.sock", (socket.AF_UNIX, "/run/app.sock")),
    ],
)
async def test_an_address_is_never_looked_up(url: str, address: Address) -> None:
    world = World(Names(AssertionError("asked")), url)
    world.clock.advance(10 * TTL)
    world.resolver.distrust()
    assert await world.resolver.addresses(1.0) == (address,)
    assert world.names.asked == 0


async def test_an_answer_that_is_no_list_of_addresses_is_none() -> None:
    def nonsense(host: str, port: int, **_: Any) -> Any:
        return [()]

    world = World(Names(["192.0.2.1"]))
    await world.ips()
    world.resolver._lookup = nonsense
    world.clock.advance(TTL)
    assert await world.ips() == ["192.0.2.1"]


async def test_an_address_is_known_until_the_name_has_another() -> None:
    world = World(Names(["192.0.2.1"], ["192.0.2.2"]))
    (first,) = await world.resolver.addresses(10.0)
    assert world.resolver.knows(first)
    world.clock.advance(TTL)
    (second,) = await world.resolver.addresses(10.0)
    assert (world.resolver.knows(first), world.resolver.knows(second)) == (False, True)


def test_a_lookup_that_hangs_holds_up_neither_the_loop_nor_its_end() -> None:
    """A name server that swallows questions must not keep a drained process from ending."""
    names = Names(["192.0.2.1"])
    names.free.clear()

    async def ask() -> None:
        with pytest.raises(UpstreamFailed):
            await World(names).ips(patience=0.01)

    for factory in (asyncio.new_event_loop, uvloop.new_event_loop):
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(ask())
    names.free.set()  # The lookups end now, and find no loop to tell.
    for thread in threading.enumerate():
        if thread.name == "lookup":
            thread.join(10)
    assert names.asked == 2
