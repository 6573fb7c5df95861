"""A streamed answer: chunks as they come, and back-pressure towards the upstream."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final, Protocol

from proxy.errors import UpstreamFailed

HIGH_WATER: Final = 65_536


class Source(Protocol):
    """The connection behind a stream."""

    def pause(self) -> None:
        """Stop reading: the reader is behind."""

    def resume(self) -> None:
        """Read on: everything was taken."""

    def drop(self) -> None:
        """Nobody wants the rest."""


class StreamedBody:
    """An async iterator over one answer; one reader.

    Raises `UpstreamFailed` after the bytes that came if the upstream broke off.
    `aclose` before the end drops the connection.
    """

    __slots__ = ("__weakref__", "_chunks", "_ended", "_failure", "_size", "_source", "_waiter")

    def __init__(self, source: Source) -> None:
        self._source: Source | None = source
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._waiter: asyncio.Future[None] | None = None
        self._ended = False
        self._failure: UpstreamFailed | None = None

    @property
    def buffered(self) -> int:
        """Bytes that wait for the reader."""
        return self._size

    def feed(self, data: bytes) -> None:
        """Take what the upstream sent."""
        self._chunks.append(data)
        self._size += len(data)
        if self._size > HIGH_WATER and self._source is not None:
            self._source.pause()
        self._wake()

    def end(self, failure: UpstreamFailed | None = None) -> None:
        """The upstream is done, or broke off."""
        self._ended = True
        self._failure = failure
        self._source = None
        self._wake()

    def __aiter__(self) -> StreamedBody:
        return self

    async def __anext__(self) -> bytes:
        while not self._chunks:
            if self._failure is not None:
                raise self._failure
            if self._ended:
                raise StopAsyncIteration
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        chunks = self._chunks
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self._size = 0
        if self._source is not None:
            self._source.resume()
        return data

    async def aclose(self) -> None:
        """Give the rest up; harmless after the end."""
        self.drop()

    def drop(self) -> None:
        """Like `aclose`, for those who cannot wait."""
        self._chunks.clear()
        self._size = 0
        source, self._source = self._source, None
        self._ended = True
        self._wake()
        if source is not None:
            source.drop()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
