"""How an answer stands on the wire: status line, header block, and how its body ends."""

from __future__ import annotations

from http import HTTPStatus
from operator import itemgetter

from proxy.core.model import Reply

_STATUS_LINES = {
    status.value: b"HTTP/1.1 %d %b" % (status.value, status.phrase.encode("ascii"))
    for status in HTTPStatus
}
_BODILESS = frozenset({204, 304})  # RFC 9112, 6.3: these end with their header block.
_OURS = frozenset({b"content-length", b"transfer-encoding", b"connection"})
_BREAKERS = b"\r\n\0"
_NAMES_KEPT = 512
_LONGEST = 64  # bytes of a name worth remembering


class UnsafeReply(Exception):
    """An answer that would break the wire: its status, or a CR, LF or NUL in its head."""


class Frame:
    """Puts a streamed body on the wire, part by part.

    With a `length` it is that many bytes; else chunks, or all there is until the connection ends.
    """

    __slots__ = ("_chunks", "_left")

    def __init__(self, length: int | None, *, chunks: bool) -> None:
        self._left = length
        self._chunks = chunks

    def part(self, part: bytes) -> bytes:
        """What to write for `part`; nothing for what goes beyond the declared length."""
        if self._left is not None:
            part = part[: self._left]
            self._left -= len(part)
            return part
        if self._chunks and part:  # An empty chunk would be the last one.
            return b"%x\r\n%b\r\n" % (len(part), part)
        return part

    def last(self) -> bytes:
        """What to write at the end.  Raises `UnsafeReply` if bytes are missing."""
        if self._left:
            raise UnsafeReply("a body shorter than declared")
        return b"0\r\n\r\n" if self._chunks and self._left is None else b""


_NAME = itemgetter(0)
_LINE = b": ".join
_FREE: set[bytes] = set()
"""Names seen that anybody may write; with all of an answer's in it, none is looked at alone."""


def whole(reply: Reply, body: bytes, method: str, connection: bytes) -> bytes:
    """Every byte of an answer whose body is at hand.

    `connection` is the connection header's line, or nothing.  Raises `UnsafeReply`.
    """
    if reply.status in _BODILESS or method == "HEAD":
        return _head(reply, b"%b%b\r\n" % (_length_alone(reply, body), connection))
    ending = b"content-length: %d\r\n%b\r\n" % (len(body), connection)
    return _head(reply, ending) + body if body else _head(reply, ending)


def opening(
    reply: Reply, method: str, *, chunks: bool, connection: bytes
) -> tuple[bytes, Frame | None]:
    """The header block of a streamed answer and the frame for its body; None: it has no body.

    `chunks` says that the client understands them (HTTP/1.1).  Raises `UnsafeReply`.
    """
    if reply.status in _BODILESS or method == "HEAD":
        return _head(reply, b"%b%b\r\n" % (_length_alone(reply, b""), connection)), None
    if reply.length is not None:
        framing = b"content-length: %d\r\n" % reply.length
    else:
        framing = b"transfer-encoding: chunked\r\n" if chunks else b""
    frame = Frame(reply.length, chunks=chunks)
    return _head(reply, b"%b%b\r\n" % (framing, connection)), frame


def _length_alone(reply: Reply, body: bytes) -> bytes:
    """What the body's length would have been, where that is known and may be said."""
    length = reply.length if reply.length is not None else len(body) or None
    if length is None or reply.status == 204:  # RFC 9110, 8.6: none on a 204.
        return b""
    return b"content-length: %d\r\n" % length


def _head(reply: Reply, ending: bytes) -> bytes:
    """Status line and headers up to the empty line; `ending` is the last of them, checked."""
    fields = reply.headers
    if not _FREE.issuperset(map(_NAME, fields)):
        # A backend may break its contract, and two framings would desync the client.
        fields = [field for field in fields if _is_free(field[0])]
    head = b"\r\n".join((_status_line(reply), *map(_LINE, fields), b""))
    # One pass over the block instead of one per field: each line's end is all it may hold.
    if len(head) - len(head.translate(None, _BREAKERS)) != 2 * (len(fields) + 1):
        raise UnsafeReply("a control byte in a header")
    return head + ending


def _is_free(name: bytes) -> bool:
    if name.lower() in _OURS:  # Headers that only this file may write.
        return False
    if len(name) <= _LONGEST:
        if len(_FREE) >= _NAMES_KEPT:
            _FREE.clear()
        _FREE.add(name)
    return True


def _status_line(reply: Reply) -> bytes:
    status = reply.status
    if not 200 <= status <= 599:
        raise UnsafeReply("not a final status")
    if reply.phrase:
        return b"HTTP/1.1 %d %b" % (status, reply.phrase)
    return _STATUS_LINES.get(status) or b"HTTP/1.1 %d " % status
