from __future__ import annotations

import pytest

from proxy.core.dialects import headers
from proxy.core.model import Headers

ASKED: Headers = [
    (b"Authorization", b"Bearer downstream"),
    (b"Cookie", b"a=b"),
    (b"X-Retell-Signature", b"v=1,d=2"),
    (b"Content-Type", b"text/plain"),
    (b"Content-Encoding", b"gzip"),
    (b"Accept", b"text/html"),
    (b"Accept-Encoding", b"br"),
    (b"Origin", b"https://example.com"),
    (b"If-None-Match", b"*"),
    (b"Mcp-Session-Id", b"s"),
    (b"Last-Event-ID", b"7"),
    (b"X-Tenant", b"t1"),
    (b"traceparent", b"00-1"),
    (b"User-Agent", b"axios"),
]


def test_a_new_body_goes_without_the_callers_proofs_and_the_old_bodys_traits() -> None:
    own = [(b"content-type", b"application/json")]

    assert headers.for_new_body(ASKED, own) == [
        (b"X-Tenant", b"t1"),
        (b"traceparent", b"00-1"),
        (b"User-Agent", b"axios"),
        (b"content-type", b"application/json"),
    ]


def test_the_same_body_keeps_everything_but_what_is_dropped() -> None:
    own = headers.bearer_fields(b"ours")

    kept = headers.for_same_body(ASKED, own, headers.AUTHORIZATION)

    assert kept == [*ASKED[1:], (b"authorization", b"Bearer ours")]
    assert len(ASKED) == 14  # nobody's list was changed


def test_an_arm_without_a_bearer_has_no_credential() -> None:
    assert headers.bearer_fields(None) == []
    assert headers.bearer_fields(b"") == []


def test_a_new_answer_has_its_own_type_and_nothing_stale() -> None:
    answered: Headers = [
        (b"Content-Type", b"text/event-stream"),
        (b"Content-Encoding", b"gzip"),
        (b"ETag", b"x"),
        (b"Cache-Control", b"no-cache"),
        (b"Mcp-Session-Id", b"s"),
        (b"X-Accel-Buffering", b"no"),
        (b"Retry-After", b"3"),
        (b"Server", b"uvicorn"),
    ]

    assert headers.for_new_answer(answered, b"text/plain") == [
        (b"Retry-After", b"3"),
        (b"Server", b"uvicorn"),
        (b"content-type", b"text/plain"),
    ]


@pytest.mark.parametrize(
    ("value", "expected"),
    [(b"Text/Event-Stream; charset=utf-8", b"text/event-stream"), (b"", b""), (None, b"")],
)
def test_a_media_type_is_compared_without_its_parameters(
    value: bytes | None, expected: bytes
) -> None:
    fields = [] if value is None else [(b"X-A", b"b"), (b"Content-Type", value)]

    assert headers.media_type(fields) == expected
