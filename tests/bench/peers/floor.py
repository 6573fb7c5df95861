"""The floor for Python: bare uvloop protocols on both sides, call ID and hash, and nothing else.

No checks, no deadlines, no errors: a proxy that must never be used, only measured against.
Run as a script: floor.py PORT ORIGIN_PORT
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import httptools
import mmh3
import msgspec
import uvloop

from tests.bench.place import Place

KEY = "floor"
LABEL = "bare uvloop protocols"


def command(place: Place) -> list[str]:
    """This file, as a process."""
    return [
        sys.executable,
        "-m",
        "tests.bench.peers.floor",
        str(place.port),
        str(place.origin_port),
    ]


def fault(place: Place, requests: int) -> str | None:
    """It promises nothing but an answer."""
    return None


class Call(msgspec.Struct):
    """What of a call the split needs."""

    call_id: str


class Body(msgspec.Struct):
    """What of a body the split needs."""

    call: Call


_decode = msgspec.json.Decoder(Body).decode


class Upstream(asyncio.Protocol):
    """A connection to the origin; idle ones wait in `pool`."""

    def __init__(self, pool: list[Upstream]) -> None:
        self.pool = pool
        self.waiting: Client | None = None
        self.body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ready for a request."""
        self.transport = cast("asyncio.Transport", transport)
        self.parser = httptools.HttpResponseParser(self)

    def data_received(self, data: bytes) -> None:
        """Part of an answer."""
        self.parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        """httptools: part of the body."""
        self.body += body

    def on_message_complete(self) -> None:
        """httptools: the answer is whole; hand it to its client."""
        client, body, self.waiting, self.body = self.waiting, self.body, None, b""
        self.pool.append(self)
        if client is not None:
            client.answer(self.parser.get_status_code(), body)


class Client(asyncio.Protocol):
    """A connection from the load generator."""

    def __init__(self, arms: list[list[Upstream]], origin: int) -> None:
        self.arms = arms
        self.origin = origin
        self.headers: list[tuple[bytes, bytes]] = []
        self.url = b""
        self.body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ready for a request."""
        self.transport = cast("asyncio.Transport", transport)
        self.parser = httptools.HttpRequestParser(self)

    def data_received(self, data: bytes) -> None:
        """Part of a request."""
        self.parser.feed_data(data)

    def on_message_begin(self) -> None:
        """httptools: a new request."""
        self.headers, self.body = [], b""

    def on_url(self, url: bytes) -> None:
        """httptools: its target."""
        self.url = url

    def on_header(self, name: bytes, value: bytes) -> None:
        """httptools: one header."""
        self.headers.append((name, value))

    def on_body(self, body: bytes) -> None:
        """httptools: part of its body."""
        self.body += body

    def on_message_complete(self) -> None:
        """httptools: the request is whole; send it on."""
        call_id = _decode(self.body).call.call_id
        pool = self.arms[mmh3.hash(call_id, signed=False) % 100 >= 50]
        head = b"".join([b"%b: %b\r\n" % field for field in self.headers])
        request = b"POST %b HTTP/1.1\r\n%b\r\n%b" % (self.url, head, self.body)
        if pool:
            self.send(pool.pop(), request)
        else:
            asyncio.ensure_future(self.connect(pool, request))  # noqa: RUF006

    async def connect(self, pool: list[Upstream], request: bytes) -> None:
        """Send over a new connection."""
        loop = asyncio.get_running_loop()
        _, upstream = await loop.create_connection(lambda: Upstream(pool), "127.0.0.1", self.origin)
        self.send(upstream, request)

    def send(self, upstream: Upstream, request: bytes) -> None:
        """Send over an idle connection."""
        upstream.waiting = self
        upstream.transport.write(request)

    def answer(self, status: int, body: bytes) -> None:
        """Write the origin's answer."""
        if self.transport.is_closing():
            return
        self.transport.write(
            b"HTTP/1.1 %d OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
            % (status, len(body), body)
        )


async def serve(port: int, origin: int) -> None:
    """Serve until killed."""
    arms: list[list[Upstream]] = [[], []]
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Client(arms, origin), "127.0.0.1", port, backlog=4096)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(serve(int(sys.argv[1]), int(sys.argv[2])))
