from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.rules.check import MAX_FAULTS, check
from proxy.core.rules.shape import keys
from tests.rules_kit import document


def told(written: object) -> list[str]:
    rules, findings = check(written)
    assert rules is None
    return [finding.dotted for finding in findings]


def test_fine_rules_come_back() -> None:
    rules, findings = check(document())

    assert rules is not None
    assert findings == []


def test_a_warning_does_not_stop_the_rules() -> None:
    rules, findings = check(document(tools={"book": {"stale_if_error": "1m"}}))

    assert rules is not None
    assert [finding.warning for finding in findings] == [True]


def test_a_contradiction_stops_the_rules() -> None:
    assert told(document(split={"to": "mpc"})) == ["split.to"]


def test_faults_of_every_sort_are_told_at_once() -> None:
    written = document(
        split={"to": "mpc", "percent": "many", "overrides": [5, {"when": {"x": 1}, "percent": 5}]},
        rolout={},
        tools={"book": {"effect": "writ", "invalidates": [5, "slots"], "names": {"mpc": "b"}}},
        auth={"tokens": ["hunter2"]},
    )

    assert set(told(written)) == {
        "split.to",
        "split.percent",
        "split.overrides.0",
        "split.overrides.1.when.x",
        "rolout",
        "tools.book.effect",
        "tools.book.invalidates.0",
        "tools.book.invalidates.1",
        "tools.book.names.mpc",
        "auth.tokens.0",
    }


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        # A faulty name of an arm is no second fault about the arms.
        (document(split={"to": 5}), ["split.to"]),
        # A faulty backend is still a backend.
        (document(backends={"mcp": 5, "webhook": {"handler": "demo"}}), ["backends.mcp"]),
        # A faulty url is not also a missing one.
        (
            document(backends=document()["backends"] | {"x": {"handler": "mcp", "url": 5}}),
            ["backends.x.url"],
        ),
        # A faulty `to` of an override is not also a missing one.
        (
            document(split={"overrides": [{"when": {"agent_id": "a"}, "to": 5}]}),
            ["split.overrides.0.to"],
        ),
        # An unknown key in a backend's place of names.
        (document(tools={"bad name": {}}), ["tools.bad name"]),
        # Lists whose items are not looked at together.
        (document(auth={"allow": ["x", "y"]}), ["auth.allow.0", "auth.allow.1"]),
    ],
)
def test_one_fault_throws_no_shadow(written: dict[str, Any], expected: list[str]) -> None:
    assert told(written) == expected


def test_a_faulty_verdict_hides_neither_its_neighbours_nor_what_follows() -> None:
    written = document()
    written["backends"]["mcp"]["body_verdicts"] = [
        5,
        {"when": {"a": 1}, "verdict": "odd"},
        {"when": {}, "verdict": "failed"},
        {"verdict": "failed"},
    ]
    written["backends"]["mcp"]["health"] = {"probe": "zzz"}

    assert set(told(written)) == {
        "backends.mcp.body_verdicts.0",
        "backends.mcp.body_verdicts.1.verdict",
        "backends.mcp.body_verdicts.2.when",
        "backends.mcp.body_verdicts.3.when",
        "backends.mcp.health.probe",
    }


def test_required_keys_that_are_missing_hide_nothing() -> None:
    written = document(split={"otherwise": "webhok", "overrides": [{"percent": 5}]})
    written["backends"]["extra"] = {}

    assert set(told(written)) == {
        "backends.extra.handler",
        "split.overrides.0.when",
        "split.otherwise",
    }


@pytest.mark.parametrize("written", [None, 5, "text", [], {}, {"backends": 5}, {"backends": None}])
def test_a_document_without_backends_is_one_fault(written: object) -> None:
    assert told(written) in ([""], ["backends"])


def test_a_fault_that_cannot_be_mended_leaves_the_others_told() -> None:
    """A section of the wrong sort within a list of the wrong sort: no stand-in fits."""
    written = document(split={"force": {"header": 5, "token": 5, "x": 1}}, listen=[])

    assert {"listen", "split.force.header", "split.force.x"} <= set(told(written))


def test_the_number_of_faults_is_bounded() -> None:
    """Each costs a search for what was meant."""
    written = document(**{f"key{number}": 1 for number in range(10_000)})

    assert len(told(written)) == MAX_FAULTS


def test_the_document_is_left_as_it_was() -> None:
    written = document(split={"to": 5, "overrides": [5]})
    before = repr(written)

    told(written)

    assert repr(written) == before


NAMES = sorted({part for key in keys() for part in re.split(r"[.<>\[\]]+", key.path) if part})
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
KNOWN = st.sampled_from(["mcp", "webhook", "read", "env:A", "1s", "1MB", "token", "/x", "default"])
VALUES = st.recursive(
    SCALARS | KNOWN,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(NAMES) | KNOWN, inner, max_size=4)
    ),
    max_leaves=20,
)


@given(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=6), st.booleans())
def test_no_document_is_too_odd_to_judge(sections: dict[str, Any], whole: bool) -> None:
    rules, findings = check(document(**sections) if whole else sections)

    assert (rules is None) == any(not finding.warning for finding in findings)
    assert all(finding.message for finding in findings)
