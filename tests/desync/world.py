"""A real sidecar between a caller who sends any bytes and an origin that reads by the letter."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from tests.desync.strict import Message, Reading, requests, responses
from tests.desync.vectors import TOKEN
from tests.functional.kit import Document, running

PATIENCE = 10.0
"""Seconds that nothing here ever takes."""

KINDS = ("function", "event", "inbound", "alert", "args", "mcp", "tools")


@dataclass
class Arrivals:
    """What came to the origin since the last look."""

    messages: list[Message] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)  # what was not HTTP by the letter, and why


class Origin:
    """Records every request; answers with what it was asked, or plays `play`."""

    def __init__(self) -> None:
        self.arrivals = Arrivals()
        self.play: tuple[bytes, bool] | None = None  # bytes, and whether to close behind them
        self.port = 0
        self._server: asyncio.Server | None = None
        self._open: set[_AtOrigin] = set()

    async def listen(self) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: _AtOrigin(self), "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for connection in tuple(self._open):
            connection.transport.abort()

    def hang_up(self) -> None:
        """Close every connection."""
        for connection in tuple(self._open):
            connection.transport.close()

    @property
    def unfinished(self) -> bytes:
        """Bytes on any connection that are no whole request."""
        return b"".join(connection.held for connection in self._open)


class _AtOrigin(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, origin: Origin) -> None:
        self.origin = origin
        self.held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.origin._open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.origin._open.discard(self)

    def data_received(self, data: bytes) -> None:
        self.held += data
        reading = requests(self.held)
        for message in reading.messages:
            self.origin.arrivals.messages.append(message)
            self._answer(message)
        if reading.rest == "broken":
            self.origin.arrivals.broken.append(f"{reading.fault}: {self.held[-200:]!r}")
            self.transport.abort()
        if reading.messages:
            self.held = self.held[reading.messages[-1].end :]

    def _answer(self, message: Message) -> None:
        play = self.origin.play
        if play is not None and b"/canary/" not in message.target:
            self.origin.play = None
            self.transport.write(play[0])
            if play[1]:
                self.transport.close()
            return
        said = b"%b %b" % (message.method, message.target)
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n"
        self.transport.write(head % len(said) + (b"" if message.method == b"HEAD" else said))


class Caller(asyncio.Protocol):
    """One connection to the sidecar and all that was heard on it."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        self.heard = b""
        self.ended = False
        self.reset = False
        self._news = asyncio.Event()

    @classmethod
    async def connect(cls, port: int) -> Caller:
        loop = asyncio.get_running_loop()
        return (await loop.create_connection(cls, "127.0.0.1", port))[1]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.heard += data
        self._news.set()

    def eof_received(self) -> bool:
        self.ended = True
        self._news.set()
        return True  # Keep our half: whoever closes here does it on purpose.

    def connection_lost(self, exc: Exception | None) -> None:
        self.ended = True
        self.reset = self.reset or exc is not None
        self._news.set()

    def send(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(data)

    async def news(self) -> None:
        self._news.clear()
        async with asyncio.timeout(PATIENCE):
            await self._news.wait()

    def answers(self, methods: list[bytes]) -> Reading:
        return responses(self.heard, methods, ended=self.ended)

    def close(self) -> None:
        self.transport.abort()


class World:
    """One origin, the sidecar before it, and a canary that flies between two looks."""

    def __init__(self, origin: Origin, port: int) -> None:
        self.origin, self.port = origin, port
        self._flights = 0
        self._canary: Caller | None = None

    async def connect(self) -> Caller:
        return await Caller.connect(self.port)

    def canary(self) -> tuple[bytes, bytes]:
        """A clean request and its target."""
        self._flights += 1
        target = b"/canary/%d" % self._flights
        return b"GET %b HTTP/1.1\r\nHost: sidecar.test\r\n\r\n" % target, target

    async def fly(self, *, afresh: bool = False) -> str:
        """Send a canary; what was wrong with its answer, "" if nothing."""
        caller = self._canary
        if afresh or caller is None or caller.ended:
            if caller is not None:
                caller.close()
            caller = self._canary = await self.connect()
        caller.heard = b""
        request, target = self.canary()
        caller.send(request)
        try:
            while not (reading := caller.answers([b"GET"])).messages and reading.valid:
                if caller.ended:
                    return "the canary's connection was cut"
                await caller.news()
        except TimeoutError:
            return "the canary was not answered"
        answer = reading.messages[0] if reading.messages else None
        if (
            not reading.valid
            or answer is None
            or (answer.status, answer.body) != (200, b"GET " + target)
        ):
            return f"the canary heard {caller.heard[:300]!r}"
        return ""

    async def settle(self, caller: Caller) -> str:
        """Let the sidecar do all it can with what it has; what was wrong with the canaries.

        No clock: canaries take the same way, so once nothing has changed during two flights
        nothing will.
        """
        calm = 0
        while calm < 2:
            before = self._state(caller)
            if wrong := await self.fly():
                return wrong
            calm = calm + 1 if self._state(caller) == before else 0
        return ""

    def take(self) -> Arrivals:
        """What came to the origin, the canaries in between left out."""
        taken, self.origin.arrivals = self.origin.arrivals, Arrivals()
        return taken

    async def close(self) -> None:
        if self._canary is not None:
            self._canary.close()

    def _state(self, caller: Caller) -> tuple[int, bool, int]:
        arrivals = self.origin.arrivals
        others = sum(b"/canary/" not in one.target for one in arrivals.messages)
        return len(caller.heard), caller.ended, others + len(arrivals.broken)


def document(port: int, **sections: Any) -> Document:
    """Everything goes to one origin, at the path that was asked for."""
    arm = {"handler": "webhook", "url": f"http://127.0.0.1:{port}", "connect_timeout": "10s"}
    whole: Document = {
        "version": 1,
        "listen": {"address": "127.0.0.1:0", "drain_grace": "1s"},
        "admin": {"address": "127.0.0.1:0"},
        "split": {"to": "one", "otherwise": "two", "percent": 0},
        "backends": {
            "one": {**arm, "breaker": {"enabled": False}},
            "two": {**arm, "breaker": {"enabled": False}},
        },
        "auth": {"tokens": ["env:TOKEN"], "require": {kind: ["token"] for kind in KINDS}},
        "limits": {"tools_per_minute": None, "ip_per_minute": None},
        "outbox": {"enabled": False},
        "passthrough": "two",
    }
    return whole | sections


@contextlib.asynccontextmanager
async def standing(
    folder: Path, rules: Callable[[int], Document] = document
) -> AsyncIterator[World]:
    """A world; at its end the sidecar must be empty and must not have crashed."""
    origin = Origin()
    await origin.listen()
    try:
        async with running(folder, rules(origin.port), {"TOKEN": TOKEN}) as sidecar:
            world = World(origin, sidecar.port)
            yield world
            await world.close()
    finally:
        await origin.close()
