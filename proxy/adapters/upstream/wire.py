"""How a request stands on the wire, and what may never get there."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from operator import itemgetter

from proxy.core.model import Headers, Outbound
from proxy.errors import UpstreamFailed

CONTROLS = bytes((*range(9), *range(10, 32), 127))
"""Bytes that may stand in no field value, CR and LF among them (RFC 9110 5.5)."""

TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
"""A method or a field name (RFC 9110 5.6.2)."""

_OURS = frozenset(
    {
        b"connection",
        b"content-length",
        b"expect",
        b"host",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_FRAMED_WHEN_EMPTY = frozenset({"POST", "PUT", "PATCH"})
_ROOM = 1024  # names remembered
_LONGEST = 64  # bytes of a name worth remembering

_NAME = itemgetter(0)
_LINE = b": ".join
_GOING: set[bytes] = set()
"""Names seen whose fields go out; with all of a request's in it, none is looked at one by one."""


def fixed_lines(authority: str, always: Iterable[tuple[bytes, bytes]] = ()) -> tuple[bytes, ...]:
    """The lines that stand in every request to an endpoint: Host, and the fields `always`."""
    return (b"Host: " + authority.encode("ascii"), *map(_LINE, always))


def request_head(outbound: Outbound, extra: Headers, fixed: tuple[bytes, ...]) -> bytes:
    """Serialise everything before the body; `fixed` lines stand in every request.

    Framing and connection fields belong to the transport: those of the caller are left out.
    Raises `UpstreamFailed` for anything that could be read as more than one request.
    """
    fields = [*outbound.headers, *extra]
    if not _GOING.issuperset(map(_NAME, fields)):
        fields = [field for field in fields if _goes(field[0])]
    lines = [_request_line(outbound.method, outbound.target), *fixed, *map(_LINE, fields)]
    if outbound.body or outbound.method in _FRAMED_WHEN_EMPTY:
        lines.append(b"Content-Length: %d" % len(outbound.body))
    lines += (b"", b"")
    head = b"\r\n".join(lines)
    # One pass over all bytes: the only controls are the line ends put in above.
    if len(head) - len(head.translate(None, CONTROLS)) != 2 * len(lines) - 2:
        raise _refused("a control byte in the request head")
    return head


def _goes(name: bytes) -> bool:
    """Whether a field of this name goes out; learns those that do, up to a bound."""
    if not TOKEN.fullmatch(name):
        raise _refused("a header name is no token")
    if name.lower() in _OURS:
        return False
    if len(_GOING) < _ROOM and len(name) <= _LONGEST:
        _GOING.add(name)
    return True


@lru_cache(maxsize=256)
def _request_line(method: str, target: str) -> bytes:
    """The first line, of three words; its control bytes are looked for with all others."""
    try:
        line = f"{method} {target} HTTP/1.1".encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        raise _refused("the request target is no text") from None
    if line.count(b" ") != 2 or target[:1] != "/" or method == "CONNECT":
        raise _refused("the request line is not in origin form")
    if method not in _METHODS and not TOKEN.fullmatch(method.encode()):
        raise _refused("the method is no token")
    return line


def _refused(detail: str) -> UpstreamFailed:
    return UpstreamFailed("config", detail, sent=False)
