from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.dialects import function
from proxy.core.dialects.function import CALL_LIMIT, CallObject

CALL = {
    "call_id": "call_1a",
    "call_type": "phone_call",
    "agent_id": "agent_x",
    "agent_version": 4,
    "from_number": "+14155550100",
    "to_number": "+14155550199",
    "direction": "inbound",
    "start_timestamp": 1767225600000,
    "metadata": {"tenant": "t1", "größe": [1, 2.50]},
    "transcript": "never kept",
    "access_token": "never kept",
}
KEPT = {key: value for key, value in CALL.items() if value != "never kept"}


def seen(body: Any, call_id: str = "call_1a") -> CallObject | None:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return function.call_object(raw, call_id)


@pytest.mark.parametrize("member", ["call", "call_inbound"])
def test_a_call_object_repeats_what_a_body_said_of_its_call(member: str) -> None:
    kept = seen({"event": "call_started", member: CALL})

    assert kept is not None
    assert kept.member == b"call"
    assert json.loads(kept.json) == KEPT


@pytest.mark.parametrize("member", ["chat", "chat_inbound"])
def test_a_chat_is_called_a_chat(member: str) -> None:
    kept = seen({member: {"chat_id": "chat_1", "agent_id": "a"}}, "chat_1")

    assert kept == CallObject(b"chat", b'{"chat_id":"chat_1","agent_id":"a"}')


@pytest.mark.parametrize(
    "body",
    [
        b"no json",
        b"[]",
        b"[" * 5000,
        {},
        {"call": None},
        {"call": {"call_id": "call_other"}},
        {"call": {"agent_id": "no id at all"}},
        {"call": {"call_id": 7}},
        {"call": "text"},
        b'{"call":{"call_id":"call_1a","metadata":"\xff"}}',
    ],
)
def test_a_body_without_this_call_teaches_nothing(body: Any) -> None:
    assert seen(body) is None


def test_metadata_goes_first_when_the_object_would_be_too_large() -> None:
    kept = seen({"call": {**CALL, "metadata": {"note": "x" * CALL_LIMIT}}})

    assert kept is not None
    expected = {key: value for key, value in KEPT.items() if key != "metadata"}
    assert json.loads(kept.json) == expected


def test_only_the_id_is_left_when_even_that_is_too_large() -> None:
    kept = seen({"call": {**CALL, "agent_id": "x" * CALL_LIMIT}})

    assert kept == CallObject(b"call", b'{"call_id":"call_1a"}')


@pytest.mark.parametrize(
    ("call_id", "expected"),
    [
        (None, CallObject(b"call", b"{}")),
        ("call_1", CallObject(b"call", b'{"call_id":"call_1"}')),
        ("chat_1", CallObject(b"chat", b'{"chat_id":"chat_1"}')),
        ('a"b', CallObject(b"call", b'{"call_id":"a\\"b"}')),
    ],
)
def test_an_unknown_call_is_told_by_its_id_alone(call_id: str | None, expected: CallObject) -> None:
    assert function.bare_call(call_id) == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.text(), st.dictionaries(st.text(), JSON))
def test_a_composed_body_is_retells_own_shape(tool: str, arguments: dict[str, Any]) -> None:
    raw = json.dumps(arguments).encode()

    body = function.compose(tool, raw, function.bare_call("call_1"))

    assert json.loads(body) == {"name": tool, "call": {"call_id": "call_1"}, "args": arguments}
    assert raw in body  # spliced, so that numbers and escapes keep their bytes


def test_no_arguments_are_an_empty_object() -> None:
    body = function.compose("t", None, CallObject())

    assert body == b'{"name":"t","call":{},"args":{}}'


def test_a_sentence_to_speak_says_that_it_failed() -> None:
    assert json.loads(function.spoken('Sorry, "no".')) == {
        "success": False,
        "message": 'Sorry, "no".',
    }
