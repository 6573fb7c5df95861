"""Where in a connection's bytes does each request begin and end?

aiohttp's parser gets the stream through here: never more than one request's at a time, and nothing
behind it.  Given more it loses what it should not: a good request together with the garbage behind
it, and whatever stands behind an upgrade that was offered.  And there are two opinions now on where
a request ends; where they differ the connection is closed.
"""

from __future__ import annotations

from typing import Final

from proxy.adapters.listener.chunks import Chunks, Unfit

MAX_HEAD: Final = 131_072
"""Bytes of a request's head; the parser bounds its lines and their number, and the guard more."""

_END: Final = b"\r\n\r\n"
_BLANK: Final = b"\r\n"
_CONTENT: Final = b"\r\ncontent-l"
_LENGTH: Final = b"ength: "  # in the spelling of nearly everybody


class Seams:
    """Follows one connection.

    `whole`: the piece just cut ends a head, and `body` is to be told what stands there of its body.
    """

    __slots__ = ("_blank", "_chunks", "_judged", "_kept", "_left", "_size", "whole")

    def __init__(self) -> None:
        self.whole = False
        self._kept = b""  # of a head: all until its first line is whole, then its last bytes
        self._judged = False  # its first line is good
        self._blank = False  # an empty line stood before it
        self._size = 0  # of the head so far
        self._left = 0  # of a body of known length
        self._chunks: Chunks | None = None

    @property
    def begun(self) -> bool:
        """Part of a head is here, not all of it."""
        return self._size > 0

    @property
    def in_chunks(self) -> bool:
        """Within a body in chunks."""
        return self._chunks is not None

    def lone(self, data: bytes) -> bool:
        """Whether `data` is one request with its whole body, as nearly all that comes is.

        A glance that spares two cuts; the parser must agree.  Raises `Unfit`.
        """
        self.whole = False
        if self._left or self._chunks is not None or self._kept or self._blank:
            return False
        end = data.find(_END) + 4
        if end < 4 or end == len(data) or data[0] <= 13 or end > MAX_HEAD:
            return False
        at = data.find(_LENGTH, 0, end)
        if at < 0 or data[at - 11 : at].lower() != _CONTENT:
            return False
        line_end = data.find(b"\r", at)
        digits = data[at + 7 : line_end]
        if not digits.isdigit() or len(digits) > 9 or int(digits) != len(data) - end:
            return False
        _check_spaces(data.count(b" ", 0, data.find(_BLANK)))
        self.whole = True
        return True

    def cut(self, data: bytes, at: int) -> tuple[bytes, int]:
        """What the parser gets next of `data[at:]`, and where the piece after that begins.

        Raises `Unfit`.
        """
        self.whole = False
        if self._left:
            end = min(at + self._left, len(data))
            self._left -= end - at
            return data[at:end], end
        if self._chunks is not None:
            piece, end = self._chunks.cut(data, at)
            if self._chunks.ended:
                self._chunks = None
            return piece, end
        end = data.find(_END, at) + 4
        # A blank line, and a head in pieces, take longer.
        if end < 4 or self._kept or self._blank or data[at] <= 13 or end - at > MAX_HEAD:
            return self._cut_slowly(data, at)
        _check_spaces(data.count(b" ", at, data.find(_BLANK, at)))
        self.whole = True
        return data[at:end], end

    def body(self, length: int, *, chunked: bool) -> None:
        """What follows the head that was just whole."""
        self._left = length
        self._chunks = Chunks() if chunked else None

    def _cut_slowly(self, data: bytes, at: int) -> tuple[bytes, int]:
        kept = self._kept
        head = kept + data[at:]
        if not self._judged:
            if head[0] in _BLANK:
                return self._skip_blank(head, at + 2 - len(kept), len(data))
            first = head.find(_BLANK)
            if first >= 0:
                _check_spaces(head.count(b" ", 0, first))
                self._judged = True
        end = head.find(_END) + 4
        self._size += len(data) - at if end < 4 else end - len(kept)
        if self._size > MAX_HEAD:
            raise Unfit(431)
        if end < 4:
            self._kept = head[-3:] if self._judged else head
            return data[at:], len(data)
        self._kept, self._judged, self._blank, self._size = b"", False, False, 0
        self.whole = True
        end += at - len(kept)
        return data[at:end], end

    def _skip_blank(self, head: bytes, behind: int, size: int) -> tuple[bytes, int]:
        """RFC 9112, 2.2: let one empty line pass, which old clients send behind a body."""
        if head == b"\r":
            self._kept = head
            return b"", size
        if head[:2] != _BLANK or self._blank:
            raise Unfit(400)
        self._kept, self._blank = b"", True
        return b"", behind


def _check_spaces(count: int) -> None:
    """A request line has two; the parser takes any number, which servers read differently."""
    if count != 2:
        raise Unfit(400)
