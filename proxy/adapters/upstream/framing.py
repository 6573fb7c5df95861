"""Where the body of an answer ends: a declared length, a last chunk, or the connection's end."""

from __future__ import annotations

from typing import Protocol

from httptools import HttpParserError, HttpResponseParser

from proxy.adapters.upstream.head import HEAD_LIMIT, Frame, Malformed

_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
_PER_CHUNK = 32  # bytes that a chunk may cost; its size and its ends are at most 20


class Framing(Protocol):
    """One body under way.  `ended` is set by its last byte, `surplus` if anything followed it."""

    ended: bool
    surplus: bool

    def feed(self, data: bytes) -> bytes:
        """The bytes of the body in what came; raises `Malformed`."""


class Counted:
    """A body of a declared length."""

    __slots__ = ("_left", "ended", "surplus")

    def __init__(self, length: int) -> None:
        self._left = length
        self.ended = length == 0
        self.surplus = False

    def feed(self, data: bytes) -> bytes:
        """Count down; what is beyond the length is no part of the body."""
        left = self._left - len(data)
        if left < 0:
            self.surplus = True
            data = data[: self._left]
            left = 0
        self._left = left
        self.ended = left == 0
        return data


class ToEnd:
    """A body that ends with the connection."""

    __slots__ = ("ended", "surplus")

    def __init__(self) -> None:
        self.ended = False
        self.surplus = False

    def feed(self, data: bytes) -> bytes:
        """All of it."""
        return data


class _Sink:
    """What the parser reports to.  It does not know the parser, so that no cycle keeps both."""

    __slots__ = ("_pieces", "ended", "on_body")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self.on_body = self._pieces.append
        self.ended = False

    def on_message_begin(self) -> None:
        if self.ended:
            raise Malformed("surplus")  # Else another message's body would be taken for ours.

    def on_message_complete(self) -> None:
        self.ended = True

    def take(self) -> tuple[bytes, int]:
        """What was decoded since the last time, and of how many pieces."""
        pieces = self._pieces
        count = len(pieces)
        data = pieces[0] if count == 1 else b"".join(pieces)
        pieces.clear()
        return data, count


class Chunked:
    """A body in chunks.  Extensions and trailers are dropped."""

    __slots__ = ("_overhead", "_parser", "_sink", "ended", "surplus")

    def __init__(self) -> None:
        self._sink = _Sink()
        self._parser = HttpResponseParser(self._sink)
        self._parser.feed_data(_HEAD)
        self._overhead = 0
        self.ended = False
        self.surplus = False

    def feed(self, data: bytes) -> bytes:
        """Decode what came."""
        sink = self._sink
        try:
            # The parser does not tell where a body ended.  The end is always a line feed, so if
            # the last byte is one it is fed by itself: an end before it means surplus.
            if data[-1:] == b"\n":
                view = memoryview(data)
                self._parser.feed_data(view[:-1])
                self.surplus = sink.ended
                if not sink.ended:
                    self._parser.feed_data(view[-1:])
            else:
                self._parser.feed_data(data)
                self.surplus = sink.ended
        except HttpParserError as error:
            if not sink.ended:
                raise Malformed(f"bad chunked body: {error}") from None
            self.surplus = True
        self.ended = sink.ended
        return self._taken(len(data))

    def _taken(self, size: int) -> bytes:
        """The decoded bytes; what only frames them is bounded, beyond as much as it frames."""
        data, pieces = self._sink.take()
        overhead = self._overhead + size - 2 * len(data) - _PER_CHUNK * pieces
        self._overhead = overhead if overhead > 0 else 0
        if overhead > HEAD_LIMIT:
            raise Malformed("trailers or chunk extensions too large")
        return data


def framing(frame: Frame, *, empty: bool) -> Framing:
    """How to read the body behind a head; `empty` if there is none whatever the head says."""
    if empty:
        return Counted(0)
    if frame.chunked:
        return Chunked()
    return ToEnd() if frame.length is None else Counted(frame.length)
