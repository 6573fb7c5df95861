"""An answer that did not come in one piece: kept until it is whole, or streamed if it is large."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Final

from proxy.adapters.upstream.body import Source, StreamedBody
from proxy.adapters.upstream.framing import ToEnd, framing
from proxy.adapters.upstream.head import Frame
from proxy.core.model import Reply
from proxy.errors import UpstreamFailed

NO_BODY: Final = frozenset({204, 304})


class Answer:
    """One answer under way.  Up to `limit` bytes are kept for a whole reply."""

    __slots__ = (
        "_empty",
        "_events",
        "_framing",
        "_length",
        "_limit",
        "_pieces",
        "_reply",
        "_size",
        "_stream",
        "heard",
        "keep",
    )

    def __init__(self, reply: Reply, frame: Frame, *, bodiless: bool, limit: int) -> None:
        empty = bodiless or reply.status in NO_BODY
        self._reply = reply
        self._length = frame.length
        self._limit = limit
        self._events = frame.events
        self._framing = framing(frame, empty=empty)
        self._empty = self._framing.ended
        self._pieces: list[bytes] = []
        self._size = 0
        self._stream: weakref.ref[StreamedBody] | None = None
        self.heard = False  # something came since the stream was last looked at
        self.keep = frame.keep
        if bodiless:
            reply.length = frame.length
        elif empty:
            # 204 with a declared body: whether it follows is anybody's guess.
            self.keep &= reply.status == 304 or not (frame.chunked or frame.length)
        elif frame.length is None and not frame.chunked:
            self.keep = False

    @property
    def ended(self) -> bool:
        """The last byte of the body has come."""
        return self._framing.ended

    @property
    def ends_with_connection(self) -> bool:
        """Only the connection's end says where the body ends."""
        return isinstance(self._framing, ToEnd)

    @property
    def streaming(self) -> bool:
        """It has a reader."""
        return self._stream is not None

    @property
    def large(self) -> bool:
        """It should not wait until it is whole."""
        if self._empty or self._stream is not None:
            return False
        size = self._size if self._length is None else self._length
        return self._events or size > self._limit or self._limit == 0

    def feed(self, data: bytes) -> None:
        """Take what came; raises `Malformed`."""
        piece = self._framing.feed(data)
        self.keep &= not self._framing.surplus
        if not piece:
            return
        self._size += len(piece)
        if self._stream is None:
            self._pieces.append(piece)
        elif (stream := self._stream()) is not None:
            self.heard = True
            stream.feed(piece)

    def forget(self) -> None:
        """Nobody waits for it: what has come is of no use."""
        self._pieces.clear()

    def stream(self, source: Source, orphaned: Callable[[object], None]) -> Reply:
        """The reply, its body a stream; `orphaned` is called if that is let go unread."""
        body = StreamedBody(source)
        for piece in self._pieces:
            body.feed(piece)
        self._pieces.clear()
        self._stream = weakref.ref(body, orphaned)
        self.heard = True
        head = self._reply  # A reply of its own: held here, the stream could not be let go.
        return Reply(head.status, head.headers, body, self._length, head.phrase)

    def whole(self) -> Reply:
        """The reply with its whole body."""
        pieces = self._pieces
        self._reply.body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return self._reply

    def end(self, failure: UpstreamFailed | None = None) -> None:
        """Tell the reader of the stream."""
        stream = self._stream() if self._stream is not None else None
        self._stream = None
        if stream is not None:
            stream.end(failure)
