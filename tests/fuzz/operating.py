"""What operators may write, and whoever reaches their listener: hypothesis strategies."""

from __future__ import annotations

import json
from typing import Any, Final, TypeAlias

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy as Of

from tests.fuzz.strategies import ANY_BODY, MARKER, VALUES, Document, spoiled

Place: TypeAlias = tuple[str | int, ...]

# -- Rules.

_WORDS: Final = """
5s 10MB 50% -1s env:TOKEN env:TOKEN? file:/nowhere? ${NUMBER} ${X ${NOBODY} webhook mcp token
signature none write read * 10.0.0.0/8 http://127.0.0.1:1/x http://[ https://u:p@h/ 127.0.0.1:0
0.0.0.0:80 1e309 2026-01-31 ..
"""
_VALUES: Final = st.one_of(VALUES, st.sampled_from(_WORDS.split()), st.integers(-1, 101))


def places(value: Any, path: Place = ()) -> list[Place]:
    """Every place in a document."""
    found = [path] if path else []
    if isinstance(value, dict):
        for key, each in value.items():
            found += places(each, (*path, key))
    elif isinstance(value, list):
        for at, each in enumerate(value):
            found += places(each, (*path, at))
    return found


@st.composite
def rules_documents(draw: st.DrawFn, honest: Document) -> Document:
    """Honest rules with a few places changed: another value, none, or a key that is not known."""
    document: Document = json.loads(json.dumps(honest))
    for _ in range(draw(st.integers(0, 4))):
        *path, last = draw(st.sampled_from(places(document) or [("backends",)]))
        holder: Any = document
        for part in path:
            holder = holder[part]
        change = draw(st.integers(0, 4))
        if change == 0:
            holder.pop(last, None) if isinstance(holder, dict) else holder.pop(last)
        elif change == 1 and isinstance(holder, dict):
            holder[f"{last}x"] = holder.pop(last, None)
        else:
            holder[last] = draw(_VALUES)
    return document


_SLIPS: Final = [
    b"", b"\t", b":", b" ", b"\n", b"-", b"'", b'"', b"{", b"]", b"&a ", b"*a", b"#", b"\xff",
    b"\x00", b"? ", b"!!x ", b"%", b"|", b"${", b"\r", b"\xc2\x85", b"\xe2\x80\xa8",
]  # fmt: skip


@st.composite
def slips(draw: st.DrawFn, texts: Of[bytes]) -> bytes:
    """A text with one slip of the hand, as they happen in editors."""
    text, slip = draw(texts), draw(st.sampled_from(_SLIPS))
    at = draw(st.integers(0, len(text)))
    return text[:at] + slip + text[at + draw(st.integers(0, 12)) :]


# -- The admin listener.

_PAGES: Final = f"""
/live /ready /metrics /status /config /explain /breakers /replays /outbox /breakers/mcp/reset
/breakers/nobody/open /breakers/mcp/{MARKER} /replays/x/release /replays/{MARKER}/release /outbox/7
/outbox/7/retry /outbox/{MARKER}/drop / /x /{MARKER} /breakers/%6dcp/reset /outbox/-1 // /status/
/outbox/9999999999999999999999/retry /drain /events /rollout http://127.0.0.1/status
"""
_QUERIES: Final = f"""
? ?call_id=call_0a ?call_id= ?state={MARKER} ?state=all&call_id=%ff ?tool=book ?tool={MARKER}
?whole=true ?%00 ?call_id=a&call_id=b ?call_id={{{{call_id}}}}
"""
_FIELDS: Final = [
    "Origin: http://evil.test", "Origin: null", "Origin: http://[", "Sec-Fetch-Site: cross-site",
    f"Authorization: Bearer {MARKER}", "Authorization: Basic x", "Authorization: Bearer \xff",
    "Accept: application/openmetrics-text", "Content-Type: text/x;charset=nope", "Expect: x",
    "Content-Encoding: gzip", f"X: {MARKER}", "X-Forwarded-For: 1.2.3.4", "Connection: Upgrade",
]  # fmt: skip


@st.composite
def admin_requests(draw: st.DrawFn) -> bytes:
    """What may come to the admin listener, from operators and from others."""
    method = draw(st.sampled_from(["GET"] * 3 + ["POST"] * 4 + ["HEAD", "DELETE", "PUT", "X"]))
    hosts = ["127.0.0.1"] * 6 + ["localhost:1", "[::1]:9", "evil.test", "", "[", "a b"]
    fields = draw(st.lists(st.sampled_from(_FIELDS), max_size=2))
    body = draw(st.just(b"") | spoiled(ANY_BODY))
    target = draw(st.sampled_from(_PAGES.split())) + draw(st.sampled_from(["", *_QUERIES.split()]))
    lines = [
        f"{method} {target} HTTP/1.1",
        f"Host: {draw(st.sampled_from(hosts))}",
        *fields,
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body
