"""What callers and arms may write: hypothesis strategies, from the honest to the odd.

`good_*` is what must be served; everything else may be refused, but must do no harm.  `MARKER`
stands in many of them: nothing that is made here may ever say it again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy as Of

from proxy.core.model import Kind

Document: TypeAlias = dict[str, Any]
Fields: TypeAlias = list[bytes]

MARKER: Final = "Xq7ZmArKeR"

# -- JSON.

TEXTS: Final = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        [
            "",
            MARKER,
            "{{call_id}}",
            "null",
            "\x00",
            "\r\nX-Evil: 1",
            "\u2028",
            "../..",
            "ü",
            "😀",
            "%2e",
        ]
    ),
)
SCALARS: Final = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), TEXTS,
    st.floats(allow_nan=False, allow_infinity=False),
)  # fmt: skip
VALUES: Final[Of[Any]] = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=8,
)
ARGUMENTS: Final = st.dictionaries(TEXTS, VALUES, max_size=4)
CALL_IDS: Final = st.from_regex(r"call_0[0-9a-z]{1,24}", fullmatch=True)
TOOLS: Final = st.sampled_from(["book", "slots", "get_info", "a.b-c_d"])
MOMENTS: Final = st.integers(1_767_225_600_000, 1_800_000_000_000)


def encoded(values: Of[Any]) -> Of[bytes]:
    """The same JSON in every spelling that senders use."""
    spelling: Of[Callable[[Any], str]] = st.sampled_from(
        [
            json.dumps,
            lambda value: json.dumps(value, ensure_ascii=False),
            lambda value: json.dumps(value, separators=(",", ":")),
            lambda value: json.dumps(value, indent=1, sort_keys=True),
            lambda value: f"\r\n\t {json.dumps(value)} \n",
        ]
    )
    return st.builds(lambda value, spell: spell(value).encode(), values, spelling)


def objects(**members: Of[Any]) -> Of[Document]:
    """These members and some that nobody knows, in any order."""
    strange = st.dictionaries(st.sampled_from(["x", "agent", "extra", MARKER]), VALUES, max_size=2)
    return st.builds(
        lambda known, more, order: dict(order({**more, **known})),
        st.fixed_dictionaries(members),
        strange,
        st.sampled_from([lambda d: d.items(), lambda d: reversed(d.items())]),
    )


SUBJECTS: Final = objects(
    call_id=CALL_IDS,
    start_timestamp=MOMENTS,
    agent_id=TEXTS,
    from_number=st.just(f"+1{MARKER}"),
    metadata=ARGUMENTS,
)

# -- Bodies, one strategy for each kind.

BODIES: Final[dict[Kind, Of[Document]]] = {
    Kind.FUNCTION: objects(name=TOOLS, args=ARGUMENTS, call=SUBJECTS),
    Kind.EVENT: objects(
        event=st.sampled_from(
            ["call_started", "call_ended", "call_analyzed", "transcript_updated"]
        ),
        call=SUBJECTS,
    ),
    Kind.INBOUND: objects(
        event=st.just("call_inbound"),
        event_timestamp=MOMENTS,
        call_inbound=objects(from_number=TEXTS, to_number=TEXTS),
    ),
    Kind.ALERT: objects(event=st.just("alert_triggered"), alert=ARGUMENTS),
    Kind.TOOLS: objects(tool=TOOLS, arguments=ARGUMENTS, call_id=CALL_IDS),
    Kind.ARGS: ARGUMENTS,
    Kind.MCP: objects(
        jsonrpc=st.just("2.0"),
        id=st.integers(0, 2**53) | st.text("ab\u00fc ", max_size=9),
        method=st.just("tools/call"),
        params=objects(name=TOOLS, arguments=ARGUMENTS),
    ),
}
TARGETS: Final[dict[Kind, str]] = {
    Kind.TOOLS: "/api/mcp/retell/tools",
    Kind.ARGS: "/retell/fn/book",
    Kind.MCP: "/mcp/call_0mcp",
}
"""Where each kind is sent; all others to /retell."""


def spoiled(bodies: Of[bytes]) -> Of[bytes]:
    """Bodies with a mishap on their way: cut, doubled, no UTF-8, other types in known places."""
    mishaps: Of[Callable[[bytes], bytes]] = st.one_of(
        st.integers(0, 200).map(lambda at: lambda body: body[:at]),
        st.sampled_from(
            [
                lambda body: body,
                lambda body: body + body,
                lambda body: b"\xef\xbb\xbf" + body,
                lambda body: b"[" * 2000 + body,
                lambda body: b"[" + body + b"]",
                lambda body: body.replace(b'"', b"'"),
                lambda body: body.replace(b"call", b"chat"),
                lambda body: body.replace(b"_id", b"_id\\ud83d"),
                lambda body: body.replace(b":", b":\xff", 1),
                lambda body: body.replace(b"{", b"[", 1).replace(b"}", b"]", 1),
                lambda body: body.replace(b'"2.0"', b"2.0"),
                lambda body: body.replace(b"1", b"1e999"),
                lambda body: body.replace(b"0", b"9" * 400),
                lambda body: body.replace(b'"call_', b"null,"),
                lambda body: b"\x1f\x8b" + body,
            ]
        ),
    )
    return st.builds(lambda body, mishap: mishap(body), bodies, mishaps)


ANY_BODY: Final = st.one_of(*(encoded(each) for each in BODIES.values()))

# -- Requests.


@dataclass(frozen=True)
class Sent:
    """A good request, and what it says."""

    raw: bytes
    kind: Kind
    target: str
    body: bytes
    value: Document


@st.composite
def good_requests(draw: st.DrawFn, *kinds: Kind) -> Sent:
    """A request that must be served: a kind's body on its path, framed either way."""
    kind = draw(st.sampled_from(kinds or tuple(BODIES)))
    value = draw(BODIES[kind])
    body = draw(encoded(st.just(value)))
    query = draw(st.sampled_from(["", "?", "?x=1&y=%20%00", "?call_id=call_0query", "?a=b?c"]))
    target = TARGETS.get(kind, "/retell") + query
    fields = [b"Host: sidecar.test", *draw(st.lists(HONEST, max_size=5, unique=True))]
    cuts = draw(st.none() | st.lists(st.integers(1, 40), min_size=1, max_size=3))
    raw = b"\r\n".join([f"POST {target} HTTP/1.1".encode(), *fields, *framed(body, cuts)])
    return Sent(raw, kind, target, body, value)


HONEST: Final = st.sampled_from(
    [
        b"Content-Type: application/json; charset=utf-8",
        b"User-Agent: axios/1.2",
        b"Accept: */*",
        b"Accept-Encoding: gzip, br",
        b"X-Odd: caf\xe9 \t x",
        b"X-Empty:",
        b"x-lower:no blank",
        b"Cookie: a=1",
        b"Cookie: b=2",
        b"X-Call-ID: call_0header",
        b"Connection: X-Hop",
        b"X-Hop: 1",
        b"X-Forwarded-For: 6.6.6.6",
        b"Expect: 100-continue",
        b"TE: trailers",
        f"X-Tenant: {MARKER}".encode(),
    ]
)
"""Fields that a request may have."""


def framed(body: bytes, cuts: list[int] | None) -> list[bytes]:
    """The framing's field, the empty line and the body: by length, or in chunks of these sizes."""
    if cuts is None:
        return [b"Content-Length: %d" % len(body), b"", body]
    pieces: list[bytes] = []
    at = 0
    while at < len(body):
        size = cuts[len(pieces) % len(cuts)]
        pieces.append(body[at : at + size])
        at += size
    coded = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return [b"Transfer-Encoding: chunked", b"", coded + b"0\r\n\r\n"]


_METHODS: Final = "POST GET HEAD PUT DELETE OPTIONS PATCH TRACE CONNECT post X M@"
METHODS: Final = st.sampled_from(_METHODS.split())
_KNOWN: Final = """
/retell /mcp /mcp/call_0a /retell/fn/book /api/mcp/retell/tools /llm/x /api/mcp/retell/health /app /
* //x /retell/ /RETELL /%72etell /x/../mcp http://sidecar.test/retell http://evil.test/retell /a#b
/a\\b /status /metrics%00 /retell?call_id=%zz
"""
PATHS: Final = st.one_of(
    st.sampled_from([*_KNOWN.split(), f"/{MARKER}", "/" + "a" * 9000]),
    st.text(st.characters(codec="latin-1"), min_size=1, max_size=12).map(lambda text: f"/{text}"),
)
ODD: Final = st.one_of(
    HONEST,
    st.sampled_from(
        [
            b"Content-Length: 5", b"Content-Length: 0", b"Content-Length: +5", b"Content-Length:",
            b"Content-Length: 5, 5", b"Content-Length: 99999999999999999999",
            b"Transfer-Encoding: chunked", b"Transfer-Encoding: gzip, chunked",
            b"Transfer-Encoding: , chunked", b"Transfer-Encoding:", b"Transfer-Encoding: identity",
            b"Transfer-Encoding : chunked", b"Transfer-Encoding: chunked\x0b", b"Host: evil.test",
            b"Host: a, b", b" folded: x", b"no colon", b": no name", b"X-\x01: 1", b"X: a\x00b",
            b"X: a\rb", b"X: a\nb", b"Connection: close", b"Connection: Host, Content-Length",
            b"Upgrade: websocket", b"Upgrade: h2c", b"HTTP2-Settings: AAMA", b"Expect: 200-ok",
            b"X-Callsplit-Arm: mcp", b"X-Callsplit-Hops: 9", b"X-Original-URL: /status",
            b"Mcp-Session-Id: " + MARKER.encode(), b"Authorization: Bearer " + MARKER.encode(),
            b"X-Retell-Signature: v=1,d=" + MARKER.encode(), b"X-Big: " + b"a" * 9000,
            b"MCP-Protocol-Version: 2026-07-28", b"MCP-Protocol-Version: " + MARKER[:8].encode(),
            b"Content-Encoding: gzip", b"Forwarded: for=1.2.3.4", b"X_Call_ID: call_0x",
        ]
    ),
)  # fmt: skip
ENDS: Final = st.sampled_from([b"\r\n"] * 8 + [b"\n", b"\r", b"\r\r\n", b" \r\n", b""])
VERSIONS: Final = st.sampled_from(
    ["HTTP/1.1"] * 6 + ["HTTP/1.0", "HTTP/2.0", "HTTP/0.9", "http/1.1", "X"]
)


@st.composite
def odd_requests(draw: st.DrawFn) -> bytes:
    """A request of any parts, each of which may be wrong; its body may fit its framing."""
    blank = draw(st.sampled_from([" "] * 9 + ["  ", "\t"]))
    words = [draw(METHODS), draw(PATHS), draw(VERSIONS)]
    line = blank.join(words).encode("latin-1")
    fields = draw(st.lists(ODD, max_size=4))
    if draw(st.integers(0, 9)):
        fields.append(b"Host: sidecar.test")
    body = draw(st.just(b"") | ANY_BODY | spoiled(ANY_BODY) | st.binary(max_size=30))
    cuts = draw(st.none() | st.lists(st.integers(1, 9), min_size=1, max_size=2))
    *framing, empty, content = framed(body, cuts)
    if draw(st.integers(0, 3)):
        fields += framing
    ends = [draw(ENDS) for _ in range(len(fields) + 2)]
    lines = [line, *fields, empty]
    return b"".join(a + b for a, b in zip(lines, ends, strict=True)) + content


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """What one connection may carry: good requests and odd ones, and a slip of the hand."""
    good = good_requests().map(lambda sent: sent.raw)
    whole = b"".join(draw(st.lists(good | odd_requests(), min_size=1, max_size=3)))
    if draw(st.booleans()):
        return whole
    at = draw(st.integers(0, len(whole)))
    slip = draw(st.sampled_from([b"", b"\0", b"\r", b"\n", b" ", b":", b"\xff", b"0", b"\r\n"]))
    return whole[:at] + slip + whole[at + draw(st.integers(0, 2)) :]


# -- Answers of an arm.

_STATUS: Final = st.sampled_from(
    [b"HTTP/1.1 200 OK"] * 6
    + [b"HTTP/1.1 204 No Content", b"HTTP/1.1 304 Not Modified", b"HTTP/1.1 500 Oops",
       b"HTTP/1.1 503 X", b"HTTP/1.1 302 Found", b"HTTP/1.0 200 OK", b"HTTP/1.1 200",
       b"HTTP/1.1 101 Switching Protocols", b"HTTP/2.0 200 OK", b"HTTP/1.1 099 X",
       b"HTTP/1.1 999 X", b"HTTP/1.1  200 OK", b"ICY 200 OK", b""]
)  # fmt: skip
_SAID: Final = st.sampled_from(
    [
        b"Content-Type: application/json", b"Content-Type: text/event-stream", b"X-A: b",
        b"Set-Cookie: a=1", b"Set-Cookie: b=2", b"X-Odd: caf\xe9", b"Connection: close",
        b"Connection: X-A", b"Content-Encoding: gzip", b"Location: http://evil.test/", b"X: a\x01b",
        b"X : b", b" folded", b"Retry-After: 5", b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: identity", b"Content-Length: 5", b"Content-Length: -1",
        b"Trailer: X-T", b"Keep-Alive: timeout=5", b"Upgrade: x", b"Server: " + MARKER.encode(),
    ]
)  # fmt: skip


@st.composite
def arm_answers(draw: st.DrawFn) -> bytes:
    """What an arm may send before it hangs up; mostly an answer."""
    body = draw(st.sampled_from([b"", b'{"ok":true}', b"x" * 300_000]) | st.binary(max_size=40))
    cuts = draw(st.none() | st.lists(st.integers(1, 100_000), min_size=1, max_size=3))
    *framing, empty, content = framed(body, cuts)
    fields = draw(st.lists(_SAID, max_size=4)) + (framing if draw(st.integers(0, 4)) else [])
    interim = draw(
        st.sampled_from([b""] * 6 + [b"HTTP/1.1 103 Early\r\n\r\n", b"HTTP/1.1 100 C\r\n\r\n"])
    )
    head = b"\r\n".join([draw(_STATUS), *fields, empty, b""])
    surplus = draw(st.sampled_from([b""] * 5 + [b"surplus", b"HTTP/1.1 200 OK\r\n\r\nstolen"]))
    whole = interim + head + content + surplus
    return whole[: draw(st.integers(0, len(whole)))] if not draw(st.integers(0, 4)) else whole
