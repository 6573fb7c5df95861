"""An old process and a new one, as far as a hand-over goes, in one loop."""

from __future__ import annotations

import asyncio
import io
import socket
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import orjson

from proxy.adapters.channel import Channel
from proxy.adapters.clock import LoopClock
from proxy.adapters.listener import Listener, Options
from proxy.adapters.logs import configure
from proxy.adapters.replay_file import ReplayFile
from proxy.adapters.sockets import LISTENER
from proxy.adapters.state_dir import StateDir
from proxy.core.dialects.kept import Kept
from proxy.core.model import Kind, Reply
from proxy.core.outbox import Entry, Letter
from proxy.core.replay import ReplayGuard
from proxy.core.replay_events import EventGuard
from proxy.core.replay_values import Done
from proxy.core.rules import Address
from proxy.doors import Doors, Source
from proxy.durable import Heir
from proxy.handover import Handover
from proxy.once import Elsewhere, Once
from proxy.ports import Incoming
from tests.fakes import FakeWatch

BOOKED = Done(Kept(Kind.FUNCTION, 200, (), b"booked", "success"), True)


def write(key: bytes = b"k" * 16, tool_call_id: str | None = None) -> Elsewhere:
    """A write that somebody would run."""
    return Elsewhere(key, "call_a", "book", 900.0, tool_call_id)


def pair() -> tuple[Channel, Channel]:
    """Both ends, on the running loop."""
    one, other = socket.socketpair()
    return Channel(one), Channel(other)


class Box:
    """An outbox that remembers what is done to it; fits what a hand-over asks of `Durable`."""

    def __init__(self) -> None:
        self.heir: Heir | None = None
        self.done: list[str] = []
        self.kept: list[Entry] = []
        self.room = True

    async def rest(self, grace: float) -> None:
        self.done.append("rest")

    async def stop(self, grace: float) -> None:
        """Harmless a second time."""
        if self.done[-1:] != ["stop"]:
            self.done.append("stop")

    async def start(self) -> None:
        self.done.append("start")

    async def keep(self, entry: Entry, letter: Letter, *, until: float) -> bool:
        if self.room:
            self.kept.append(entry)
        return self.room


class Side:
    """One process."""

    def __init__(self, folder: Path, *, name: bytes = b"one") -> None:
        self.name = name
        self.clock = LoopClock()
        self.stream = io.StringIO()
        self.log = configure(self.clock.wall_ms, stream=self.stream)
        self.once = Once(ReplayGuard(), EventGuard(), clock=self.clock, watch=FakeWatch())
        self.box: Any = Box()
        self.folder = folder
        self.tasks: list[asyncio.Task[Any]] = []
        self.ending = False
        self.listener = Listener(self._answer, lambda status: Reply(status), options=Options())

    def start(self, work: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        self.tasks.append(asyncio.get_running_loop().create_task(work, name=name))
        return self.tasks[-1]

    async def open(self, *, state: StateDir | None = None, source: Source | None = None) -> None:
        """Serve on a free port, or on what `source` has."""
        self.state = state or StateDir.open(self.folder)
        self.doors = Doors(self.listener, source)
        self.doors.claim({LISTENER: Address("127.0.0.1", 0)})
        await self.doors.open({})
        self.replays = ReplayFile(self.state, clock=self.clock, log=self.log)
        self.handover = Handover(
            self.doors,
            self.once,
            self.box,
            state=self.state,
            replays=self.replays,
            draining=lambda: self.ending,
            clock=self.clock,
            log=self.log,
            start=self.start,
        )
        self.handover.open()

    @property
    def port(self) -> int:
        address = self.doors.address(LISTENER)
        assert address is not None
        return address[1]

    @property
    def events(self) -> list[str]:
        return [orjson.loads(line)["event"] for line in self.stream.getvalue().splitlines()]

    async def close(self) -> None:
        await self.handover.close()
        await self.listener.drain(0.1)
        await self.doors.aclose()
        self.state.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    async def _answer(self, incoming: Incoming) -> Reply:
        return Reply(200, [], self.name)


async def answered_by(port: int) -> bytes:
    """Who answers there."""
    async with asyncio.timeout(20):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        answer = await reader.read(-1)
        writer.close()
        await writer.wait_closed()
    return answer.rpartition(b"\r\n\r\n")[2]


async def soon(holds: Any) -> None:
    """Let the loop run until something holds."""
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.002)
