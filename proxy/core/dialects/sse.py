"""Which events does a `text/event-stream` hold?  And: one message as such a stream.

Source: the HTML standard, section 9.2 (server-sent events).
"""

from __future__ import annotations

from dataclasses import dataclass

EVENT_LIMIT = 4 * 2**20
"""The most bytes that one unfinished event may hold; no MCP server's answer comes near."""

_ENDS = (b"\n\n", b"\n\r\n", b"\n\r", b"\r\r")
_BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True, slots=True)
class Event:
    """One dispatched event; `data` without its last line end."""

    name: bytes
    data: bytes


class Parser:
    """Takes a stream's bytes as they come, in pieces of any size.

    An event that the stream's end cuts off is never returned, and its ID never heard.
    """

    def __init__(self, limit: int = EVENT_LIMIT) -> None:
        self.numbered = False  # an event had an ID: its reader can ask for what followed it
        self.last_id = b""  # the latest one's
        self.retry_ms: int | None = None  # how long who comes back is to wait, if that was said
        self._id = b""
        self._limit = limit
        self._line: list[bytes] = []  # pieces of a line whose end has not come
        self._held = 0  # bytes in `_line` and `_data`
        self._name = b""
        self._data: list[bytes] = []
        self._after_cr = False  # a line ended in CR: an LF that follows belongs to it
        self._first = True

    def feed(self, chunk: bytes) -> list[Event]:
        """Return the events that `chunk` completes.

        Raises ValueError once an unfinished event is larger than the limit.
        """
        if not chunk:
            return []
        if self._after_cr:
            chunk = chunk.removeprefix(b"\n")
        events: list[Event] = []
        for piece in chunk.splitlines(keepends=True):
            if piece[-1] in b"\r\n":
                self._end_line(piece, events)
            else:
                self._hold(self._line, piece)
        self._after_cr = chunk.endswith(b"\r")
        return events

    def following(self) -> Parser:
        """For the stream that takes this one up."""
        parser = Parser(self._limit)
        parser.last_id = parser._id = self.last_id
        parser.retry_ms = self.retry_ms
        return parser

    def _end_line(self, piece: bytes, events: list[Event]) -> None:
        line = b"".join((*self._line, piece.rstrip(b"\r\n")))
        self._held -= sum(map(len, self._line))
        self._line.clear()
        if self._first:
            self._first = False
            line = line.removeprefix(_BOM)
        if line:
            self._field(line)
            return
        self.last_id = self._id
        if self._data:
            events.append(Event(self._name or b"message", b"\n".join(self._data)))
            self._data.clear()
            self._held = 0
            self._name = b""
        else:
            self._name = b""

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")  # A comment has an empty name.
        value = value.removeprefix(b" ")
        if name == b"data":
            self._hold(self._data, value)
        elif name == b"event":
            self._name = value
        elif name == b"id" and b"\0" not in value:
            self._id = value
            self.numbered = self.numbered or value != b""
        elif name == b"retry" and value.isdigit():
            self.retry_ms = int(value[:9])

    def _hold(self, store: list[bytes], piece: bytes) -> None:
        self._held += len(piece)
        if self._held > self._limit:
            raise ValueError("an event is larger than the limit")
        store.append(piece)


def end_of_events(data: bytes) -> int:
    """Where the last whole event in `data` ends (a blank line does that); 0 if there is none."""
    return max((data.rfind(end) + len(end) for end in _ENDS if end in data), default=0)


def render(message: bytes, name: bytes = b"message") -> bytes:
    """One JSON message as a whole stream; line ends inside it are white space to JSON."""
    lines = b"\ndata: ".join(message.splitlines())
    return b"event: %b\ndata: %b\n\n" % (name, lines)
