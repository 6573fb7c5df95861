"""What the head of an answer says, read strictly: what is ambiguous is refused, never repaired."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from proxy.adapters.upstream.wire import CONTROLS, TOKEN
from proxy.core.model import Headers, Reply

HEAD_LIMIT: Final = 65_536
FIELD_LIMIT: Final = 128

_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: ([\t -~\x80-\xff]*))?")
_PREFIX: Final = b"HTTP/1."

_PLAIN, _STRIP, _TYPE, _LENGTH, _CODING, _CONNECTION = range(6)
_ROLES = {
    b"connection": _CONNECTION,
    b"content-length": _LENGTH,
    b"content-type": _TYPE,
    b"keep-alive": _STRIP,
    b"te": _STRIP,
    b"trailer": _STRIP,
    b"transfer-encoding": _CODING,
    b"upgrade": _STRIP,
}
_ROOM = 1024  # names, status lines and connection options remembered
_LONGEST = 64  # bytes of one worth remembering


class Malformed(Exception):
    """The upstream does not speak HTTP/1.1 as it must; the text says where."""


@dataclass(slots=True)
class Frame:
    """How the body behind a head is delimited, and what may follow it.

    `length` is the declared one; without it and without `chunked` the body ends with the
    connection.
    """

    length: int | None
    chunked: bool
    keep: bool  # the connection may carry another exchange
    events: bool  # text/event-stream


class _Roles(dict[bytes, int]):
    """What a field is to a proxy; learns the names it sees, up to a bound."""

    def __missing__(self, name: bytes) -> int:
        if not TOKEN.fullmatch(name):
            raise Malformed("bad header name")
        lower = name.lower()
        role = _STRIP if lower.startswith(b"proxy-") else _ROLES.get(lower, _PLAIN)
        if len(self) < _ROOM and len(name) <= _LONGEST:
            self[name] = role
        return role


class _Statuses(dict[bytes, tuple[int, bytes, bool]]):
    """Status, phrase and "is HTTP/1.1" of a status line; learns them, up to a bound."""

    def __missing__(self, line: bytes) -> tuple[int, bytes, bool]:
        match = _STATUS.fullmatch(line)
        if match is None:
            raise Malformed("bad status line")
        status = int(match[2]), match[3] or b"", match[1] == b"1"
        if len(self) < _ROOM and len(line) <= _LONGEST:
            self[line] = status
        return status


class _Options(dict[bytes, frozenset[bytes]]):
    """The options of a Connection field; learns them, up to a bound."""

    def __missing__(self, value: bytes) -> frozenset[bytes]:
        options = frozenset(option.strip(b" \t") for option in value.lower().split(b","))
        if len(self) < _ROOM and len(value) <= _LONGEST:
            self[value] = options
        return options


_ROLE_OF = _Roles()
_STATUS_OF = _Statuses()
_OPTIONS_OF = _Options()
_CLOSE, _KEEP = b"close", b"keep-alive"
_KEPT = frozenset({_KEEP})
_NONE: frozenset[bytes] = frozenset()


def read_head(data: bytes, end: int) -> tuple[Reply, Frame]:
    """Read the head in `data[:end]`, its closing CRLF CRLF left out; raises `Malformed`."""
    first, *lines = _lines(data, end)
    status, phrase, modern = _STATUS_OF[first]
    headers: Headers = []
    length: int | None = None
    coding: bytes | None = None
    options = _KEPT if modern else _NONE
    events = False
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon:
            raise Malformed("header line without a colon")
        role = _ROLE_OF[name]
        value = value.strip(b" \t")
        if role == _PLAIN:
            headers.append((name, value))
        elif role == _LENGTH:
            if length is not None or not value.isdigit() or len(value) > 18:
                raise Malformed("bad Content-Length")
            length = int(value)
        elif role == _TYPE:
            headers.append((name, value))
            events = events or value[:17].lower() == b"text/event-stream"
        elif role == _CONNECTION:
            options |= _OPTIONS_OF[value]
        elif role == _CODING:
            if coding is not None or not modern or value.lower() != b"chunked":
                raise Malformed("bad Transfer-Encoding")
            coding = value
    if coding is not None and length is not None:
        raise Malformed("both Content-Length and Transfer-Encoding")
    if len(options) > 1:
        headers = [field for field in headers if field[0].lower() not in options]
    keep = _KEEP in options and _CLOSE not in options
    return Reply(status, headers, b"", None, phrase), Frame(
        length, coding is not None, keep, events
    )


def _lines(data: bytes, end: int) -> list[bytes]:
    """The lines of a head that is not too large and holds no control byte."""
    if end > HEAD_LIMIT:
        raise Malformed("header block too large")
    head = data[:end]
    lines = head.split(b"\r\n")
    # No CR, LF or other control byte but the line ends just split at.
    if end - len(head.translate(None, CONTROLS)) != 2 * len(lines) - 2:
        raise Malformed("control byte or bare line end in the header block")
    if len(lines) > FIELD_LIMIT + 1:
        raise Malformed("too many header fields")
    return lines


def check_start(data: bytes) -> None:
    """Refuse early what can never become a head; raises `Malformed`."""
    if len(data) > HEAD_LIMIT:
        raise Malformed("header block too large")
    if data[:7] != _PREFIX[: len(data)]:
        raise Malformed("not HTTP/1.1")
    if data.count(b"\n") != data.count(b"\r\n"):
        raise Malformed("bare line end in the header block")
