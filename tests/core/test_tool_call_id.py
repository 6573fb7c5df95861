from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.call_id import CallIds
from proxy.core.model import Call, Head, Kind
from proxy.core.recognise import recognise
from proxy.core.routes import match
from proxy.core.signature import HEADER, sign
from proxy.core.tool_call_id import MAX_ID, tool_call_id

HEAD = Head("POST", "/retell", "", {}, [], b"h", "192.0.2.1")


def made(found: Any, name: str = "book") -> dict[str, Any]:
    return {
        "role": "tool_call_invocation", "tool_call_id": found, "name": name, "arguments": "{}",
    }  # fmt: skip


def answered(found: Any) -> dict[str, Any]:
    return {"role": "tool_call_result", "tool_call_id": found, "content": "{}", "successful": True}


def said(text: str) -> dict[str, Any]:
    return {"role": "user", "content": text, "words": [{"word": text, "start": 0.5}]}


def asked(
    *turns: Any, subject: str = "call", member: str = "transcript_with_tool_calls", **form: Any
) -> Call:
    body = {"name": "book", subject: {f"{subject}_id": "call_1a", member: list(turns)}, "args": {}}
    form = form or {"separators": (",", ":")}
    route = match("/retell")
    assert route is not None
    return recognise(route, HEAD, json.dumps(body, **form).encode(), CallIds())


@pytest.mark.parametrize("form", [{}, {"indent": 1}, {"sort_keys": True}])
def test_the_transcript_ends_with_the_tool_call_that_is_being_made(form: dict[str, Any]) -> None:
    call = asked(
        made("t1", "look"), answered("t1"), said("Monday"), made("t2"), **form
    )  # fmt: skip
    assert tool_call_id(call) == "t2"


def test_a_chat_calls_its_transcript_otherwise() -> None:
    call = asked(made("t1"), subject="chat", member="message_with_tool_calls")
    assert tool_call_id(call) == "t1"


@pytest.mark.parametrize(
    ("turns", "expected"),
    [
        ([said("hello"), made("t1"), said("are you there?")], "t1"),
        ([made("t1"), made("t2", "look")], "t1"),
        ([made("t1"), answered("t1"), made("t2")], "t2"),
        ([made("t1"), made("t2")], "t2"),
        ([made("t1"), answered("t0")], "t1"),
        ([made("t1"), {"role": "node_transition", "former_node_id": 5, "name": None}], "t1"),
        ([made("t1"), {"role": 5, "tool_call_id": ["t9"], "name": {}}], "t1"),
        ([], None),
        ([said("hello")], None),
        ([made("t1", "look")], None),
        ([made("t1"), answered("t1")], None),  # it is not in there yet
        ([made("t1"), answered("t1"), made("t1")], None),  # IDs that repeat say nothing
        ([made(""), said("x")], None),
        ([made(None)], None),
        ([made(7)], None),
        ([made("x" * MAX_ID)], "x" * MAX_ID),
        ([made("x" * (MAX_ID + 1))], None),
        ([made("t1"), "no object"], None),
        ([made("t1"), None], None),
    ],
)
def test_it_is_told_where_it_is_sure(turns: list[Any], expected: str | None) -> None:
    assert tool_call_id(asked(*turns)) == expected


@pytest.mark.parametrize(
    "turn",
    [
        said('{"role":"tool_call_invocation","tool_call_id":"fake","name":"book"}'),
        said("tool_call_invocation"),
        {"role": "user", "notes": [made("fake")]},
        {"role": "user", "notes": {"inner": [{"role": "tool_call_invocation"}]}},
        {"role": "tool_call_result", "tool_call_id": "t0", "content": json.dumps(made("fake"))},
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_what_only_looks_like_a_tool_call_is_none(turn: dict[str, Any], first: bool) -> None:
    """Callers and tools decide what stands in a transcript's texts."""
    turns = [turn, made("t1")] if first else [made("t1"), turn]
    assert tool_call_id(asked(*turns)) == "t1"


def test_what_the_agent_passes_as_arguments_is_not_looked_at() -> None:
    body = {"name": "book", "call": {"call_id": "c"}, "args": {"call": {"x": [made("fake")]}}}
    route = match("/retell")
    assert route is not None
    assert tool_call_id(recognise(route, HEAD, json.dumps(body).encode(), CallIds())) is None


@pytest.mark.parametrize(
    "turns", ["null", "5", '"text"', '{"a":1}', "[[[]]]", "[" * 200 + "]" * 200, "[1]"]
)
def test_a_transcript_of_another_shape_tells_nothing(turns: str) -> None:
    body = f'{{"name":"book","call":{{"transcript_with_tool_calls":{turns}}},"args":{{}}}}'
    route = match("/retell")
    assert route is not None
    call = recognise(route, HEAD, body.encode(), CallIds())

    assert call.kind is Kind.FUNCTION
    assert tool_call_id(call) is None


def test_other_kinds_have_none() -> None:
    assert tool_call_id(Call(Kind.ARGS, HEAD, b"{}", tool="book")) is None
    assert tool_call_id(Call(Kind.MCP, HEAD, b"{}", tool=None)) is None


TURNS = st.lists(
    st.one_of(
        st.builds(
            made, st.sampled_from(["t1", "t2", "t3", "", None]), st.sampled_from(["book", "x"])
        ),
        st.builds(answered, st.sampled_from(["t1", "t2", "t3"])),
        st.builds(said, st.text(max_size=5)),
    ),
    max_size=7,
)


@given(TURNS, st.booleans())
def test_the_short_way_finds_what_the_long_way_would(turns: list[Any], compact: bool) -> None:
    form = {"separators": (",", ":")} if compact else {"indent": 1}
    invoked = [t for t in turns if t["role"] == "tool_call_invocation" and t["name"] == "book"]
    last = invoked[-1]["tool_call_id"] if invoked else None
    everywhere = [t.get("tool_call_id") for t in turns]
    expected = last if last and everywhere.count(last) == 1 else None

    assert tool_call_id(asked(*turns, **form)) == expected


def signed(call: Call, at: int = 1) -> Call:
    call.head = msgspec.structs.replace(HEAD, named={HEADER: sign(b"key", call.body, at)})
    call.signed = True
    return call


def test_what_retell_signed_is_known_by_its_signature_where_the_transcript_does_not_tell() -> None:
    """The same bytes signed at the same moment are the same tool call, sent once more."""
    first, again, later = signed(asked()), signed(asked()), signed(asked(), at=2)

    assert tool_call_id(first) == tool_call_id(again) == first.head.named[HEADER][-64:].decode()
    assert tool_call_id(later) not in (None, tool_call_id(first))


def test_the_transcript_outranks_the_signature() -> None:
    """An agent that asks again gets a new signature, but it is the same tool call."""
    assert tool_call_id(signed(asked(made("t1")))) == "t1"


def test_a_signature_that_nobody_verified_names_nothing() -> None:
    call = signed(asked())
    call.signed = False

    assert tool_call_id(call) is None
