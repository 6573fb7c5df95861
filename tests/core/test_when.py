from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.matchers import compile_answer_when, compile_when
from proxy.core.when import (
    answer_faults,
    faults,
    field_paths,
    of_request,
    uses_request_fields,
)

GOOD: list[dict[str, Any]] = [
    {"agent_id": "agent_staging"},
    {"agent_id": {"in": ["agent_a", "agent_b"]}, "direction": "inbound"},
    {"metadata.company_id": 42},
    {"metadata.company_id": {"in": [42, "42", True, 1.5]}},
    {"metadata.flags.beta": True},
    {"dynamic_variables.vip": "true"},
    {"from_number": {"prefix": "+49", "not": {"suffix": "00"}}},
    {"to_number": {"regex": r"\+1415\d{7}"}},
    {"call_type": {"exact": "web_call"}},
    {"header.X-Test": {"exists": True}},
    {"tool": {"not": "book_appointment"}},
    {"all": [{"agent_id": "a"}, {"any": [{"tool": "b"}, {"not": {"direction": "inbound"}}]}]},
    {"metadata.tags": {"in": ("a", "b")}},
]


@pytest.mark.parametrize("when", GOOD)
def test_a_good_when_has_no_faults_and_compiles(when: dict[str, Any]) -> None:
    assert faults(when) == []
    assert compile_when(when)({}) in (True, False)


@pytest.mark.parametrize(
    ("when", "path", "part"),
    [
        (None, "", "mapping"),
        ([], "", "mapping"),
        ({}, "", "every call"),
        ({"agent": "x"}, "agent", "did you mean 'agent_id'"),
        ({"colour": "x"}, "colour", "known are agent_id, "),
        ({7: "x"}, "7", "must be text"),
        ({"metadata.": "x"}, "metadata.", "is no field"),
        ({"metadata": "x"}, "metadata", "is no field"),
        ({"Metadata.a": "x"}, "Metadata.a", "is no field"),
        ({"header.": "x"}, "header.", "is no field"),
        ({"metadata.a..b": "x"}, "metadata.a..b", "is no field"),
        ({"agent_id": None}, "agent_id", "exists: false"),
        ({"agent_id": ["a"]}, "agent_id", "text, a number"),
        ({"agent_id": {}}, "agent_id", "mapping of tests"),
        ({"agent_id": 42}, "agent_id", "add quotes"),
        ({"from_number": 4930123456}, "from_number", "add quotes"),
        ({"dynamic_variables.vip": True}, "dynamic_variables.vip", "add quotes"),
        ({"header.x": {"in": ["1", 1]}}, "header.x.in.1", "add quotes"),
        ({"metadata.a": float("nan")}, "metadata.a", "finite"),
        ({"metadata.a": {"exact": float("inf")}}, "metadata.a.exact", "finite"),
        ({"agent_id": {"in": []}}, "agent_id.in", "at least one"),
        ({"agent_id": {"in": "a"}}, "agent_id.in", "must be a list"),
        ({"agent_id": {"in": [None]}}, "agent_id.in.0", "exists: false"),
        ({"agent_id": {"prefx": "a"}}, "agent_id.prefx", "did you mean 'prefix'"),
        ({"agent_id": {"gt": 1}}, "agent_id.gt", "known are exact"),
        ({"agent_id": {1: 1}}, "agent_id.1", "is no test"),
        ({"agent_id": {"prefix": ""}}, "agent_id.prefix", "not empty"),
        ({"agent_id": {"suffix": 4}}, "agent_id.suffix", "must be text"),
        ({"agent_id": {"exists": "yes"}}, "agent_id.exists", "true or false"),
        ({"agent_id": {"regex": "("}}, "agent_id.regex", "no regular expression"),
        ({"agent_id": {"regex": "(a+)+"}}, "agent_id.regex", "possessive"),
        ({"agent_id": {"not": {"in": 3}}}, "agent_id.not.in", "must be a list"),
        ({"all": {}}, "all", "list with at least one"),
        ({"any": []}, "any", "list with at least one"),
        ({"not": {}}, "not", "every call"),
        ({"any": [{"tool": "x"}, {"metadata.tier": None}]}, "any.1.metadata.tier", "exists"),
    ],
)
def test_a_fault_names_its_place_and_the_way_out(when: object, path: str, part: str) -> None:
    found = faults(when)

    assert [at for at, _ in found] == [path]
    assert part in found[0][1]


def test_all_faults_are_told_at_once() -> None:
    when = {"agent": "x", "tool": {"regex": "("}, "any": [{"direction": 1}, {}]}

    assert [at for at, _ in faults(when)] == ["agent", "tool.regex", "any.0.direction", "any.1"]


def test_nesting_is_bounded() -> None:
    deep: dict[str, Any] = {"tool": "x"}
    test: Any = "x"
    for _ in range(40):
        deep, test = {"not": deep}, {"not": test}

    assert "too deeply" in faults(deep)[0][1]
    assert "too deeply" in faults({"tool": test})[0][1]


def test_the_fields_of_a_when_are_found_at_any_depth() -> None:
    when = {
        "agent_id": "a",
        "not": {"metadata.Tier": 1},
        "any": [{"header.X-Test": "1"}, {"all": [{"direction": "inbound"}]}],
    }

    assert field_paths(when) == {"agent_id", "metadata.Tier", "header.x-test", "direction"}


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        ({"agent_id": "a"}, False),
        ({"metadata.tool": "a"}, False),
        ({"tool": "a"}, True),
        ({"Header.X-Test": "a"}, True),
        ({"not": {"any": [{"agent_id": "a"}, {"tool": "b"}]}}, True),
    ],
)
def test_tool_and_header_belong_to_a_request(when: dict[str, Any], expected: bool) -> None:
    assert faults(when) == []
    assert uses_request_fields(when) is expected
    assert any(map(of_request, field_paths(when))) is expected


@pytest.mark.parametrize(
    "when",
    [
        {"status": "error"},
        {"error.code": {"in": [500, "E5", True]}},
        {"Header.X": 7},
        {"any": [{"checks.mcp_tools.status": "degraded"}, {"not": {"items.0.ok": True}}]},
    ],
)
def test_an_answer_may_hold_any_field_and_any_value(when: dict[str, Any]) -> None:
    assert answer_faults(when) == []
    assert compile_answer_when(when)({}) in (True, False)


@pytest.mark.parametrize(
    ("when", "path", "part"),
    [
        ({}, "", "every answer"),
        ({7: "x"}, "7", "must be text"),
        ({"a..b": 1}, "a..b", "part of it is empty"),
        ({"": 1}, "", "part of it is empty"),
        ({"a": None}, "a", "exists: false"),
        ({"any": [{"a": {"in": "x"}}]}, "any.0.a.in", "must be a list"),
        ({"a": {"regex": "("}}, "a.regex", "no regular expression"),
    ],
)
def test_faults_of_a_when_about_answers(when: Any, path: str, part: str) -> None:
    ((at, message),) = answer_faults(when)

    assert at == path
    assert part in message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["all", "any", "not", "in", "regex", "exact", "agent_id", "tool"])
            | st.text(max_size=6),
            inner,
            max_size=3,
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_whatever_is_written_either_has_faults_or_works(when: Any) -> None:
    if not faults(when):
        assert compile_when(when)({"agent_id": "x", "tool": 7}) in (True, False)
    if not answer_faults(when):
        assert compile_answer_when(when)({"agent_id": "x", "tool": 7}) in (True, False)
