"""What does not fit together within one backend."""

from __future__ import annotations

from typing import Any

import pytest

from proxy.core.rules.cross_arm import of_arms_own
from proxy.core.rules.finding import Finding
from tests.rules_kit import document, rules

TOOLS = {
    "default": {"effect": "write"},
    "get_slots": {"effect": "read"},
    "book": {},
    "confirm": {"effect": "idempotent"},
}


def found(arm: str = "mcp", tools: Any = TOOLS, **keys: Any) -> list[Finding]:
    backends = document()["backends"]
    backends[arm] = {**backends[arm], **keys}
    return list(of_arms_own(rules(backends=backends, tools=tools)))


def told(arm: str = "mcp", **keys: Any) -> list[tuple[str, bool]]:
    return [(one.dotted, one.warning) for one in found(arm, **keys)]


def test_the_smallest_rules_fit_together() -> None:
    assert list(of_arms_own(rules())) == []


FINE: list[dict[str, Any]] = [
    {"breaker": {"failure_rate": "50%", "window": "10s", "min_volume": 5}},
    {"breaker": {"slow": "1s", "slow_rate": 50, "window": "10s", "min_volume": 5}},
    {"breaker": {"open_for": "15m"}},
    {"breaker": {"open_for": "15m", "open_max": "15m"}},
    {"breaker": {"per_tool": True}},
    {"breaker": {"slow": "1s"}, "timeout": "2s"},
    {"body_verdicts": [{"when": {"error.code": {"in": [1, "a"]}}, "verdict": "failed"}]},
    {"health": {"path": "/health", "expect": {"status": ["healthy", "ok"]}, "timeout": "1s"}},
    {"health": {"probe": "tools/list"}},
    {"health": {"probe": "server/discover"}},
    {"health": {"probe": "get_slots", "arguments": {"date": "tomorrow"}}},
    {"health": {}},
]


@pytest.mark.parametrize("keys", FINE, ids=str)
def test_what_makes_sense_is_not_told(keys: dict[str, Any]) -> None:
    assert found(**keys) == []


@pytest.mark.parametrize(
    ("keys", "path"),
    [
        ({"breaker": {"slow_rate": 50}}, "breaker.slow_rate"),
        ({"breaker": {"window": "10s"}}, "breaker.window"),
        ({"breaker": {"min_volume": 10}}, "breaker.min_volume"),
        ({"breaker": {"slow": "2s"}, "timeout": "2s"}, "breaker.slow"),
        ({"breaker": {"per_tool": True}, "tools": {"default": {}}}, "breaker.per_tool"),
    ],
    ids=str,
)
def test_what_has_no_effect_is_warned_about(keys: dict[str, Any], path: str) -> None:
    assert told(**keys) == [(f"backends.mcp.{path}", True)]


@pytest.mark.parametrize(
    ("keys", "path"),
    [
        ({"breaker": {"open_for": "60s", "open_max": "30s"}}, "breaker.open_max"),
        ({"breaker": {"open_max": "30s"}}, "breaker.open_max"),
        ({"health": {"expect": {"status": "ok"}}}, "health.expect"),
        ({"health": {"path": "/h", "expect": {}}}, "health.expect"),
        ({"health": {"path": "/h", "expect": {"a": [None]}}}, "health.expect.a.in.0"),
        ({"health": {"path": "/h", "probe": "tools/list"}}, "health.probe"),
        ({"health": {"probe": "book"}}, "health.probe"),
        ({"health": {"probe": "confirm"}}, "health.probe"),
        ({"health": {"probe": "default"}}, "health.probe"),
        ({"health": {"probe": "tools/lst"}}, "health.probe"),
        ({"health": {"probe": "tools/list", "arguments": {}}}, "health.arguments"),
        ({"health": {"arguments": {}}}, "health.arguments"),
        ({"health": {"probe": "get_slots"}, "url": "http://127.0.0.1:1"}, "health.probe"),
    ],
    ids=str,
)
def test_what_cannot_work_is_a_fault(keys: dict[str, Any], path: str) -> None:
    assert told(**keys) == [(f"backends.mcp.{path}", False)]


def test_every_condition_of_every_verdict_is_looked_at() -> None:
    wrong = [
        {"when": {"a": 1}, "verdict": "failed"},
        {"when": {}, "verdict": "failed"},
        {"when": {"a": {"regex": "("}, "b": None}, "verdict": "business_no"},
    ]

    assert [path for path, _ in told(body_verdicts=wrong)] == [
        "backends.mcp.body_verdicts.1.when",
        "backends.mcp.body_verdicts.2.when.a.regex",
        "backends.mcp.body_verdicts.2.when.b",
    ]


@pytest.mark.parametrize(
    ("handler", "known"),
    [
        ("mcp", "server/discover, tools/list, get_slots, book, confirm"),
        ("webhook", "get_slots, book, confirm"),
    ],
)
def test_an_unknown_probe_is_told_what_there_is(handler: str, known: str) -> None:
    (finding,) = found(handler=handler, health={"probe": "zzz"})

    assert finding.message == f"'zzz' is neither a tool of the rules nor a probe of {handler}"
    assert finding.hint == f"known here: {known}"
    (finding,) = found(handler=handler, health={"probe": "get_slot"})
    assert finding.hint == "did you mean 'get_slots'?"


def test_where_there_is_nothing_to_probe_with_that_is_said() -> None:
    (finding,) = found("webhook", tools={}, health={"probe": "zzz"})

    assert finding.hint == "known here: no probe"


def test_a_handler_of_ones_own_may_have_probes_of_its_own() -> None:
    assert found(handler="mine", health={"probe": "deep"}) == []
    assert found(handler="mine", url=None, health={"probe": "get_slots"}) == []


def test_a_webhook_that_is_asked_by_kind_can_be_probed_at_the_path_of_functions() -> None:
    keys: dict[str, Any] = {"url": "http://127.0.0.1:1", "health": {"probe": "get_slots"}}

    assert told("webhook", **keys) == [("backends.webhook.health.probe", False)]
    assert told("webhook", paths={"event": "/e"}, **keys) == [
        ("backends.webhook.health.probe", False)
    ]
    assert told("webhook", paths={"function": "/f"}, **keys) == []
