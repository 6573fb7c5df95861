from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from proxy.cli.breaker import breaker_app
from tests.fakes import FakeAdmin

BREAKERS = {
    "mcp": {
        "state": "open", "failures": 5, "reopens_in": 41.6,
        "last": {"why": "failures", "at": "noon"},
    },
    "webhook": {"state": "closed", "failures": 0, "reopens_in": None, "last": None},
}  # fmt: skip


@pytest.fixture
def runner() -> CliRunner:
    return CliRunner()


def test_status_tells_every_arm_in_words(runner: CliRunner) -> None:
    with FakeAdmin({"/breakers": (200, BREAKERS)}) as admin:
        result = runner.invoke(breaker_app, ["status", "--admin", admin.url])

    assert result.exit_code == 0
    assert "open for 42 s more" in result.stdout
    assert "failures, noon" in result.stdout
    assert "webhook" in result.stdout


def test_status_of_one_arm_as_json(runner: CliRunner) -> None:
    with FakeAdmin({"/breakers": (200, BREAKERS)}) as admin:
        result = runner.invoke(
            breaker_app, ["status", "--service", "mcp", "-o", "json", "--admin", admin.url]
        )

    assert list(json.loads(result.stdout)) == ["mcp"]


def test_an_unknown_arm_is_a_usage_error_that_names_the_known_ones(runner: CliRunner) -> None:
    with FakeAdmin({"/breakers": (200, BREAKERS)}) as admin:
        result = runner.invoke(breaker_app, ["status", "--service", "x", "--admin", admin.url])

    assert result.exit_code == 2
    assert "mcp, webhook" in result.stderr


def test_status_shows_the_breakers_of_tools_and_what_the_window_shows(runner: CliRunner) -> None:
    window = {"volume": 40, "failure_rate": 12.5, "slow_rate": None}
    both = {"volume": 8, "failure_rate": 50.0, "slow_rate": 25.0}
    slots = {"state": "half_open", "failures": 1, "window": both, "last": None}
    page = {"mcp": {**BREAKERS["mcp"], "window": window, "tools": {"get_slots": slots}}}
    with FakeAdmin({"/breakers": (200, page)}) as admin:
        result = runner.invoke(breaker_app, ["status", "--admin", admin.url])

    said = " ".join(result.stdout.split())
    assert "12 % failed of 40" in said
    assert "mcp get_slots half_open 1 50 % failed, 25 % slow of 8" in said


@pytest.mark.parametrize("action", ["reset", "open", "close", "metrics-only"])
def test_a_change_may_concern_one_tool_only(runner: CliRunner, action: str) -> None:
    change = {"before": "open", "after": "closed"}
    with FakeAdmin({f"/breakers/mcp/{action}": (200, change)}) as admin:
        result = runner.invoke(
            breaker_app, [action, "mcp", "--tool", "get_slots", "--admin", admin.url]
        )

    assert result.stdout == "mcp get_slots: open -> closed\n"
    assert admin.asked == [("POST", f"/breakers/mcp/{action}?reason=&tool=get_slots", "")]


@pytest.mark.parametrize("action", ["reset", "open", "close", "metrics-only"])
def test_a_change_is_posted_with_its_reason(runner: CliRunner, action: str) -> None:
    change = {"before": "open", "after": "closed"}
    with FakeAdmin({f"/breakers/mcp/{action}": (200, change)}) as admin:
        result = runner.invoke(
            breaker_app, [action, "mcp", "--reason", "fixed", "--admin", admin.url]
        )

    assert result.stdout == "mcp: open -> closed\n"
    assert admin.asked == [("POST", f"/breakers/mcp/{action}?reason=fixed", "")]
