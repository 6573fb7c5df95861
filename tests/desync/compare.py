"""Is what arrived at the origin what was sent, and if it did not arrive: which row says so?"""

from __future__ import annotations

from collections.abc import Callable

from tests.desync.strict import Field, Message

HOP_BY_HOP = {
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
}
REWRITTEN = {
    b"content-length",
    b"expect",
    b"forwarded",
    b"host",
    b"idempotency-key",
    b"x-original-url",
    b"x-real-ip",
    b"x-request-id",
    b"x-rewrite-url",
}
OWN = {b"host", b"content-length", b"x-request-id", b"traceparent", b"tracestate"}
OWN_PREFIXES = (b"x-forwarded-", b"x-callsplit-")
METHODS = {b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"}


def difference(sent: Message, came: Message) -> str:
    """How a request changed on its way; "" if it means the same."""
    if came.method != sent.method:
        return f"method {came.method!r} for {sent.method!r}"
    if came.target != _origin_form(sent.target):
        return f"target {came.target[:80]!r} for {sent.target[:80]!r}"
    if came.body != sent.body:
        return f"a body of {len(came.body)} bytes for one of {len(sent.body)}"
    if came.trailers or came.framing == "chunked":
        return "it was sent on in chunks"
    wanted, got = _going(sent), _theirs(came)
    if wanted != got:
        surplus, lost = [f for f in got if f not in wanted], [f for f in wanted if f not in got]
        return f"fields {surplus} for {lost}" if surplus or lost else "fields in another order"
    return ""


def _going(sent: Message) -> list[Field]:
    """The fields that go on."""
    stays = HOP_BY_HOP | REWRITTEN | sent.options
    return [
        (name, value)
        for name, value in sent.fields
        if (twin := name.lower().replace(b"_", b"-")) not in stays
        and name.lower() not in stays
        and not twin.startswith(OWN_PREFIXES)
        and twin not in OWN
    ]


def _theirs(came: Message) -> list[Field]:
    """The fields that are not the sidecar's own."""
    return [
        (name, value)
        for name, value in came.fields
        if name.lower() not in OWN and not name.lower().startswith(OWN_PREFIXES)
    ]


def _origin_form(target: bytes) -> bytes:
    scheme, mark, rest = target.partition(b"://")
    if not mark or target.startswith(b"/") or not scheme.isalpha():
        return target
    cut = min((at for at in (rest.find(b"/"), rest.find(b"?")) if at >= 0), default=len(rest))
    path = rest[cut:]
    return path if path.startswith(b"/") else b"/" + path


# -- Refusals of what is valid.


def _head_size(sent: Message) -> tuple[int, int, int]:
    longest = max((len(name) + len(value) for name, value in sent.fields), default=0)
    return len(sent.fields), longest, sum(len(value) for _, value in sent.fields)


def _foreign(sent: Message) -> bool:
    return not sent.target.startswith((b"/", b"*"))


def _large_head(sent: Message) -> bool:
    count, longest, size = _head_size(sent)
    return count > 128 or longest > 8100 or size > 61_440


def _coded(sent: Message) -> bool:
    return any(value.lower() != b"chunked" for value in sent.values(b"transfer-encoding"))


def _dns_name(host: bytes) -> bool:
    """A name as it stands in the DNS; URIs may hold more, but no host is called so."""
    return not set(host) & set(b"!$&'()*+,;=%") and host != b""


def _hixie(sent: Message) -> bool:
    """The WebSocket handshake of 2010, whose last eight bytes stand outside any framing."""
    return bool(sent.values(b"sec-websocket-key1"))


REFUSALS: dict[str, tuple[str, Callable[[Message], bool]]] = {
    "method_not_allowed": ("F15", lambda sent: sent.method in (b"CONNECT", b"TRACE")),
    "unknown_method": ("F15", lambda sent: sent.method not in METHODS),
    "bad_method": ("F15", lambda sent: sent.method != sent.method.upper()),
    "options": ("F15", lambda sent: sent.target == b"*"),
    "bad_request": ("F15", lambda sent: sent.method not in METHODS or _hixie(sent)),
    "misdirected": ("F14", _foreign),
    "bad_target": ("F17", lambda sent: b"\\" in sent.target),
    "not_found": ("F18", lambda sent: b"%" in sent.target or b"//" in sent.target),
    "bad_host": ("F16", lambda sent: not _dns_name(b"".join(sent.values(b"host")))),
    "unknown_coding": ("F4", _coded),
    "bad_framing": ("F11", lambda sent: sent.extended),
    "unauthorised": ("A1", lambda sent: len(sent.values(b"authorization")) > 1),
    "expectation_failed": ("E2", lambda sent: bool(sent.values(b"expect"))),
    "headers_too_large": ("L5", _large_head),
    "target_too_long": ("L5", lambda sent: len(sent.target) > 8180),
}
"""Codes of refusals: the row that asks for each, and whether a request is of that kind."""


def row_for(sent: Message, code: str) -> str:
    """The row by which a valid request was turned away; "" if there is none."""
    row, fits = REFUSALS.get(code, ("", None))
    return row if fits is not None and fits(sent) else ""
