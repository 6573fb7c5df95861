"""What a stream of bytes says if HTTP/1.1 is read by the letter, and where it stops being HTTP.

Nothing is repaired and nothing guessed: whatever two servers could read differently is a fault.
Sources: RFC 9110, RFC 9112; the sections stand beside the rules.  Shares no code with the sidecar.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import TypeAlias

Field: TypeAlias = tuple[bytes, bytes]

END = b"\r\n\r\n"
LARGE = 1 << 40
"""A length that no test ever sends."""

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_REQUEST_LINE = re.compile(rb"(%b) ([\x21-\x7e]+) HTTP/([0-9])\.([0-9])" % _TOKEN).fullmatch
_STATUS_LINE = re.compile(
    rb"HTTP/([0-9])\.([0-9]) ([0-9]{3})(?: ([\t \x21-\x7e\x80-\xff]*))?"
).fullmatch
_VALUE = rb"(?:[\x21-\x7e\x80-\xff](?:[\t \x21-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?"
_FIELD_LINE = re.compile(rb"(%b):[ \t]*(%b)[ \t]*" % (_TOKEN, _VALUE)).fullmatch
_QUOTED = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*"'
_CHUNK_LINE = re.compile(
    rb"([0-9A-Fa-f]{1,16})((?:[ \t]*;[ \t]*%b(?:[ \t]*=[ \t]*(?:%b|%b))?)*)"
    % (_TOKEN, _TOKEN, _QUOTED)
).fullmatch
_HOST = re.compile(rb"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+;=%-]+)(?::([0-9]{0,5}))?").fullmatch
_ABSOLUTE = re.compile(rb"https?://[^/?#@]+(?:[/?][^#]*)?", re.I).fullmatch


class Broken(Exception):
    """The bytes are not HTTP by the letter; the text names the rule."""


class Unfinished(Exception):
    """More bytes have to come before there is anything to judge."""


@dataclass(frozen=True)
class Message:
    """A request or a response, whole."""

    first: tuple[bytes, ...]  # the words of its first line
    version: tuple[int, int]
    fields: tuple[Field, ...]
    body: bytes
    framing: str  # "none", "length", "chunked", "connection"
    end: int  # where the next message begins
    trailers: tuple[Field, ...] = ()
    extended: bool = False  # a chunk had an extension

    def values(self, name: bytes) -> list[bytes]:
        return [value for each, value in self.fields if each.lower() == name]

    @property
    def options(self) -> set[bytes]:
        """What Connection nominates."""
        named = b",".join(self.values(b"connection")).split(b",")
        return {one.strip(b" \t").lower() for one in named}

    @property
    def keeps(self) -> bool:
        """Whether its connection carries another message (RFC 9112, 9.3)."""
        if b"close" in self.options:
            return False
        return self.version >= (1, 1) or b"keep-alive" in self.options

    @property
    def method(self) -> bytes:
        return self.first[0]

    @property
    def target(self) -> bytes:
        return self.first[1]

    @property
    def status(self) -> int:
        return int(self.first[0])


@dataclass(frozen=True)
class Reading:
    """The messages that stand in a stream, and how it goes on behind them.

    `rest`: `nothing`, `unfinished`, `broken` (then `fault` says why), or `closed`: the last message
    ends its connection, and what follows means nothing.
    """

    messages: tuple[Message, ...]
    rest: str
    fault: str = ""

    @property
    def valid(self) -> bool:
        return self.rest != "broken"


def requests(data: bytes, *, host_needed: bool = True) -> Reading:
    """Read requests until there are no more."""
    found: list[Message] = []
    at = 0
    while at < len(data):
        try:
            message = _request(data, at, host_needed=host_needed)
        except Broken as broken:
            return Reading(tuple(found), "broken", str(broken))
        except Unfinished:
            return Reading(tuple(found), "unfinished")
        found.append(message)
        at = message.end
        if not message.keeps:
            return Reading(tuple(found), "closed")
    return Reading(tuple(found), "nothing")


def responses(data: bytes, methods: list[bytes], *, ended: bool) -> Reading:
    """Read the answers to requests with these methods; `ended` says that the stream has ended."""
    found: list[Message] = []
    at = 0
    for method in methods:
        if found and at == len(data):
            break
        while True:
            try:
                message = _response(data, at, method, ended=ended)
            except Broken as broken:
                return Reading(tuple(found), "broken", str(broken))
            except Unfinished:
                return Reading(tuple(found), "unfinished")
            at = message.end
            if message.status >= 200:
                break
        found.append(message)
        if not message.keeps or message.framing == "connection":
            break
    if at < len(data):
        return Reading(tuple(found), "broken", "surplus bytes")
    return Reading(tuple(found), "nothing")


# -- The head.


def _head(data: bytes, at: int) -> tuple[list[bytes], int]:
    """The lines of a head and where its body begins."""
    end = data.find(END, at)
    block = data[at:] if end < 0 else data[at:end]
    # A line ends with CRLF and nothing else does; a CR may still wait for its LF.
    whole = block[:-1] if end < 0 and block.endswith(b"\r") else block
    if whole.count(b"\n") != whole.count(b"\r\n") or whole.count(b"\r") != whole.count(b"\r\n"):
        raise Broken("bare CR or LF (RFC 9112, 2.2)")
    lines = block.split(b"\r\n")
    if end < 0:
        for line in lines[1:-1]:
            _field(line)
        raise _Head(lines)
    return lines, end + len(END)


class _Head(Unfinished):
    """A head that is not whole yet; its first line may be."""

    def __init__(self, lines: list[bytes]) -> None:
        super().__init__()
        self.lines = lines


def _field(line: bytes) -> Field:
    if line[:1] in b" \t":
        raise Broken("folded line or space before a name (RFC 9112, 5.2)")
    match = _FIELD_LINE(line)
    if match is None:
        raise Broken("malformed header field (RFC 9112, 5.1; RFC 9110, 5.5)")
    return match[1], match[2]


def _one(fields: tuple[Field, ...], name: bytes) -> bytes | None:
    values = [value for each, value in fields if each.lower() == name]
    if len(values) > 1:
        raise Broken(f"{name.decode()} stands twice")
    return values[0] if values else None


def _request(data: bytes, at: int, *, host_needed: bool) -> Message:
    if data[at : at + 1] in (b"\r", b"\n"):
        raise Broken("empty line before a request (RFC 9112, 2.2)")
    try:
        lines, body_at = _head(data, at)
    except _Head as head:
        if len(head.lines) > 1:
            _request_line(head.lines[0])
        raise
    method, target, version = _request_line(lines[0])
    fields = tuple(_field(line) for line in lines[1:])
    for name in _SINGLE:
        _one(fields, name)
    host = _one(fields, b"host")
    if host is None:
        if host_needed and version >= (1, 1):
            raise Broken("no Host (RFC 9112, 3.2)")
    elif not _good_host(host):
        raise Broken("malformed Host (RFC 9110, 7.2)")
    coding = _one(fields, b"transfer-encoding")
    length = _length(fields)
    if coding is not None and (length is not None or version == (1, 0)):
        raise Broken("framing in doubt (RFC 9112, 6.1)")
    if coding is not None:
        _check_coding(coding)
        body, end, trailers, extended = _chunks(data, body_at)
        return Message((method, target), version, fields, body, "chunked", end, trailers, extended)
    size = length or 0
    if len(data) < body_at + size:
        raise Unfinished
    framing = "none" if length is None else "length"
    end = body_at + size
    return Message((method, target), version, fields, data[body_at:end], framing, end)


_SINGLE = (
    b"content-location",
    b"content-range",
    b"content-type",
    b"etag",
    b"max-forwards",
    b"server",
    b"user-agent",
)  # Fields that are no list (RFC 9110, 5.3).


_FRAMING = (b"content-length", b"transfer-encoding")


def _request_line(line: bytes) -> tuple[bytes, bytes, tuple[int, int]]:
    match = _REQUEST_LINE(line)
    if match is None:
        raise Broken("malformed request line (RFC 9112, 3)")
    method, target = match[1], match[2]
    version = int(match[3]), int(match[4])
    if version not in ((1, 0), (1, 1)):
        raise Broken("another version of HTTP")
    if b"#" in target:
        raise Broken("a fragment in the target (RFC 9112, 3.2)")
    if method == b"CONNECT":
        good = re.fullmatch(rb"[^/?@]+:[0-9]+", target) is not None
    else:
        good = target[:1] == b"/" or (target == b"*" and method == b"OPTIONS")
        good = good or _ABSOLUTE(target) is not None
    if not good:
        raise Broken("a target of no form (RFC 9112, 3.2)")
    return method, target, version


def _good_host(host: bytes) -> bool:
    match = _HOST(host)
    if match is None or int(match[2] or 0) > 65535:
        return False
    if host[:1] != b"[":
        return True
    try:
        ipaddress.IPv6Address(match[1][1:-1].decode())
    except ValueError:
        return False
    return True


def _length(fields: tuple[Field, ...]) -> int | None:
    value = _one(fields, b"content-length")
    if value is None:
        return None
    if not re.fullmatch(rb"[0-9]+", value) or int(value) >= LARGE:
        raise Broken("Content-Length is no length (RFC 9110, 8.6)")
    return int(value)


def _check_coding(value: bytes) -> None:
    codings = [one.strip(b" \t").lower() for one in value.split(b",")]
    if not all(re.fullmatch(_TOKEN, one) for one in codings):
        raise Broken("malformed Transfer-Encoding (RFC 9112, 6.1)")
    if codings.count(b"chunked") != 1 or codings[-1] != b"chunked":
        raise Broken("chunked must be the last coding, once (RFC 9112, 6.1)")


# -- The body.


def _line(data: bytes, at: int) -> tuple[bytes, int]:
    end = data.find(b"\r\n", at)
    line = data[at:] if end < 0 else data[at:end]
    bare = line[:-1] if end < 0 and line.endswith(b"\r") else line
    if b"\n" in bare or b"\r" in bare:
        raise Broken("bare CR or LF in chunked framing (RFC 9112, 7.1)")
    if end < 0:
        raise Unfinished
    return line, end + 2


def _chunks(data: bytes, at: int) -> tuple[bytes, int, tuple[Field, ...], bool]:
    parts: list[bytes] = []
    extended = False
    while True:
        line, at = _line(data, at)
        match = _CHUNK_LINE(line)
        if match is None:
            raise Broken("malformed chunk size or extension (RFC 9112, 7.1)")
        extended = extended or bool(match[2])
        size = int(match[1], 16)
        if size == 0:
            break
        if len(data) < at + size + 2:
            if data[at + size : at + size + 2] not in (b"", b"\r"):
                raise Broken("a chunk without its end (RFC 9112, 7.1)")
            raise Unfinished
        if data[at + size : at + size + 2] != b"\r\n":
            raise Broken("a chunk without its end (RFC 9112, 7.1)")
        parts.append(data[at : at + size])
        at += size + 2
    trailers: list[Field] = []
    while True:
        line, at = _line(data, at)
        if not line:
            return b"".join(parts), at, tuple(trailers), extended
        trailers.append(_field(line))


# -- Responses.


def _response(data: bytes, at: int, method: bytes, *, ended: bool) -> Message:
    lines, body_at = _head(data, at)
    match = _STATUS_LINE(lines[0])
    if match is None:
        raise Broken("malformed status line (RFC 9112, 4)")
    version, status = (int(match[1]), int(match[2])), int(match[3])
    if version not in ((1, 0), (1, 1)):
        raise Broken("another version of HTTP")
    if not 100 <= status <= 599 or status == 101:
        raise Broken("no status that was asked for (RFC 9110, 15)")
    fields = tuple(_field(line) for line in lines[1:])
    first = match[3], match[4] or b""
    coding, length = _one(fields, b"transfer-encoding"), _length(fields)
    if coding is not None and (length is not None or version == (1, 0)):
        raise Broken("framing in doubt (RFC 9112, 6.1)")
    if coding is not None and (status < 200 or status == 204):
        raise Broken("a coding where there is no body (RFC 9112, 6.1)")
    if method == b"HEAD" or status < 200 or status in (204, 304):
        return Message(first, version, fields, b"", "none", body_at)
    if coding is not None:
        if coding.lower() != b"chunked":
            raise Broken("a coding that we did not ask for (RFC 9112, 7)")
        body, end, trailers, extended = _chunks(data, body_at)
        if any(name.lower() in _FRAMING for name, _ in trailers):
            raise Broken("framing among trailers (RFC 9110, 6.5.1)")
        return Message(first, version, fields, body, "chunked", end, trailers, extended)
    if length is None:
        if not ended:
            raise Unfinished
        return Message(first, version, fields, data[body_at:], "connection", len(data))
    if len(data) < body_at + length:
        raise Unfinished
    end = body_at + length
    return Message(first, version, fields, data[body_at:end], "length", end)
