from __future__ import annotations

import asyncio
from typing import Any

from proxy.adapters.clock import LoopClock
from proxy.fleet import Fleet


class Ship:
    """One upstream, as far as its end goes."""

    def __init__(self, busy: int = 0) -> None:
        self.busy = busy
        self.retired = self.closed = False

    def retire(self) -> None:
        self.retired = True

    async def aclose(self, grace: float) -> None:
        self.closed = True


class Wires:
    def __init__(self, **upstreams: Ship) -> None:
        self.upstreams = upstreams


def fleet(wires: Wires) -> Fleet:
    some: Any = wires
    return Fleet(some, LoopClock())


def many(*ships: Ship) -> Any:
    return ships


async def test_what_is_replaced_stays_while_something_is_sent_there() -> None:
    idle, busy, present = Ship(), Ship(busy=1), Ship()
    ships = fleet(Wires(mcp=present))
    ships.retire(many(idle, busy))
    assert idle.retired
    assert busy.retired
    await ships.aclose()

    assert (present.closed, busy.closed, idle.closed) == (True, True, False)
    busy.busy = 0
    ships.retire(many())
    busy.closed = False
    await ships.aclose()
    assert not busy.closed


async def test_the_last_write_is_waited_for() -> None:
    present, former = Ship(busy=1), Ship(busy=1)
    ships = fleet(Wires(mcp=present))
    ships.retire(many(former))
    ending = asyncio.ensure_future(ships.finish(LoopClock().now() + 20))
    await asyncio.sleep(0)
    present.busy = 0
    assert not ending.done()
    former.busy = 0

    await ending


async def test_it_is_not_waited_for_for_ever() -> None:
    ships = fleet(Wires(mcp=Ship(busy=1)))

    await ships.finish(LoopClock().now())
    ending = asyncio.ensure_future(ships.finish(LoopClock().now() + 1000))
    await asyncio.sleep(0)
    ships.hurry()
    await ending
