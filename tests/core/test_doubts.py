from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.doubts import doubts, is_envelope
from proxy.core.shapes import Shape, read_shape
from proxy.errors import Refused


def shape(body: dict[str, Any]) -> Shape:
    read, _ = read_shape(json.dumps(body).encode())
    assert read is not None
    return read


@pytest.mark.parametrize(
    ("body", "whole"),
    [
        ({"name": "book", "args": {}}, True),
        ({"name": "book", "args": None}, True),
        ({"name": "book", "args": "{}", "call": {}}, True),
        ({"name": "book", "args": [], "chat": {}}, True),
        ({"name": "book", "args": "{}"}, False),
        ({"name": "book", "args": "{}", "call": []}, False),
        ({"name": "book", "call": {}}, False),
        ({"name": "", "args": {}}, False),
        ({"name": 5, "args": {}}, False),
        ({"args": {}}, False),
    ],
)
def test_an_envelope_has_a_name_and_arguments(body: dict[str, Any], whole: bool) -> None:
    assert is_envelope(shape(body)) is whole


@pytest.mark.parametrize("key", ["arguments", "args"])
def test_a_whole_request_for_another_tool_is_refused(key: str) -> None:
    name = "tool" if key == "arguments" else "name"

    with pytest.raises(Refused) as caught:
        doubts(shape({name: "book", key: {}}), "slots")
    assert (caught.value.status, caught.value.code) == (400, "tool_mismatch")
    assert len(doubts(shape({name: "book", key: {}}), "book")) == 1


KEYS = ["name", "args", "tool", "event", "method", "call", "date", "arguments", "jsonrpc"]


@given(st.dictionaries(st.sampled_from(KEYS), st.text(max_size=5) | st.integers() | st.booleans()))
def test_no_flat_arguments_are_ever_refused(body: dict[str, Any]) -> None:
    """Whatever a tool calls its arguments: without objects among them they are nobody else's."""
    assert doubts(shape(body), "tool") is not None
