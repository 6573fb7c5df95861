from __future__ import annotations

from urllib.parse import unquote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.addresses import NOWHERE
from proxy.core.head import read_head
from proxy.core.model import Call, Head, Kind
from proxy.core.targets import Targets

PATHS = {
    Kind.EVENT: "/hooks/events",
    Kind.ARGS: "/fn/{tool}",
    Kind.FUNCTION: "/fn/{tool}?wire=full",
}


def call_of(kind: Kind, at: str = "/retell", tool: str | None = None) -> Call:
    head = read_head("POST", at, (), peer="", secure=False, trusted=NOWHERE)
    return Call(kind, head, tool=tool)


@pytest.mark.parametrize(
    ("at", "path", "query", "found"),
    [
        ("/retell", "/webhook", "", "/webhook"),
        ("/retell?a=1", "/webhook", "", "/webhook?a=1"),
        ("/retell?a=1&b=%20", "/webhook", "key=x", "/webhook?key=x&a=1&b=%20"),
        ("/retell", "/webhook", "key=x", "/webhook?key=x"),
        ("/mcp?call_id=call_1f", "/mcp", "", "/mcp?call_id=call_1f"),
        ("/mcp?call_id={{call_id}}", "/mcp", "", "/mcp?call_id={{call_id}}"),
        ("/mcp/call_1f", "/mcp", "", "/mcp"),
        # No path of its own: the caller's, byte for byte.
        ("/mcp/a%20b?x=%2F&&y", "", "", "/mcp/a%20b?x=%2F&&y"),
        ("/retell?", "", "", "/retell?"),
        ("//retell", "", "", "//retell"),
        ("/retell?a=1", "", "key=x", "/retell?key=x&a=1"),
        ("/retell", "/caf%C3%A9", "", "/caf%C3%A9"),
        ("/retell", "/webhook#part", "", "/webhook"),
    ],
)
def test_the_backends_path_with_the_callers_query(
    at: str, path: str, query: str, found: str
) -> None:
    assert Targets(path, query, {}).of(call_of(Kind.OTHER, at)) == found


@pytest.mark.parametrize(
    ("kind", "tool", "found"),
    [
        (Kind.EVENT, None, "/hooks/events?key=x&a=1"),
        (Kind.INBOUND, None, "/webhook?key=x&a=1"),
        (Kind.ARGS, "book", "/fn/book?key=x&a=1"),
        (Kind.FUNCTION, "book", "/fn/book?wire=full&key=x&a=1"),
    ],
)
def test_a_kind_may_have_a_path_of_its_own(kind: Kind, tool: str | None, found: str) -> None:
    call = call_of(kind, "/retell?a=1", tool)

    assert Targets("/webhook", "key=x", PATHS).of(call) == found


def test_a_translated_call_goes_where_its_new_kind_lives() -> None:
    call = call_of(Kind.MCP, "/mcp", "book")

    found = Targets("/w", "", PATHS).of(call, kind=Kind.ARGS, tool="checkSlots")

    assert found == "/fn/checkSlots"


@pytest.mark.parametrize(
    ("tool", "segment"),
    [
        ("a/b", "a%2Fb"),
        ("../x", "..%2Fx"),
        ("a b?c#d", "a%20b%3Fc%23d"),
        ("ä\n", "%C3%A4%0A"),
        ("{tool}", "%7Btool%7D"),
        ("a%2fb", "a%252fb"),
        ("", ""),
        (None, ""),
        ("\ud800", "%3F"),
    ],
)
def test_a_tools_name_stays_one_segment(tool: str | None, segment: str) -> None:
    call = call_of(Kind.ARGS, "/x", tool)

    assert Targets("", "", PATHS).of(call) == f"/fn/{segment}"


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_no_tools_name_can_leave_its_segment(tool: str) -> None:
    found = Targets("/w", "", PATHS).of(call_of(Kind.ARGS, "/x", tool))

    parts = urlsplit(found)
    assert (parts.query, parts.fragment) == ("", "")
    assert unquote(parts.path) == f"/fn/{tool}"
    assert found.count("/") == 2
    assert found.isascii()


def test_a_head_made_of_path_and_query_alone_will_do() -> None:
    head = Head("POST", "/retell", "a=1", {}, [], b"", "")

    assert Targets("", "", {}).of(Call(Kind.EVENT, head)) == "/retell?a=1"
