"""What of a body in chunks does the parser get?  Sizes and data: no extension, no trailer.

Nothing here reads extensions or trailers, and they are not forwarded.  aiohttp's parser takes the
last trailer for a header of the connection's next request, as its `Authorization` say; and it puts
no bound on extensions.  So both end here, once they have been found well-formed.
"""

from __future__ import annotations

import re
from typing import Final

MAX_LINE: Final = 8190
"""Bytes of one chunk-size line, and of one trailer."""
MAX_EXTENSIONS: Final = 65_536
"""Bytes of all extensions of a body."""
MAX_TRAILERS: Final = 128
MAX_TRAILER_BYTES: Final = 61_440
AT_ONCE: Final = 2048
"""Chunks followed in one go, which takes a few milliseconds, however small they are."""

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # RFC 9110, 5.6.2
_TEXT = rb"[\t \x21-\x7e\x80-\xff]"
_QUOTED = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\%b)*"' % _TEXT  # RFC 9110, 5.6.4
_EXTENSION = rb"[ \t]*;[ \t]*%b(?:[ \t]*=[ \t]*(?:%b|%b))?" % (_TOKEN, _TOKEN, _QUOTED)
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})\r\n").match  # RFC 9112, 7.1
_SIZE_EXTENDED = re.compile(rb"([0-9A-Fa-f]{1,16})((?:%b)*)\r\n" % _EXTENSION).match
_TRAILER = re.compile(rb"%b:%b*\r\n" % (_TOKEN, _TEXT)).fullmatch

_AT_SIZE, _IN_DATA, _BEHIND_DATA, _IN_TRAILERS, _ENDED = range(5)


class Unfit(Exception):
    """What came cannot be understood in one way only; `status` is its answer's."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Chunks:
    """Follows one body."""

    __slots__ = ("_extensions", "_held", "_left", "_place", "_trailer_bytes", "_trailers")

    def __init__(self) -> None:
        self._place = _AT_SIZE
        self._held = b""  # the beginning of a line, or of a line end, that is not whole yet
        self._left = 0  # of the chunk's data
        self._extensions = 0
        self._trailers = 0
        self._trailer_bytes = 0

    @property
    def ended(self) -> bool:
        """The body has come to its end."""
        return self._place == _ENDED

    def cut(self, data: bytes, at: int) -> tuple[bytes, int]:
        """What the parser gets of `data[at:]`, and where that ends: with the data, with the body,
        or after `AT_ONCE` chunks.

        Raises `Unfit`.
        """
        shift = 0
        if held := self._held:
            shift = at - len(held)
            data, at, self._held = held + data[at:], 0, b""
        parts, end = self._follow(data, at)
        return parts[0] if len(parts) == 1 else b"".join(parts), end + shift

    def _follow(self, data: bytes, at: int) -> tuple[list[bytes], int]:
        """Walk over what is here; `start` is where the part begins that goes on next."""
        parts: list[bytes] = []
        start, size, left = at, len(data), AT_ONCE
        while at < size and left:
            place = self._place
            if place == _IN_DATA:
                step = min(self._left, size - at)
                at += step
                self._left -= step
                if not self._left:
                    self._place = _BEHIND_DATA
            elif place == _BEHIND_DATA:
                if data[at : at + 2] != b"\r\n":
                    return self._wait(data, start, at, parts)
                at += 2
                self._place = _AT_SIZE
            elif place == _AT_SIZE:
                match = _SIZE(data, at)
                if match is None:
                    if (match := _SIZE_EXTENDED(data, at)) is None:
                        return self._wait(data, start, at, parts)
                    self._count_extension(match.end(2) - match.start(2))
                    behind = match.end(1)
                    parts += (data[start:behind], b"\r\n")
                    start = match.end()
                left -= 1
                at = match.end()
                self._left = int(match[1], 16)
                self._place = _IN_DATA if self._left else _IN_TRAILERS
            else:
                parts.append(data[start:at])
                return self._skip_trailers(data, at, parts)
        parts.append(data[start:at])
        return parts, at

    def _wait(
        self, data: bytes, start: int, at: int, parts: list[bytes]
    ) -> tuple[list[bytes], int]:
        """Keep the beginning of a line, unless it is whole or too long to become a good one."""
        rest = data[at:]
        if self._place == _BEHIND_DATA:
            if rest != b"\r":
                raise Unfit(400)
        elif b"\n" in rest or len(rest) > MAX_LINE:
            raise Unfit(400)
        self._held = rest
        parts.append(data[start:at])
        return parts, len(data)

    def _count_extension(self, size: int) -> None:
        self._extensions += size
        if size > MAX_LINE or self._extensions > MAX_EXTENSIONS:
            raise Unfit(400)

    def _skip_trailers(self, data: bytes, at: int, parts: list[bytes]) -> tuple[list[bytes], int]:
        """Leave all of them out; the empty line behind them ends the body."""
        while (end := data.find(b"\n", at) + 1) > 0:
            line = data[at:end]
            at = end
            if line == b"\r\n":
                self._place = _ENDED
                parts.append(line)
                return parts, at
            if _TRAILER(line) is None:
                raise Unfit(400)
            self._count_trailer(len(line))
        self._held = data[at:]
        if len(self._held) > MAX_LINE:
            raise Unfit(431)
        return parts, len(data)

    def _count_trailer(self, size: int) -> None:
        self._trailers += 1
        self._trailer_bytes += size
        too_many = self._trailers > MAX_TRAILERS or self._trailer_bytes > MAX_TRAILER_BYTES
        if too_many or size > MAX_LINE:
            raise Unfit(431)
