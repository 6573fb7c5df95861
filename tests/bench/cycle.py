"""What callers notice of an arm that breaks, stays broken for a while, and heals.

callsplit and Envoy take the same steady load at the same time, in front of the same two arms.  A
caller is failed by an answer that is no 200, by one that says `success: false`, and by none.
Failures at the trip, while the breaker counts its first five, are told apart from those of
the cycle: open, looked at again, open again, closed.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import uvloop

from tests.bench import admin
from tests.bench.calls import function, signed
from tests.bench.failover import FAILURES, RESTS, callsplit, envoy_failover, openings
from tests.bench.place import Place, free_port
from tests.bench.process import Running, cores

WELL, BROKEN, HEALED = 1.0, 4.6, 3.0
"""Seconds: before, while, and after the first arm is broken."""

TRIP = 0.5
"""Seconds after the break that belong to the trip; the first rest is longer."""

RATE = 200
"""Requests a second to each proxy."""

PEERS = {"callsplit": (callsplit, "/metrics"), "envoy": (envoy_failover, "/stats")}
"""How each is started, and where it tells of its openings."""

Say = Callable[[str], None]


class Arm:
    """One arm: well, answering 503, or not there.  `name` stands in its answers."""

    def __init__(self, name: str, port: int) -> None:
        self.name, self.port = name, port
        self.status = b"200 OK"
        self.asked = 0
        self.open: set[asyncio.Transport] = set()
        self._server: asyncio.Server | None = None

    async def listen(self) -> None:
        """Be there."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Requests(self), "127.0.0.1", self.port, backlog=1024
        )

    async def break_with(self, fault: str) -> None:
        """From now on do that."""
        if fault == "answers 503":
            self.status = b"503 Service Unavailable"
        else:
            await self.leave()

    async def heal(self) -> None:
        """Be well again."""
        self.status = b"200 OK"
        if self._server is None:
            await self.listen()

    async def leave(self) -> None:
        """Die: nobody listens, every connection is gone."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        for transport in tuple(self.open):
            transport.abort()

    def answer(self) -> bytes:
        """The same for every request."""
        self.asked += 1
        body = b'{"from":"%b"}' % self.name.encode()
        head = b"HTTP/1.1 %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        return head % (self.status, len(body)) + body


class Requests(asyncio.Protocol):
    """An arm's end of one connection."""

    def __init__(self, arm: Arm) -> None:
        self._arm = arm
        self._held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """One more."""
        self._transport = cast("asyncio.Transport", transport)
        self._arm.open.add(self._transport)

    def connection_lost(self, error: Exception | None) -> None:
        """One less."""
        self._arm.open.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        """Answer each whole request."""
        self._held += data
        while (end := _whole(self._held)) is not None:
            self._held = self._held[end:]
            self._transport.write(self._arm.answer())


@dataclass(slots=True)
class Heard:
    """What the callers of one proxy heard, with seconds since the load began."""

    failed: list[float] = field(default_factory=list)
    by_arm: list[tuple[float, str]] = field(default_factory=list)

    def note(self, at: float, raw: bytes) -> None:
        """One answer; b"" for none."""
        good = raw.startswith(b"HTTP/1.1 200 ") and b'"success":false' not in raw
        if not good:
            self.failed.append(at)
        for name in ("new", "old"):
            if good and b'"from":"%b"' % name.encode() in raw:
                self.by_arm.append((at, name))


@dataclass(frozen=True, slots=True)
class Row:
    """One fault under one load; `rescuable`: the second arm may be asked too."""

    fault: str
    tool: str
    rescuable: bool


ROWS = (
    Row("answers 503", "get_available_slots", rescuable=True),
    Row("refuses connections", "book_appointment", rescuable=True),
    Row("answers 503", "book_appointment", rescuable=False),
)
"""A booking that was answered 503 may have been made: callsplit's callers then hear that it is
pending, which counts as a failure here."""


def breaker_cycle(directory: Path, say: Say) -> dict[str, Any]:
    """Every row, with both proxies started anew for it."""
    rows = []
    for number, row in enumerate(ROWS):
        rows += _measured(directory / f"cycle-{number}", row)
        for one in rows[-len(PEERS) :]:
            say("{peer}: {tool}, the arm {fault}: failed {failed_at_trip} at the trip, "
                "{failed_in_cycles} in {cycles} cycles".format(**one))  # fmt: skip
    judged = [row for row in rows if row["peer"] == "callsplit" and row["rescuable"]]
    return {
        "rate": RATE,
        "breaks_for_seconds": BROKEN,
        "opens_after_failures": FAILURES,
        "rests_for_seconds": RESTS,
        "rows": rows,
        "target": "callsplit: nobody fails where the second arm may be asked; the first comes back",
        "reached": all(
            row["failed_at_trip"] == row["failed_in_cycles"] == 0 and row["came_back"]
            for row in judged
        ),
    }


def _measured(home: Path, row: Row) -> list[dict[str, Any]]:
    first, second = free_port(), free_port()
    core, _ = cores()
    places = {}
    with ExitStack() as stack:
        for key, (command, _) in PEERS.items():
            places[key] = place = Place(home / key, origin_port=first)
            place.directory.mkdir(parents=True)
            running = Running(command(place, first, second), place.directory, core)
            stack.enter_context(running).await_port(place.port)
        ports = {key: place.port for key, place in places.items()}
        heard = uvloop.run(_load(ports, Arm("new", first), Arm("old", second), row))
        opened = {
            key: openings(admin.text(places[key].admin_port, page))
            for key, (_, page) in PEERS.items()
        }
    return [_told(key, row, heard[key], opened[key]) for key in PEERS]


def _told(key: str, row: Row, heard: Heard, opened: int) -> dict[str, Any]:
    last = [name for at, name in heard.by_arm if at > WELL + BROKEN + HEALED - 0.5]
    in_cycles = sum(at >= WELL + TRIP for at in heard.failed)
    return {
        "peer": key,
        "fault": row.fault,
        "tool": row.tool,
        "rescuable": row.rescuable,
        "requests": len(heard.failed) + len(heard.by_arm),
        "failed_before": sum(at < WELL for at in heard.failed),
        "failed_at_trip": sum(WELL <= at < WELL + TRIP for at in heard.failed),
        "cycles": opened - 1,
        "failed_in_cycles": in_cycles,
        "failed_per_cycle": round(in_cycles / (opened - 1), 1) if opened > 1 else 0.0,
        "came_back": bool(last) and last.count("new") > len(last) * 0.9,
    }


async def _load(ports: dict[str, int], first: Arm, second: Arm, row: Row) -> dict[str, Heard]:
    heard = {key: Heard() for key in ports}
    for arm in (first, second):
        await arm.listen()
    try:
        async with asyncio.TaskGroup() as group:
            for key, port in ports.items():
                group.create_task(_callers(port, row.tool, heard[key]))
            await asyncio.sleep(WELL)
            await first.break_with(row.fault)
            await asyncio.sleep(BROKEN)
            await first.heal()
    finally:
        for arm in (first, second):
            await arm.leave()
    return heard


async def _callers(port: int, tool: str, heard: Heard) -> None:
    """A steady load, whatever the answers take; callers come back over kept connections."""
    loop, pick = asyncio.get_running_loop(), random.Random(7)
    idle: list[Lane] = []
    begins = loop.time()

    async def one(body: bytes) -> None:
        lane = idle.pop() if idle else await Lane.to(port)
        raw = await lane.ask(body)
        heard.note(loop.time() - begins, raw)
        if raw:
            idle.append(lane)

    async with asyncio.TaskGroup() as group:
        for number in range(round(RATE * (WELL + BROKEN + HEALED))):
            await asyncio.sleep(max(begins + number / RATE - loop.time(), 0.0))
            group.create_task(one(signed(_body(tool, pick))))
    for lane in idle:
        lane.close()


class Lane(asyncio.Protocol):
    """A caller's connection."""

    def __init__(self) -> None:
        self._held = b""
        self._answer: asyncio.Future[bytes] | None = None

    @classmethod
    async def to(cls, port: int) -> Lane:
        """Connect."""
        loop = asyncio.get_running_loop()
        return (await loop.create_connection(cls, "127.0.0.1", port))[1]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ready."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Part of the answer."""
        self._held += data
        if (end := _whole(self._held)) is not None:
            raw, self._held = self._held[:end], self._held[end:]
            self._settle(raw)

    def connection_lost(self, error: Exception | None) -> None:
        """Whoever waits hears nothing."""
        self._settle(b"")

    async def ask(self, request: bytes) -> bytes:
        """The whole answer; b"" if the connection ended instead."""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        """Hang up."""
        self._transport.close()

    def _settle(self, raw: bytes) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(raw)


def _body(tool: str, pick: random.Random) -> bytes:
    return json.dumps(function(tool, pick)).encode()


def _whole(data: bytes) -> int | None:
    """Where the first message in `data` ends; None if it is not all here."""
    end = data.find(b"\r\n\r\n") + 4
    if end < 4:
        return None
    head = data[:end].lower()
    at = head.find(b"\r\ncontent-length:")
    length = int(head[at + 17 : head.index(b"\r\n", at + 2)]) if at >= 0 else 0
    return end + length if len(data) >= end + length else None
