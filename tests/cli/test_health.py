from __future__ import annotations

import json
from typing import Any

import typer
from typer.testing import CliRunner, Result

from proxy.cli.health import health
from tests.fakes import FakeAdmin

CLOSED = {"state": "closed", "last": None}
OPEN = {"state": "open", "reopens_in": 41.6, "last": {"why": "failures", "at": "noon"}}
FORCED = {"state": "forced_open", "last": {"why": "operator", "at": "noon"}}
UNWELL = {"ok": False, "at": "noon", "detail": "connect: connection refused"}
READY: dict[str, tuple[int, Any]] = {
    "/live": (200, {"live": True}),
    "/ready": (200, {"ready": True, "reasons": []}),
    "/status": (200, {}),
}


def ready(
    mcp: dict[str, Any] = CLOSED, *, health: Any = None, fault: str | None = None
) -> dict[str, tuple[int, Any]]:
    arms = {
        "mcp": {"breaker": mcp, "health": health},
        "webhook": {"breaker": CLOSED, "health": {**UNWELL, "ok": True}},
    }
    return {**READY, "/status": (200, {"rules": {"fault": fault}, "arms": arms})}


def run(pages: dict[str, tuple[int, Any]], *arguments: str) -> Result:
    app = typer.Typer()
    app.command()(health)
    with FakeAdmin(pages) as admin:
        return CliRunner(env={"COLUMNS": "200"}).invoke(app, ["--admin", admin.url, *arguments])


def test_healthy_is_exit_0() -> None:
    result = run(ready())

    assert result.exit_code == 0
    assert "in force" in result.stdout
    assert "breaker webhook" in result.stdout


def test_an_open_breaker_is_a_warning_because_the_other_arm_answers() -> None:
    result = run(ready(OPEN))

    assert result.exit_code == 1
    assert "open for 42 s more" in result.stdout
    assert "failures, noon" in result.stdout


def test_an_operators_own_breaker_is_a_warning_with_the_way_back() -> None:
    result = run(ready(FORCED))

    assert result.exit_code == 1
    assert "callsplit breaker reset mcp" in result.stdout


def test_an_arm_whose_probes_fail_is_a_warning_with_the_cause() -> None:
    result = run(ready(health=UNWELL))

    assert result.exit_code == 1
    assert "connection refused, noon" in result.stdout


def test_rules_that_were_refused_are_a_warning_with_the_fault() -> None:
    result = run(ready(fault="rules.yaml:4:18: split.percent: must lie between 0 and 100"))

    assert result.exit_code == 1
    assert "rules.yaml:4:18" in result.stdout


def test_not_ready_is_critical_with_the_reason() -> None:
    result = run(
        {**READY, "/ready": (503, {"ready": False, "reasons": ["draining"]})}, "-o", "json"
    )

    assert result.exit_code == 2
    assert json.loads(result.stdout) == [{"check": "ready", "result": "no", "hint": "draining"}]


def test_live_asks_nothing_but_the_process() -> None:
    assert run({"/live": (200, {})}, "--live").exit_code == 0
    assert run({}, "--live").exit_code == 2


def test_nobody_there_is_critical_and_says_how_to_start_it() -> None:
    app = typer.Typer()
    app.command()(health)
    with FakeAdmin({}) as admin:
        url = admin.url
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["--admin", url])

    assert result.exit_code == 2
    assert "callsplit serve" in result.stdout


def test_waiting_ends_as_soon_as_it_is_ready() -> None:
    """Ready, not without a warning: a breaker may stay open for long."""
    assert run(ready(), "--wait", "30").exit_code == 0
    assert run(ready(OPEN), "--wait", "3600").exit_code == 1


def test_waiting_gives_up_in_the_end() -> None:
    assert (
        run({**READY, "/ready": (503, {"reasons": ["starting"]})}, "--wait", "0.3").exit_code == 2
    )
