from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.matchers import compile_when, faults
from proxy.core.patterns import MAX_SUBJECT

CALL: dict[str, object] = {
    "agent_id": "agent_staging",
    "from_number": "+4930123456",
    "direction": "inbound",
    "tool": "book_appointment",
    "header.x-test": "1",
    "metadata.company_id": 42,
    "metadata.ratio": 1.5,
    "metadata.vip": True,
    "metadata.tags": ["a"],
    "metadata.empty": "",
    "metadata.zero": 0,
}


@pytest.mark.parametrize(
    ("when", "expected"),
    [
        # equality: text as text, numbers as numbers, truth as truth
        ({"agent_id": "agent_staging"}, True),
        ({"agent_id": "Agent_staging"}, False),
        ({"metadata.company_id": 42}, True),
        ({"metadata.company_id": 42.0}, True),
        ({"metadata.company_id": "42"}, False),
        ({"metadata.ratio": 1.5}, True),
        ({"metadata.vip": True}, True),
        ({"metadata.vip": False}, False),
        ({"metadata.vip": 1}, False),
        ({"metadata.zero": False}, False),
        ({"metadata.zero": 0}, True),
        ({"metadata.tags": "a"}, False),
        ({"metadata.tags": 1}, False),
        ({"metadata.absent": 0}, False),
        ({"agent_id": {"exact": "agent_staging"}}, True),
        # in
        ({"metadata.company_id": {"in": [7, 42]}}, True),
        ({"metadata.company_id": {"in": ["42"]}}, False),
        ({"metadata.vip": {"in": [1, "true"]}}, False),
        ({"metadata.vip": {"in": [True]}}, True),
        ({"metadata.zero": {"in": [False]}}, False),
        ({"metadata.tags": {"in": ["a"]}}, False),
        ({"agent_id": {"in": ["agent_staging", "x"]}}, True),
        ({"metadata.absent": {"in": [0, ""]}}, False),
        # text tests
        ({"from_number": {"prefix": "+49"}}, True),
        ({"from_number": {"prefix": "49"}}, False),
        ({"from_number": {"suffix": "456"}}, True),
        ({"metadata.company_id": {"prefix": "4"}}, False),
        ({"metadata.company_id": {"suffix": "2"}}, False),
        ({"from_number": {"regex": r"\+49\d+"}}, True),
        ({"from_number": {"regex": r"49"}}, False),  # the whole text, not a part
        ({"metadata.company_id": {"regex": "42"}}, False),
        # presence
        ({"agent_id": {"exists": True}}, True),
        ({"agent_id": {"exists": False}}, False),
        ({"metadata.absent": {"exists": False}}, True),
        ({"metadata.absent": {"exists": True}}, False),
        ({"metadata.empty": {"exists": True}}, True),
        ({"metadata.zero": {"exists": True}}, True),
        # not, and several tests of one field
        ({"agent_id": {"not": "x"}}, True),
        ({"agent_id": {"not": {"prefix": "agent_"}}}, False),
        ({"metadata.absent": {"not": "x"}}, True),
        ({"agent_id": {"prefix": "agent_", "suffix": "ing"}}, True),
        ({"agent_id": {"prefix": "agent_", "suffix": "live"}}, False),
        # groups
        ({"agent_id": "agent_staging", "direction": "inbound"}, True),
        ({"agent_id": "agent_staging", "direction": "outbound"}, False),
        ({"any": [{"direction": "outbound"}, {"tool": "book_appointment"}]}, True),
        ({"any": [{"direction": "outbound"}, {"tool": "x"}]}, False),
        ({"any": [{"direction": "inbound"}]}, True),
        ({"all": [{"direction": "inbound"}, {"tool": "x"}]}, False),
        ({"all": [{"direction": "inbound"}, {"tool": {"exists": True}}]}, True),
        ({"not": {"direction": "outbound"}}, True),
        ({"not": {"direction": "inbound", "tool": "x"}}, True),
        ({"header.X-Test": "1"}, True),  # header names have no case
        ({"HEADER.x-test": "1"}, True),
    ],
)
def test_a_when_means_what_it_says(when: dict[str, Any], expected: bool) -> None:
    assert faults(when) == []
    assert compile_when(when)(CALL) is expected


def test_a_pattern_is_not_tried_on_a_long_text() -> None:
    holds = compile_when({"agent_id": {"regex": "a*"}})

    assert holds({"agent_id": "a" * MAX_SUBJECT})
    assert not holds({"agent_id": "a" * (MAX_SUBJECT + 1)})


SCALARS = st.text(max_size=3) | st.integers(-2, 2) | st.booleans() | st.sampled_from([0.0, 1.0])


@given(SCALARS, SCALARS)
def test_in_agrees_with_equality(written: Any, found: Any) -> None:
    fields = {"metadata.x": found}
    equal = compile_when({"metadata.x": written})(fields)

    assert compile_when({"metadata.x": {"in": [written]}})(fields) is equal
    assert compile_when({"metadata.x": {"not": written}})(fields) is not equal
    same_sort = isinstance(written, str) is isinstance(found, str) and (
        isinstance(written, bool) is isinstance(found, bool)
    )
    assert equal is (same_sort and written == found)
