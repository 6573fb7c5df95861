from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from proxy.core.rules.schema import rules_schema
from tests.rules_kit import document

COMMITTED = Path(__file__).parents[3] / "rules" / "rules.schema.json"
VALIDATOR = Draft202012Validator(rules_schema())


def fits(written: Any) -> bool:
    return bool(VALIDATOR.is_valid(written))


def test_the_committed_schema_is_current() -> None:
    """If not: callsplit rules schema > rules/rules.schema.json."""
    assert json.loads(COMMITTED.read_text()) == rules_schema()


def test_it_is_a_schema() -> None:
    Draft202012Validator.check_schema(rules_schema())


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"split": {"percent": "${MCP_ROLLOUT_PERCENTAGE:-0}", "enabled": "${A:-true}"}},
        {"limits": {"tools_per_minute": "${A:-1}", "ip_per_minute": None}},
        {"listen": {"body_limit": "${A:-10}MB", "idle_timeout": "5 s"}},
        {"split": {"percent": "12.5%"}},
        {"auth": {"require": {"mcp": "none", "args": {"all": ["token"]}}}},
        {"tools": {"book": {"say": {"de": "Nein."}, "effect": "idempotent"}}},
        {"admin": {"token": {"ref": "env:A?", "since": "2026-01-31"}}},
    ],
)
def test_an_editor_accepts_what_the_loader_accepts(sections: dict[str, Any]) -> None:
    assert fits(document(**sections))


@pytest.mark.parametrize(
    "sections",
    [
        {"rolout": {}},
        {"split": {"percent": 101}},
        {"split": {"enabled": "no"}},
        {"listen": {"body_limit": 10}},
        {"listen": {"idle_timeout": "5min"}},
        {"auth": {"tokens": ["hunter2"]}},
        {"auth": {"require": {"mcp": ["tokn"]}}},
        {"tools": {"book": {"effect": "writ"}}},
        {"backends": {"mcp": {"handler": "mcp", "not_executed": [200]}}},
        {"version": 2},
    ],
)
def test_an_editor_marks_what_the_loader_refuses(sections: dict[str, Any]) -> None:
    assert not fits(document(**sections))


def test_hovers_show_meaning_and_default_as_ops_write_it() -> None:
    breaker = rules_schema()["$defs"]["Breaker"]["properties"]

    assert breaker["open_for"]["default"] == "1m"
    assert breaker["failures"]["description"] == "Failures in a row that open it."
