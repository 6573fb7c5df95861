"""Raw clients and plain handlers for the listener's tests."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from proxy.adapters.listener import Listener
from proxy.core.model import Reply
from proxy.errors import Refused
from proxy.ports import Incoming

BODY_LIMIT = 1000


@dataclass(frozen=True)
class Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes
    version: str

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)


class Client:
    """Writes the bytes it is given and reads answers by the letter of RFC 9112."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def head(self) -> tuple[int, list[tuple[str, str]], str]:
        block = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        line, *fields = block[:-4].split("\r\n")
        version, status, *_ = line.split(" ", 2)
        pairs = [tuple(one.split(": ", 1)) for one in fields]
        return int(status), [(name, value) for name, value in pairs], version

    async def answer(self, method: str = "POST") -> Answer:
        status, headers, version = await self.head()
        named = dict(headers)
        body = b""
        if method == "HEAD" or status in (204, 304) or status < 200:
            pass
        elif "content-length" in named:
            body = await self.reader.readexactly(int(named["content-length"]))
        elif named.get("transfer-encoding") == "chunked":
            body = await self.chunks()
        else:
            body = await self.reader.read(-1)
        return Answer(status, headers, body, version)

    async def chunks(self) -> bytes:
        parts = []
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            parts.append((await self.reader.readexactly(size + 2))[:-2])
        assert await self.reader.readexactly(2) == b"\r\n"
        return b"".join(parts)

    async def rest(self) -> bytes:
        """All until the other side closes."""
        return await self.reader.read(-1)

    async def to_the_end(self) -> bytes:
        """An answer's head and all that follows."""
        await self.head()
        return await self.rest()

    async def close(self) -> None:
        self.writer.close()
        try:
            await self.writer.wait_closed()
        except OSError:
            pass

    def abort(self) -> None:
        self.writer.transport.abort()

    @property
    def socket(self) -> Any:
        return self.writer.get_extra_info("socket")


@dataclass
class Served:
    """A listener under test and all that it was heard to say."""

    listener: Listener
    faults: list[int] = field(default_factory=list)
    reports: list[dict[str, Any]] = field(default_factory=list)
    clients: list[Client] = field(default_factory=list)

    async def connect(self) -> Client:
        host, port = self.listener.address
        client = Client(*await asyncio.open_connection(host, port))
        self.clients.append(client)
        return client

    async def ask(self, data: bytes, method: str = "POST") -> Answer:
        client = await self.connect()
        await client.send(data)
        return await client.answer(method)


Handle = Callable[[Incoming], Awaitable[Reply]]
Serve = Callable[..., Awaitable[Served]]


async def echo(incoming: Incoming) -> Reply:
    """Method, target and body, as they came."""
    body = await incoming.read(BODY_LIMIT, asyncio.get_running_loop().time() + 10)
    line = f"{incoming.method} {incoming.target} ".encode("ascii", "surrogateescape")
    return Reply(200, [(b"Content-Type", b"text/plain")], line + body)


async def refusing(incoming: Incoming) -> Reply:
    """`echo`, with refusals shaped as the edge would."""
    try:
        return await echo(incoming)
    except Refused as refused:
        return Reply(refused.status, [], refused.code.encode(), close=refused.close)


def post(body: bytes, *fields: bytes, target: bytes = b"/retell") -> bytes:
    """A request with its length declared."""
    more = b"".join(b"%b\r\n" % one for one in fields)
    return b"POST %b HTTP/1.1\r\nHost: a\r\n%bContent-Length: %d\r\n\r\n%b" % (
        target,
        more,
        len(body),
        body,
    )
