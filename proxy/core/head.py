"""What of a request's header fields do we read, and what of them goes upstream?

One pass over the raw fields.  Names and values that go on keep their bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

from proxy.core.addresses import Networks, client, locate
from proxy.core.guard import MAX_FIELDS, check_name, check_values, good_host
from proxy.core.model import Head, Headers
from proxy.errors import Refused

_HOP_BY_HOP = (  # RFC 9110, 7.6.1, and what older software thinks belongs there
    b"connection",
    b"http2-settings",
    b"keep-alive",
    b"proxy-authenticate",
    b"proxy-authorization",
    b"proxy-connection",
    b"te",
    b"trailer",
    b"transfer-encoding",
    b"upgrade",
)
_REWRITTEN = (  # framing, and what we say ourselves or nobody may say to an arm
    b"content-length",
    b"expect",
    b"forwarded",
    b"host",
    b"idempotency-key",
    b"x-original-url",
    b"x-real-ip",
    b"x-request-id",
    b"x-rewrite-url",
)
_PREFIXES = (b"x-forwarded-", b"x-callsplit-")
_UNTWINNED = (
    b"mcp-method",
    b"mcp-name",
    b"mcp-protocol-version",
    b"x-call-id",
    b"x-retell-call-id",
    b"x-retell-signature",
)
_STAYS = frozenset(_HOP_BY_HOP + _REWRITTEN)
_NO_NAMES: frozenset[bytes] = frozenset()
_NOMINATES_NONE = frozenset({b"keep-alive", b"close", b"Keep-Alive", b"Close"})


def _fate(name: bytes) -> tuple[bytes, bool]:
    """A name in lower case, and whether its field goes on."""
    check_name(name)
    lower = name.lower()
    twin = lower.replace(b"_", b"-")  # To CGI, PHP and WSGI both are one name.
    if twin != lower and twin in _UNTWINNED:
        return lower, False
    return lower, twin not in _STAYS and not twin.startswith(_PREFIXES)


_COMMON = """
accept accept-encoding accept-language authorization cache-control connection content-encoding
content-length content-type cookie date expect forwarded host idempotency-key keep-alive
mcp-method mcp-name mcp-protocol-version mcp-session-id origin pragma referer te
transfer-encoding traceparent tracestate upgrade user-agent via x-agent-id x-call-id
x-correlation-id x-forwarded-for x-forwarded-host x-forwarded-port x-forwarded-proto x-real-ip
x-request-id x-retell-call-id x-retell-signature
"""
_FATES = {  # Known spellings; a name not in it costs a little more, and is not remembered.
    spelling: _fate(spelling)
    for name in _COMMON.split()
    for spelling in (
        name.encode(),
        name.title().encode(),
        name.title().replace("Id", "ID").encode(),
    )
}


def read_head(
    method: str,
    target: str,
    raw_headers: Sequence[tuple[bytes, bytes]],
    *,
    peer: str,
    secure: bool,
    trusted: Networks,
) -> Head:
    """Sort the fields of a request; raises `Refused` where a byte in one is unfit.

    Fields nominated by Connection are not forwarded, but stay in `named`: whoever asks
    must not switch off his own authentication, nor our reading of it.
    """
    named: dict[bytes, bytes] = {}
    end_to_end: Headers = []
    known = _FATES.get
    for field in raw_headers:
        name, value = field
        fate = known(name) or _fate(name)
        named[fate[0]] = value
        if fate[1]:
            end_to_end.append(field)
    repeated = _NO_NAMES
    if len(named) == len(raw_headers):
        check_values(b"".join(named.values()))
    else:
        check_values(b"".join([value for _, value in raw_headers]))
        repeated = _repeated(raw_headers)
    if len(raw_headers) > MAX_FIELDS:
        raise Refused(431, "headers_too_large", "The header has too many fields.", close=True)
    connection = named.get(b"connection")
    if connection is not None and (connection not in _NOMINATES_NONE or repeated):
        end_to_end = _without(end_to_end, _nominated(_values(raw_headers, b"connection")))
    path, _, query = target.partition("?")
    host = named.get(b"host", b"")
    peer, is_trusted = locate(peer, trusted)
    head = Head(method, path, query, named, end_to_end, host, peer, secure, target, repeated)
    if is_trusted:
        _believe(head, raw_headers, trusted)
    return head


def forwarded_headers(head: Head) -> tuple[tuple[bytes, bytes], ...]:
    """What an upstream hears of the client instead of what the client said of itself."""
    return _forwarded(head.peer, head.secure, head.host)


@lru_cache(maxsize=1024)
def _forwarded(peer: str, secure: bool, host: bytes) -> tuple[tuple[bytes, bytes], ...]:
    proto = (b"x-forwarded-proto", b"https" if secure else b"http")
    asked = (b"x-forwarded-host", host)
    if not peer:  # A unix socket has no address.
        return proto, asked
    return (b"x-forwarded-for", peer.encode("ascii", "replace")), proto, asked


def drop(head: Head, name: bytes) -> None:
    """Forward no field of this name (in lower case), nor of its underscore twins."""
    if name in head.named or any(b"_" in lower for lower in head.named):
        head.end_to_end = [
            field
            for field in head.end_to_end
            if (lower := field[0].lower()) != name and lower.replace(b"_", b"-") != name
        ]


def _believe(head: Head, raw_headers: Sequence[tuple[bytes, bytes]], trusted: Networks) -> None:
    """A trusted proxy tells who its client was, what it asked for and how."""
    named = head.named
    if b"x-forwarded-for" in named:
        hops = named[b"x-forwarded-for"]
        if b"x-forwarded-for" in head.repeated:
            hops = b",".join(_values(raw_headers, b"x-forwarded-for"))
        head.peer = client(head.peer, hops, trusted)
    if b"x-forwarded-proto" in named:
        head.secure = named[b"x-forwarded-proto"].lower() == b"https"
    if good_host(host := named.get(b"x-forwarded-host", b"")):
        head.host = host


def _repeated(raw_headers: Iterable[tuple[bytes, bytes]]) -> frozenset[bytes]:
    seen: set[bytes] = set()
    twice: set[bytes] = set()
    for name, _ in raw_headers:
        lower = name.lower()
        (twice if lower in seen else seen).add(lower)
    return frozenset(twice)


def _values(raw_headers: Iterable[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    return [value for each, value in raw_headers if each.lower() == name]


def _nominated(values: list[bytes]) -> frozenset[bytes]:
    return frozenset(option.strip(b" \t").lower() for option in b",".join(values).split(b","))


def _without(headers: Headers, names: frozenset[bytes]) -> Headers:
    return [field for field in headers if names.isdisjoint(_spellings(field[0].lower()))]


def _spellings(name: bytes) -> tuple[bytes, bytes]:
    return name, name.replace(b"_", b"-")
