"""The two ends of the product's own protocols with no socket between: bytes in, bytes out."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Iterator
from typing import Any


class Wire(asyncio.Transport):
    """A transport that keeps what is written; whoever tests plays the other side."""

    def __init__(self, protocol: Any, loop: asyncio.AbstractEventLoop, sock: Any = None) -> None:
        super().__init__({"peername": ("127.0.0.1", 40_000), "socket": sock})
        self.written = bytearray()
        self.paused = False
        self.lost = False
        self.aborted = False
        self._loop = loop
        self._protocol = protocol
        self._closing = False

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if not self._closing:
            self.written += data

    def write_eof(self) -> None: ...

    def can_write_eof(self) -> bool:
        return True

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def is_reading(self) -> bool:
        return not self.paused

    def is_closing(self) -> bool:
        return self._closing

    def get_protocol(self) -> asyncio.BaseProtocol:
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            self._loop.call_soon(self.lose)

    def abort(self) -> None:
        self.aborted = True
        self.close()

    def lose(self) -> None:
        """The connection is gone, whoever ended it."""
        self._closing = True
        if not self.lost:
            self.lost = True
            self._protocol.connection_lost(None)


class Quiet:
    """Stands where a socket would: nothing ever comes that was not read."""

    def __init__(self) -> None:
        self._read, self._write = os.pipe()

    def fileno(self) -> int:
        return self._read

    def close(self) -> None:
        os.close(self._read)
        os.close(self._write)


class Loop:
    """An event loop of a target's own, for thousands of short runs."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        self._loop.run_until_complete(work)

    def close(self) -> None:
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()


def pieces(data: bytes, cut: int) -> Iterator[bytes]:
    """`data` whole (0), byte by byte (1), or in pieces of up to `cut` bytes."""
    size = cut or max(1, len(data))
    return (data[at : at + size] for at in range(0, len(data), size))


async def settle(turns: int = 12) -> None:
    """Let everything run that can run without the outside."""
    for _ in range(turns):
        await asyncio.sleep(0)
