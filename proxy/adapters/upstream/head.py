"""What the head of an answer says, read strictly: what is ambiguous is refused, never repaired."""

from __future__ import annotations

import re
from typing import Any, Final, TypeAlias

from msgspec import Struct

from proxy.adapters.upstream.wire import CONTROLS, TOKEN
from proxy.core.model import Headers, Reply

HEAD_LIMIT: Final = 65_536
LINE_LIMIT: Final = 16_384
FIELD_LIMIT: Final = 128

_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: ([\t -~\x80-\xff]*))?")
_PREFIX: Final = b"HTTP/1."

_PLAIN, _LENGTH, _CONNECTION, _CODING, _EVENTS, _STRIP = range(6)
_ROLES = {
    b"connection": _CONNECTION,
    b"content-length": _LENGTH,
    b"keep-alive": _STRIP,
    b"te": _STRIP,
    b"trailer": _STRIP,
    b"transfer-encoding": _CODING,
    b"upgrade": _STRIP,
}
_ROOM = 1024  # lines remembered
_LONGEST = 128  # bytes of one worth remembering

_Field: TypeAlias = tuple[int, tuple[bytes, bytes], Any]
"""Role, name and value, and what a role's value means: a length, options of the connection."""


class Malformed(Exception):
    """The upstream does not speak HTTP/1.1 as it must; the text says where."""


class Frame(Struct, gc=False):
    """How the body behind a head is delimited, and what may follow it.

    `length` is the declared one; without it and without `chunked` the body ends with the
    connection.
    """

    length: int | None
    chunked: bool
    keep: bool  # the connection may carry another exchange
    events: bool  # text/event-stream


class _Fields(dict[bytes, _Field]):
    """A header line taken apart and checked; holds those seen last, up to a bound.

    The answers of one upstream differ in few of their lines.
    """

    def __missing__(self, line: bytes) -> _Field:
        if len(line) > LINE_LIMIT:
            raise Malformed("header line too long")
        name, colon, value = line.partition(b":")
        if not colon:
            raise Malformed("header line without a colon")
        if not TOKEN.fullmatch(name):
            raise Malformed("bad header name")
        if len(value.translate(None, CONTROLS)) != len(value):
            raise Malformed("control byte or bare line end in the header block")
        field = _field(name, value.strip(b" \t"))
        if len(line) <= _LONGEST:
            if len(self) >= _ROOM:
                self.clear()
            self[line] = field
        return field


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


def _field(name: bytes, value: bytes) -> _Field:
    meaning: Any = None
    lower = name.lower()
    role = _STRIP if lower.startswith(b"proxy-") else _ROLES.get(lower, _PLAIN)
    if role == _LENGTH:
        if not value.isdigit() or len(value) > 18:
            raise Malformed("bad Content-Length")
        meaning = int(value)
    elif role == _CONNECTION:
        meaning = frozenset(option.strip(b" \t") for option in value.lower().split(b","))
    elif role == _CODING and value.lower() != b"chunked":
        raise Malformed("bad Transfer-Encoding")
    elif lower == b"content-type" and value[:17].lower() == b"text/event-stream":
        role = _EVENTS
    return role, (name, value), meaning


_FIELD_OF = _Fields()
_STATUS_OF = _Statuses()
_CLOSE, _KEEP = b"close", b"keep-alive"
_KEPT = frozenset({_KEEP})
_NONE: frozenset[bytes] = frozenset()


def read_head(data: bytes, end: int) -> tuple[Reply, Frame]:
    """Read the head in `data[:end]`, its closing CRLF CRLF left out; raises `Malformed`."""
    if end > HEAD_LIMIT:
        raise Malformed("header block too large")
    first, *lines = data[:end].split(b"\r\n")
    if len(lines) > FIELD_LIMIT:
        raise Malformed("too many header fields")
    status, phrase, modern = _STATUS_OF[first]
    headers: Headers = []
    length: int | None = None
    chunked = events = False
    options, fields = _KEPT if modern else _NONE, _FIELD_OF
    for line in lines:
        role, field, meaning = fields[line]
        if not role:  # Most are plain.
            headers.append(field)
        elif role == _LENGTH:
            if length is not None:
                raise Malformed("bad Content-Length")
            length = meaning
        elif role == _CONNECTION:
            options |= meaning
        elif role == _CODING:
            if chunked or not modern:
                raise Malformed("bad Transfer-Encoding")
            chunked = True
        elif role == _EVENTS:
            headers.append(field)
            events = True
    if chunked and length is not None:
        raise Malformed("both Content-Length and Transfer-Encoding")
    if len(options) > 1:
        headers = [field for field in headers if field[0].lower() not in options]
    keep = _KEEP in options and _CLOSE not in options
    return Reply(status, headers, b"", None, phrase), Frame(length, chunked, keep, events)


def check_start(data: bytes) -> None:
    """Refuse early what can never become a head; raises `Malformed`."""
    if len(data) > HEAD_LIMIT:
        raise Malformed("header block too large")
    if data[:7] != _PREFIX[: len(data)]:
        raise Malformed("not HTTP/1.1")
    if data.count(b"\n") != data.count(b"\r\n"):
        raise Malformed("bare line end in the header block")
