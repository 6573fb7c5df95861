"""A raw origin that plays a script, and a client side that is closed and counted."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from proxy.adapters.certificates import Side
from proxy.adapters.upstream import Endpoint, HttpUpstream, Sweep
from proxy.core.model import Outbound, Reply
from proxy.core.rules.tls_ends import TlsEnd
from proxy.errors import UpstreamFailed
from proxy.ports import Upstream


class Peer:
    """The origin's end of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def request(self) -> bytes:
        """One whole request, raw; b"" at the end of the connection."""
        try:
            head = await self.reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError as cut:
            return cut.partial
        length = re.search(rb"\r\ncontent-length: (\d+)\r\n", head, re.I)
        return head + (await self.reader.readexactly(int(length[1])) if length else b"")

    async def send(self, *segments: bytes) -> None:
        """Write segments, each on its own as far as anybody can force that."""
        for segment in segments:
            self.writer.write(segment)
            with contextlib.suppress(ConnectionError):
                await self.writer.drain()
            await asyncio.sleep(0)

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        """Close with a RST."""
        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def gone(self) -> None:
        """Wait until the other side has hung up."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65_536):
                pass


Script: TypeAlias = Callable[[Peer], Awaitable[None]]


class Origin:
    """Plays `script` on every connection; knows how many there were."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.connections = 0
        self.requests: list[bytes] = []
        self.port = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, *, port: int = 0, host: str = "127.0.0.1", **options: Any) -> None:
        self.server = await asyncio.start_server(self._accept, host, port, limit=2**24, **options)
        self.port = self.server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        self.server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.connections += 1
        try:
            await self.script(Peer(reader, writer))
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(Exception):
                await writer.wait_closed()


def answering(*answers: bytes, then: bytes | None = None) -> Script:
    """One answer after the other on each connection; `then` for all that follow."""

    async def script(peer: Peer) -> None:
        for answer in answers:
            if not await peer.request():
                return
            await peer.send(answer)
        while then is not None and await peer.request():
            await peer.send(then)
        if then is None:
            await peer.gone()

    return script


def ok(body: bytes = b"", *fields: bytes) -> bytes:
    """A plain 200."""
    lines = [b"HTTP/1.1 200 OK", *fields, b"Content-Length: %d" % len(body)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def post(body: bytes = b"{}", target: str = "/", headers: Any = ()) -> Outbound:
    return Outbound("POST", target, list(headers), body)


def get(target: str = "/", method: str = "GET") -> Outbound:
    return Outbound(method, target, [], b"")


async def read(reply: Reply) -> bytes:
    """The whole body, streamed or not."""
    if isinstance(reply.body, bytes):
        return reply.body
    return b"".join([chunk async for chunk in reply.body])


class LoopClock:
    """The running loop's own time, which a test may push ahead."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def now(self) -> float:
        return asyncio.get_running_loop().time() + self.ahead

    def wall_ms(self) -> int:
        return 0


class Client:
    """Makes upstreams."""

    def __init__(self) -> None:
        self.clock = LoopClock()
        self.sweep = Sweep(self.clock, tick=0.005)
        self.made: list[HttpUpstream] = []

    def upstream(
        self,
        port: int,
        *,
        lookup: Any = None,
        url: str = "",
        ca_file: Path | None = None,
        tls: Side | None = None,
        **options: Any,
    ) -> HttpUpstream:
        """With https, `tls` is what it is made of, by default `ca_file` alone."""
        options = {"connect_timeout": 5.0, **options}
        extra = {"lookup": lookup} if lookup else {}
        if url.startswith("https:"):
            trusted = str(ca_file) if ca_file else None
            tls = extra["tls"] = tls or Side(TlsEnd("backends.mcp.tls", ca_file=trusted), 0)
            options["tls"] = tls.end
        endpoint = Endpoint.from_url(url or f"http://127.0.0.1:{port}", **options)
        upstream = HttpUpstream(endpoint, clock=self.clock, sweep=self.sweep, **extra)
        self.made.append(upstream)
        return upstream

    def soon(self, seconds: float = 10.0) -> float:
        return self.clock.now() + seconds

    async def send(
        self, upstream: Upstream, outbound: Outbound | None = None, **options: Any
    ) -> Reply:
        options.setdefault("deadline", self.soon())
        return await upstream.send(outbound or post(), [], **options)

    async def close(self) -> None:
        for upstream in self.made:
            await upstream.aclose(0.0)
            assert (upstream.busy, upstream.idle) == (0, 0)
        assert not self.sweep.running


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until something has happened; the bound is for broken code only."""
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.001)


async def failing(awaitable: Any) -> UpstreamFailed:
    with pytest.raises(UpstreamFailed) as caught:
        await awaitable
    return caught.value


class Asked:
    """A `late` hook: says what it was made to say, and remembers how often it was asked."""

    def __init__(self, says: bool = True) -> None:
        self.says = says
        self.times = 0

    def __call__(self) -> bool:
        self.times += 1
        return self.says


class swallowing:  # noqa: N801 - reads as a statement
    """A port whose queue is full: the kernel drops what would connect."""

    def __enter__(self) -> int:
        self.listening = socket.socket()
        self.listening.bind(("127.0.0.1", 0))
        self.listening.listen(0)
        address = self.listening.getsockname()
        self.filling = [socket.socket() for _ in range(4)]
        for sock in self.filling:
            sock.setblocking(False)
            sock.connect_ex(address)
        return int(address[1])

    def __exit__(self, *_: object) -> None:
        for sock in (*self.filling, self.listening):
            sock.close()
