from __future__ import annotations

import json
from typing import Any

import typer
from typer.testing import CliRunner

from proxy.cli.status import status
from tests.fakes import FakeAdmin

PAGE: dict[str, Any] = {
    "version": "0.1.0",
    "started_at": "2026-01-01T00:00:00.000Z",
    "split": {
        "to": "mcp", "otherwise": "webhook", "percent": 25.0, "cap": 100.0, "kill_switch": False,
        "actual_percent": 24.6,
    },
    "inflight": 3,
    "connections": 7,
    "state": "memory",
    "rules": {
        "digest": "ab12", "path": "rules/rules.yaml", "taken_at": "now", "fault": None,
        "warnings": ["split.salt: no secret is set"],
    },
    "arms": {
        "mcp": {
            "handler": "mcp", "url": "http://mcp.test", "live_calls": 4, "busy": 1, "idle": 2,
            "health": {"ok": False, "at": "noon", "detail": "refused"},
            "breaker": {"state": "closed", "reopens_in": None},
        },
        "webhook": {
            "handler": "webhook", "url": "http://127.0.0.1:8000/hook", "live_calls": 9, "busy": 0,
            "idle": 1, "health": None, "breaker": {"state": "closed", "reopens_in": None},
        },
        "spare": {
            "handler": "demo", "url": None, "live_calls": 0, "busy": 0, "idle": 0,
            "health": {"ok": True, "at": "noon", "detail": ""},
            "breaker": {"state": "closed", "reopens_in": None},
        },
    },
}  # fmt: skip


def app() -> typer.Typer:
    built = typer.Typer()
    built.command()(status)
    return built


def run(page: dict[str, Any], *arguments: str) -> str:
    with FakeAdmin({"/status": (200, page)}) as admin:
        result = CliRunner(env={"COLUMNS": "200"}).invoke(app(), ["--admin", admin.url, *arguments])
    assert result.exit_code == 0
    return result.stdout


def test_the_page_tells_share_arms_and_rules() -> None:
    out = run(PAGE)

    for fact in ("25 % to mcp", "24.6 %", "ab12", "not probed", "9", "demo"):
        assert fact in out
    assert "unwell noon: refused" in out


def test_what_is_worth_a_look_in_the_rules_stands_there_too() -> None:
    assert "split.salt: no secret is set" in run(PAGE)


def test_a_certificate_that_could_not_be_taken_stands_there_too() -> None:
    fault = "listen.tls.key_file: /run/tls.key is not the key of /run/tls.crt"
    fine = {"key": "backends.mcp.tls", "fault": None}

    out = run({**PAGE, "certificates": [{"key": "listen.tls", "fault": fault}, fine]})

    assert f"the old certificate stays: {fault}" in out
    assert out.count("the old certificate stays") == 1


def test_the_kill_switch_cannot_be_overlooked() -> None:
    out = run({**PAGE, "split": {**PAGE["split"], "kill_switch": True}})

    assert "ON: no call reaches mcp" in out


def test_json_is_the_admins_own_page() -> None:
    assert json.loads(run(PAGE, "-o", "json")) == PAGE


def test_the_age_of_secrets_is_told_where_it_is_known() -> None:
    secret = {"key": "auth.tokens.0", "ref": "env:T", "since": "2026-01-31", "age_days": 91}

    assert "auth.tokens.0 (env:T) in use for 91 days" in run(PAGE | {"secrets": [secret]})
    assert "in use for" not in run(PAGE)
