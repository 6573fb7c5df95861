from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from proxy.core.rules import Rules
from proxy.core.rules.finding import Finding
from proxy.core.rules.wording import finding_of
from tests.rules_kit import document


def finding(**sections: Any) -> Finding:
    with pytest.raises(ValidationError) as caught:
        Rules.model_validate(document(**sections))
    (detail,) = caught.value.errors(include_url=False)
    return finding_of(detail)


@pytest.mark.parametrize(
    ("sections", "path", "message"),
    [
        ({"limits": {"tools_per_minute": "100"}}, "limits.tools_per_minute",
         "expected a whole number, got the text '100'"),
        ({"limits": {"tools_per_minute": 1.5}}, "limits.tools_per_minute",
         "expected a whole number, got the number 1.5"),
        ({"limits": {"tools_per_minute": True}}, "limits.tools_per_minute",
         "expected a whole number, got true"),
        ({"limits": {"tools_per_minute": 0}}, "limits.tools_per_minute",
         "must be at least 1, got the number 0"),
        ({"limits": {"burst": 0}}, "limits.burst", "must be more than 0, got the number 0"),
        ({"limits": {"burst": 5000}}, "limits.burst", "must be at most 1000, got the number 5000"),
        ({"limits": {"burst": "x"}}, "limits.burst", "expected a number, got the text 'x'"),
        ({"limits": {"burst": float("inf")}}, "limits.burst",
         "expected a finite number, got the number inf"),
        ({"split": {"enabled": "no"}}, "split.enabled",
         "expected true or false, got the text 'no'"),
        ({"state_dir": 5}, "state_dir", "expected text, got the number 5"),
        ({"fallback": None}, "fallback", "expected a mapping, got nothing (null)"),
        ({"tools": []}, "tools", "expected a mapping, got a list"),
        ({"split": {"overrides": {}}}, "split.overrides", "expected a list, got a mapping"),
        ({"version": 2}, "version", "expected 1, got the number 2"),
        ({"listen": {"body_limit": "10"}}, "listen.body_limit",
         "'10' lacks a unit: B, kB, MB or GB"),
    ],
)  # fmt: skip
def test_a_fault_reads_like_a_sentence(sections: dict[str, Any], path: str, message: str) -> None:
    found = finding(**sections)

    assert (found.dotted, found.message) == (path, message)
    assert not found.at_key


@pytest.mark.parametrize(
    ("sections", "hint"),
    [
        ({"rolout": {}}, "did you mean 'rollout'?"),
        ({"percent": 5}, "that key belongs at split.percent"),
        ({"metrics": {"qqq": 1}}, "known here: enabled, namespace"),
    ],
)
def test_an_unknown_key_is_told_where_it_belongs(sections: dict[str, Any], hint: str) -> None:
    found = finding(**sections)

    assert found.at_key
    assert found.message.startswith("unknown key")
    assert found.hint == hint


@pytest.mark.parametrize(
    ("sections", "hint"),
    [
        ({"split": {"enabled": "Off"}}, "write false: yes, no, on and off are texts in YAML 1.2"),
        ({"split": {"enabled": "yes"}}, "write true: yes, no, on and off are texts in YAML 1.2"),
        ({"split": {"enabled": "maybe"}}, ""),
        ({"limits": {"tools_per_minute": "100"}}, "take the quotes away"),
        ({"limits": {"burst": "1.5"}}, "take the quotes away"),
        ({"limits": {"burst": "1.5.5"}}, ""),
        ({"limits": None}, "leave the key out, or write {} or [] for nothing"),
    ],
)
def test_a_common_slip_has_a_way_out(sections: dict[str, Any], hint: str) -> None:
    assert finding(**sections).hint == hint


def test_a_fault_in_a_key_points_at_the_key() -> None:
    found = finding(auth={"require": {"functoin": ["token"]}})

    assert found == Finding(
        ("auth", "require", "functoin"),
        "the text 'functoin' is no kind",
        "did you mean 'function'?",
        at_key=True,
    )


def test_a_missing_key_is_told_with_its_meaning() -> None:
    found = finding(backends={"mcp": {}})

    assert found.message == "'handler' is missing"
    assert "webhook" in found.hint


def test_a_secret_in_the_wrong_place_is_marked() -> None:
    found = finding(auth={"tokens": ["hunter2"]})

    assert found.secret
    assert "hunter2" not in f"{found.message}{found.hint}"


def test_what_pydantic_alone_would_say_still_names_the_value() -> None:
    detail = {"type": "new_sort", "loc": ("a",), "msg": "Is odd", "input": 5}

    assert finding_of(detail).message == "Is odd, got the number 5"


def test_a_key_missing_where_no_section_stands_has_no_hint() -> None:
    assert finding_of({"type": "missing", "loc": ("x", "y"), "msg": "", "input": {}}).hint == ""
