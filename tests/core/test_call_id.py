from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.addresses import NOWHERE
from proxy.core.call_id import (
    MAX_BYTES,
    CallIds,
    beside_body,
    from_headers,
    from_query,
    query_pairs,
    usable,
)
from proxy.core.head import read_head
from proxy.core.model import Head

IDS = CallIds()
CALL = "call_0f1e2d3c4b5a69788796a5b4c3d"


def head_of(*fields: tuple[bytes, bytes], query: str = "") -> Head:
    target = f"/mcp?{query}" if query else "/mcp"
    return read_head("POST", target, fields, peer="", secure=False, trusted=NOWHERE)


@pytest.mark.parametrize(
    "text",
    [
        CALL,
        "Jabr9TXYYJHfvl6Syypi88rdAHYHmcq6",
        "chat_0001",
        "CALL_1f",
        " call_1f ",
        "call id",
        "anruf-ä-早",
        "{call_id}",
        "100%",
        "%7Bx%7D",
        "call_11",
        "x" * MAX_BYTES,
        "ä" * (MAX_BYTES // 2),
    ],
)
def test_an_id_is_taken_as_it_stands(text: str) -> None:
    assert usable(text) == text


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        " ",
        " " * 40,
        "null",
        "NULL",
        "None",
        "none",
        "undefined",
        "Unknown",
        "current",
        "call_1",
        "12345",
        "dummy_call_id",
        "{{call_id}}",
        "{{ call_id }}",
        "{{anything}}",
        "call-{{call_id}}",
        "{{call_id",
        "%7B%7Bcall_id%7D%7D",
        "%7b%7bcall_id%7d%7d",
        "%7b{call_id}}",
        "a\0b",
        "a\nb",
        "a\tb",
        "a\x7fb",
        "a\x85b",
        "a\u2028b",
        "a\ud800b",
        "\udcff",
        "x" * (MAX_BYTES + 1),
        "ä" * MAX_BYTES,
        "x" * 1_000_000,
    ],
)
def test_what_only_looks_like_an_id_is_missing(text: str | None) -> None:
    assert usable(text) is None


@given(st.text(max_size=600))
def test_a_usable_id_can_be_hashed_logged_and_sent(text: str) -> None:
    found = usable(text)

    assert found is None or (found is text and 0 < len(found.encode()) <= MAX_BYTES)
    assert found is None or "\n" not in found


def test_headers_are_read_in_the_order_of_the_rules() -> None:
    head = head_of((b"X-Retell-Call-Id", b"second"), (b"X-CALL-ID", b"first"))

    assert from_headers(head, IDS) == "first"
    assert from_headers(head, CallIds.of(["X-Retell-Call-ID", "x-call-id"], [])) == "second"


def test_a_placeholder_in_one_header_leaves_the_next() -> None:
    head = head_of((b"X-Call-ID", b"{{call_id}}"), (b"X-Retell-Call-ID", b"call_1f"))

    assert from_headers(head, IDS) == "call_1f"


def test_a_header_that_stands_twice_says_nothing() -> None:
    head = head_of((b"X-Call-ID", b"call_1f"), (b"x-call-id", b"call_2f"))

    assert from_headers(head, IDS) is None


def test_header_bytes_that_are_no_text_are_no_id() -> None:
    assert from_headers(head_of((b"X-Call-ID", b"caf\xe9")), IDS) is None
    assert from_headers(head_of((b"X-Call-ID", "café".encode())), IDS) == "café"


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("", None),
        ("call_id=call_1f", "call_1f"),
        ("a=1&call_id=call_1f&b=2", "call_1f"),
        ("call%5Fid=call%5f1f", "call_1f"),
        ("call_id=a+b", "a b"),
        ("call_id=a=b", "a=b"),
        ("call_id", None),
        ("call_id=", None),
        ("&&=&call_id=call_1f&", "call_1f"),
        ("CALL_ID=call_1f", None),
        ("call_id=%7B%7Bcall_id%7D%7D", None),
        ("call_id=%257B%257Bcall_id%257D%257D", None),
        ("call_id={{call_id}}", None),
        ("call_id=%ff", None),
        ("call_id=%00", None),
        ("call_id=call_1f&call_id=call_2f", None),
        ("other=call_1f", None),
    ],
)
def test_the_query_may_hold_the_id(query: str, found: str | None) -> None:
    assert from_query(head_of(query=query), IDS) == found


def test_query_names_are_the_rules_own() -> None:
    ids = CallIds.of([], ["cid", "call_id"])

    assert from_query(head_of(query="call_id=b&cid=a"), ids) == "a"
    assert from_query(head_of(query="call_id=b&cid="), ids) == "b"


@pytest.mark.parametrize(
    ("header", "query", "segment", "found"),
    [
        (b"h", "call_id=q", "s", "h"),
        (b"null", "call_id=q", "s", "q"),
        (b"null", "call_id=null", "s", "s"),
        (b"null", "call_id=null", "{{call_id}}", None),
        (b"null", "call_id=null", None, None),
    ],
)
def test_header_then_query_then_path(
    header: bytes, query: str, segment: str | None, found: str | None
) -> None:
    assert beside_body(head_of((b"X-Call-ID", header), query=query), IDS, segment) == found


def test_query_pairs_survive_bytes_that_are_no_text() -> None:
    assert query_pairs("a=%ff") == [("a", "\udcff")]
    assert query_pairs("a=%ff", errors="replace") == [("a", "\ufffd")]
