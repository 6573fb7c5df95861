from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from proxy.core.model import Call, Head, Kind, Session
from proxy.core.replay_key import KEY_BYTES, MAX_CANONICAL, canonical, replay_key, scope_of

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=4), inner)
    ),
    max_leaves=8,
)


def key(arguments: bytes, *, scope: str = "call_1a", tool: str = "book") -> bytes:
    return replay_key(scope, tool, arguments, b"")


def exact(value: Any) -> Any:
    """A value in which 1, 1.0 and True differ, as they do on the wire."""
    if isinstance(value, dict):
        return {name: exact(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [exact(inner) for inner in value]
    return (type(value).__name__, repr(value))


def shuffled(value: Any) -> Any:
    """The same value, its members in the opposite order."""
    if isinstance(value, dict):
        return {name: shuffled(value[name]) for name in reversed(value)}
    if isinstance(value, list):
        return [shuffled(inner) for inner in value]
    return value


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b'{"a":1,"b":2}', b'{ "b" : 2,\n"a":1 }'),
        (b'{"a":{"x":1,"y":[1,2]}}', b'{"a":{"y":[1, 2],"x":1}}'),
        ('{"a":"é"}'.encode(), b'{"a":"\\u00e9"}'),
        (b'{"a":"/"}', b'{"a":"\\/"}'),
        (b'{"a":1e400,"b":12345678901234567890123}', b'{"b":12345678901234567890123, "a":1e400}'),
    ],
)
def test_order_white_space_and_escapes_do_not_matter(one: bytes, other: bytes) -> None:
    assert key(one) == key(other)
    assert len(key(one)) == KEY_BYTES


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (b'{"a":1}', b'{"a":1.0}'),
        (b'{"a":1}', b'{"a":"1"}'),
        (b'{"a":1}', b'{"a":true}'),
        (b'{"a":0}', b'{"a":false}'),
        (b'{"a":null}', b"{}"),
        (b'{"a":null}', b'{"a":"null"}'),
        (b'{"a":18446744073709551616}', b'{"a":18446744073709551617}'),
        (b'{"a":-9223372036854775809}', b'{"a":-9223372036854775810}'),
        (b'{"a":0.1}', b'{"a":0.10000000000000000001}'),
        (b'{"a":1e999}', b'{"a":1e998}'),
        (b'{"a":"b"}', b'{"a":"B"}'),
        (b'{"a":"b"}', b'{"a":"b "}'),
        (b'{"a":[1,2]}', b'{"a":[2,1]}'),
        (b'{"a":1,"b":2}', b'{"a":2,"b":1}'),
        (b'{"a":1,"a":2}', b'{"a":2}'),  # readers differ on which of the two counts
        (b'{"a\\u003a":1,"a":1,"a":2}', b'{"a:":1,"a":2}'),
        (b'{"a":"\\ud83d"}', b'{"a":"\\ud83e"}'),
        (b'{"a":"\\ud83d"}', b'{"a":"\\ufffd"}'),
        (b"[" * 5000 + b"]" * 5000, b"[" * 5001 + b"]" * 5001),
        (b"1" * 5000, b"1" * 4999 + b"2"),
        (b'{"a":"' + b"x" * MAX_CANONICAL + b'"}', b'{"a":"' + b"x" * MAX_CANONICAL + b'y"}'),
    ],
)
def test_any_difference_in_a_value_does(one: bytes, other: bytes) -> None:
    assert key(one) != key(other)


@given(VALUES, VALUES)
def test_keys_are_equal_exactly_where_values_are(one: Any, other: Any) -> None:
    def wire(value: Any) -> bytes:
        return json.dumps(value, separators=(",", ":")).encode()

    assert key(wire(one)) == key(json.dumps(shuffled(one), ensure_ascii=False, indent=1).encode())
    assert (key(wire(one)) == key(wire(other))) is (exact(one) == exact(other))


@given(st.binary(max_size=30))
def test_whatever_cannot_be_read_has_a_key_of_its_bytes(text: bytes) -> None:
    assert key(text) == key(text)
    assert key(text) != key(text + b"x")


def test_what_cannot_be_read_is_not_what_it_looks_like() -> None:
    """Arguments that are the canonical form of others must not pass for them by being broken."""
    assert canonical(b'{"a":1,"a":1}') is None
    assert replay_key("c", "t", None, b"{}") != replay_key("c", "t", b"{}", b"")


def test_the_whole_body_takes_the_place_of_arguments_that_are_missing() -> None:
    assert replay_key("c", "t", None, b"x") == replay_key("c", "t", None, b"x")
    assert replay_key("c", "t", None, b"x") != replay_key("c", "t", None, b"y")
    assert replay_key("c", "t", b"{}", b"x") == replay_key("c", "t", b"{}", b"y")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("a", "bc"), ("ab", "c")),
        (('a","b', "c"), ("a", 'b","c')),
        (("", "ab"), ("ab", "")),
        (("\udcff", "a"), ("\udcfe", "a")),  # no text: bytes of a header, as they were
        (("\udcff", "a"), ("\\udcff", "a")),
        (("\udcff", "a', 'b"), ("\udcff', 'a", "b")),
    ],
)
def test_scope_tool_and_arguments_cannot_run_into_each_other(
    one: tuple[str, str], other: tuple[str, str]
) -> None:
    assert replay_key(*one, b"{}", b"") != replay_key(*other, b"{}", b"")


def test_the_key_outlives_processes_and_versions() -> None:
    """It is written down in the state directory, and sent to backends within Idempotency-Key."""
    found = replay_key("call_1a", "book", b'{"date":"2026-01-02","n":1}', b"")

    assert found.hex() == "e2ad9c258f2b3ef8f7f4c295a41e7172"


def test_a_nesting_of_thousands_is_taken_as_bytes() -> None:
    assert canonical(b"[" * 30_000 + b"]" * 30_000) is None


SESSION = Session("0" * 31 + "1", "mcp", "2025-06-18", 1_767_225_600_000, "upstream-1")


def asked(kind: Kind, call_id: str | None, session: Session | None) -> Call:
    token = {b"mcp-session-id": b"a-token-of-ours"}
    return Call(kind, Head("POST", "/mcp", "", token, [], b"h", "ip"), id=call_id, session=session)


@pytest.mark.parametrize(
    ("kind", "call_id", "session", "scope"),
    [
        (Kind.FUNCTION, "call_1a", None, "call_1a"),
        (Kind.MCP, "call_1a", SESSION, "call_1a"),
        (Kind.MCP, None, SESSION, f"session:{SESSION.id}"),
        (Kind.MCP, None, None, None),
        (Kind.FUNCTION, None, None, None),
    ],
)
def test_a_write_is_its_calls_or_its_sessions_or_nobodys(
    kind: Kind, call_id: str | None, session: Session | None, scope: str | None
) -> None:
    """What nobody checked says nothing: a header alone is no session."""
    assert scope_of(asked(kind, call_id, session)) == scope


def test_a_session_is_the_same_whatever_its_arm_calls_it() -> None:
    """The arm's own session may be lost and opened anew between a write and its repeat."""
    again = replace(SESSION, upstream="upstream-2")

    assert scope_of(asked(Kind.MCP, None, again)) == scope_of(asked(Kind.MCP, None, SESSION))
