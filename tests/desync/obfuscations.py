"""Our own vectors, systematic: every byte there is, in every place where one can hide a framing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tests.desync.vectors import Vector

EVERY = range(256)
TELLING = (
    *(0x00, 0x09, 0x0A, 0x0B, 0x0C, 0x0D, 0x20, 0x22, 0x2B, 0x2C),
    *(0x2D, 0x30, 0x3A, 0x3B, 0x5F, 0x7F, 0x80, 0x85, 0xA0, 0xFF),
)
"""Bytes that have meant something to somebody's parser."""

_CODINGS = {
    "before the name": b"%bTransfer-Encoding: chunked",
    "behind the name": b"Transfer-Encoding%b: chunked",
    "in the name": b"Transfer%bEncoding: chunked",
    "before the value": b"Transfer-Encoding:%bchunked",
    "behind the value": b"Transfer-Encoding: chunked%b",
    "in the value": b"Transfer-Encoding: chunk%bed",
    "between two values": b"Transfer-Encoding: chunked%bidentity",
    "in a value before": b"X: x%bTransfer-Encoding: chunked",
    "behind a CR": b"X: x\r%bTransfer-Encoding: chunked",
    "behind a CRLF": b"X: x\r\n%bTransfer-Encoding: chunked",
}
_LENGTHS = {
    "before a length": b"Content-Length:%b6",
    "behind a length": b"Content-Length: 6%b",
    "in a length": b"Content-Length: 0%b6",
    "behind its name": b"Content-Length%b: 6",
}
_LINES = {
    "behind the method": b"POST%b/ HTTP/1.1",
    "behind the target": b"POST /%bHTTP/1.1",
    "in the target": b"POST /%b HTTP/1.1",
    "in the version": b"POST / HTTP/1%b1",
    "behind the version": b"POST / HTTP/1.1%b",
    "before the method": b"%bPOST / HTTP/1.1",
}
_CHUNKS = {
    "before a size": b"%b1\r\nx\r\n0\r\n\r\n",
    "behind a size": b"1%b\r\nx\r\n0\r\n\r\n",
    "in a size": b"0%b1\r\nx\r\n0\r\n\r\n",
    "in an extension": b"1;a%bb\r\nx\r\n0\r\n\r\n",
    "for a line end": b"1%bx\r\n0\r\n\r\n",
    "behind data": b"1\r\nx%b\r\n0\r\n\r\n",
    "behind the last chunk": b"1\r\nx\r\n0%b\r\n\r\n",
    "in a trailer's name": b"1\r\nx\r\n0\r\nA%b: 1\r\n\r\n",
    "in a trailer": b"1\r\nx\r\n0\r\nA: 1%b\r\n\r\n",
    "for the end": b"1\r\nx\r\n0\r\n%b\r\n",
}
_SMUGGLED = b"0\r\n\r\nG"
"""Nothing in chunks and a byte of something else; six bytes by its length."""


def obfuscations(bytes_: Iterable[int] = EVERY) -> list[Vector]:
    """With each of these bytes in each place."""
    return [
        Vector("own obfuscations", f"{byte:02x} {place}", (raw,))
        for byte in bytes_
        for place, raw in _with(bytes([byte]))
    ]


def _with(byte: bytes) -> Iterator[tuple[str, bytes]]:
    coding, length = b"Transfer-Encoding: chunked", b"Content-Length: 6"
    for place, field in _CODINGS.items():
        hidden = field.replace(b"%b", byte)
        yield f"{place}, length", _post(hidden, length, body=_SMUGGLED)
        yield f"{place}, length first", _post(length, hidden, body=_SMUGGLED)
    for place, field in _LENGTHS.items():
        hidden = field.replace(b"%b", byte)
        yield place, _post(hidden, body=_SMUGGLED)
        yield f"{place}, coding", _post(hidden, coding, body=_SMUGGLED)
    for place, line in _LINES.items():
        yield place, _post(b"Content-Length: 0", line=line.replace(b"%b", byte))
    for place, chunks in _CHUNKS.items():
        yield place, _post(coding, body=chunks.replace(b"%b", byte))
    yield "in a Host", _post(b"Content-Length: 0", host=b"Host: a" + byte + b"b")


def _post(
    *fields: bytes,
    line: bytes = b"POST / HTTP/1.1",
    host: bytes = b"Host: a.test",
    body: bytes = b"",
) -> bytes:
    return b"\r\n".join([line, host, *fields]) + b"\r\n\r\n" + body
