"""The application behind the sidecar: quick answers, and pages of any size.  Run with its port."""

from __future__ import annotations

import asyncio
import sys
from urllib.parse import urlsplit

import uvloop

PIECE = b"x" * 65_536


class Application(asyncio.Protocol):
    """`/page/N` has N bytes; everything else is a short JSON answer."""

    def __init__(self) -> None:
        self._held = b""
        self._left = 0
        self._full = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """One request at a time, as a proxy sends them."""
        self._held += data
        head, ending, body = self._held.partition(b"\r\n\r\n")
        if not ending:
            return
        length = 0
        for line in head.split(b"\r\n"):
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        if len(body) < length:
            return
        self._held = b""
        path = urlsplit(head.split(b" ", 2)[1].decode()).path
        if path.startswith("/page/"):
            self._left = int(path.removeprefix("/page/"))
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % self._left)
            self._write()
        else:
            self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n" + b'{"ok":true}')

    def _write(self) -> None:
        while self._left and not self._full:
            piece = PIECE[: self._left]
            self._left -= len(piece)
            self._transport.write(piece)

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        self._write()


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Application, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
