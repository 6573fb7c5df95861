"""What do the two sides of an exchange hear of it, beside what they said themselves?"""

from __future__ import annotations

from functools import lru_cache

from proxy.core.exchange import Exchange
from proxy.core.head import forwarded_headers
from proxy.core.hops import hop
from proxy.core.model import Call, Headers, Reason

OWN = frozenset({b"x-callsplit-arm", b"x-callsplit-reason", b"x-request-id"})
"""Names in which only callsplit speaks to a caller."""

OF_KEPT = frozenset({b"x-callsplit-replayed", b"x-callsplit-age", b"x-callsplit-stale"})
"""Likewise, of answers that are given again."""

_ALL = OWN | OF_KEPT
_REPLAYED = (b"x-callsplit-replayed", b"true")
_FROM_MEMORY = frozenset({Reason.REPLAYED, Reason.CACHED})


def headers_for_arms(call: Call, x: Exchange) -> Headers:
    """What every arm hears of an exchange beside the caller's own headers."""
    request_id = x.request_id.encode()
    headers = [(b"x-request-id", request_id), *forwarded_headers(call.head), hop(call.head)]
    if call.id is not None:
        headers.append((b"x-callsplit-call-id", call.id.encode("utf-8", "surrogateescape")))
    if b"traceparent" not in call.head.named:  # W3C Trace Context, 3.2; not sampled
        headers.append((b"traceparent", b"00-%b-%b-00" % (request_id, request_id[:16])))
    return headers


def headers_for_caller(headers: Headers, x: Exchange) -> Headers:
    """An answer's headers, and what they tell of us; an arm cannot speak in our name."""
    own = OWN if x.reason in _FROM_MEMORY else _ALL
    kept = [field for field in headers if field[0].lower() not in own]
    if x.reason is not None:
        kept += _answered(x.arm, x.reason)
    kept.append((b"x-request-id", x.request_id.encode()))
    return kept


@lru_cache(maxsize=256)  # of closed sets
def _answered(arm: str, reason: Reason) -> tuple[tuple[bytes, bytes], ...]:
    told = ((b"x-callsplit-arm", arm.encode()), (b"x-callsplit-reason", reason.encode()))
    return (*told, _REPLAYED) if reason is Reason.REPLAYED else told
