from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner, Result

from proxy.cli.explain import MAX_BODY, explain
from proxy.core.split import call_hash
from tests.fakes import FakeAdmin

RULES = """\
version: 1
listen: {address: 127.0.0.1:8080}
split:
  percent: 10
  salt: env:SALT?
  overrides:
    - {when: {agent_id: agent_staging}, to: mcp, test: true}
    - {when: {metadata.company_id: {in: [42]}}, percent: 50}
backends:
  mcp: {handler: mcp, url: http://127.0.0.1:8000/mcp}
  webhook: {handler: webhook, url: http://127.0.0.1:8000/hook}
"""
STARTED: dict[str, Any] = {
    "event": "call_started",
    "call": {"call_id": "call_a", "agent_id": "agent_staging", "start_timestamp": 1767225600000},
}


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "rules.yaml"
    path.write_text(RULES)
    return path


def run(*arguments: object, stdin: str | None = None, **environment: str) -> Result:
    app = typer.Typer()
    app.command()(explain)
    runner = CliRunner(env={"COLUMNS": "200", "SALT": "pepper", **environment})
    return runner.invoke(app, [str(each) for each in arguments], input=stdin)


def page(*arguments: object, **more: Any) -> dict[str, Any]:
    result = run(*arguments, "-o", "json", **more)
    assert result.exit_code == 0, result.output
    value: dict[str, Any] = json.loads(result.stdout)
    return value


def test_a_call_id_is_explained_by_the_rules_file(rules: Path) -> None:
    told = page("--call-id", "call_a", "--rules", rules)

    assert told["hashed"] == call_hash("call_a", "pepper")
    assert told["reason"] == "share"
    assert told["entry"]["percent"] == 10
    assert told["entry"]["why"] == str(rules)
    assert [step["percent"] for step in told["steps"]] == [10, 25, 50, 75, 100]


def test_the_rules_may_come_from_the_environment(rules: Path) -> None:
    assert page("--call-id", "call_a", CALLSPLIT_RULES=str(rules))["entry"]["percent"] == 10


def test_an_env_file_fills_the_rules(rules: Path, tmp_path: Path) -> None:
    env_file = tmp_path / "env"
    env_file.write_text("SHARE=33\n")
    rules.write_text(RULES.replace("percent: 10", "percent: ${SHARE}"))

    told = page("--call-id", "call_a", "--rules", rules, "--env-file", env_file)
    assert told["entry"]["percent"] == 33


def test_a_body_is_matched_against_the_overrides(rules: Path, tmp_path: Path) -> None:
    body = tmp_path / "body.json"
    body.write_text(json.dumps(STARTED))
    told = page("--body", body, "--rules", rules)

    assert (told["call_id"], told["arm"], told["reason"]) == ("call_a", "mcp", "override")
    assert told["judged_ms"] == 1767225600000
    assert page("--body", body, "--call-id", "call_b", "--rules", rules)["call_id"] == "call_b"


def test_a_body_may_come_from_stdin(rules: Path) -> None:
    told = page("--body", "-", "--rules", rules, stdin=json.dumps(STARTED))

    assert told["call_id"] == "call_a"


def test_another_share_can_be_tried(rules: Path) -> None:
    everybody = page("--call-id", "call_a", "--rules", rules, "--percent", "100")

    assert (everybody["arm"], everybody["entry"]["who"]) == ("mcp", "--percent")


def test_the_table_reads_without_knowing_the_json(rules: Path) -> None:
    body = json.dumps({**STARTED, "call": {**STARTED["call"], "agent_id": "x"}})
    out = run("--body", "-", "--rules", rules, stdin=body).stdout

    for fact in (
        "call_a",
        "of the share",
        "joins at",
        "mcp (test)",
        "agent_id is another",
        "metadata.company_id is absent",
        "the call's own start, 2026-01-01T00:00:00+00:00",
        "25 %",
    ):
        assert fact in out


def test_a_placeholder_is_shown_as_no_id(rules: Path) -> None:
    result = run("--call-id", "{{call_id}}", "--rules", rules)

    assert "no usable ID" in result.stdout
    assert "no_call_id" in result.stdout


def test_yaml_is_offered_too(rules: Path) -> None:
    result = run("--call-id", "call_a", "--rules", rules, "-o", "yaml")

    assert yaml.safe_load(result.stdout)["call_id"] == "call_a"


def test_a_salt_that_is_not_set_here_is_pointed_out(rules: Path) -> None:
    """Without it every hash is another than the sidecar's."""
    result = run("--call-id", "call_a", "--rules", rules, "-o", "json", SALT="")

    assert json.loads(result.stdout)["hashed"] == call_hash("call_a", "")
    assert "split.salt (env:SALT?) is not set here" in result.stderr


def test_a_plain_salt_needs_no_environment(rules: Path) -> None:
    rules.write_text(RULES.replace("env:SALT?", "'2026'"))
    result = run("--call-id", "call_a", "--rules", rules, "-o", "json")

    assert json.loads(result.stdout)["hashed"] == call_hash("call_a", "2026")
    assert result.stderr == ""


def test_a_salt_that_must_be_there_and_is_not_ends_it(rules: Path) -> None:
    rules.write_text(RULES.replace("env:SALT?", "env:SALT"))
    result = run("--call-id", "call_a", "--rules", rules, SALT="")

    assert result.exit_code == 1
    assert "env:SALT" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ([], "which call"),
        (["--call-id", "a", "--percent", "101"], "--percent"),
        (["--call-id", "a", "--percent", "nan"], "--percent"),
        (["--call-id", "a\udcff"], "no text"),
        (["--body", "/nonexistent.json"], "no such file"),
        (["--call-id", "a", "--admin", "http://127.0.0.1:1", "--percent", "5"], "--admin takes no"),
        (["--call-id", "a", "--env-file", "/nonexistent.env"], "env file"),
    ],
)
def test_wrong_usage_ends_with_2(rules: Path, arguments: list[str], part: str) -> None:
    more = [] if "--admin" in arguments else ["--rules", str(rules)]
    result = run(*arguments, *more)

    assert result.exit_code == 2
    assert part.lower() in result.stderr.lower()
    assert result.stdout == ""


def test_a_body_that_is_no_request_is_refused(rules: Path) -> None:
    result = run("--body", "-", "--rules", rules, stdin='{"secret": 1}')

    assert result.exit_code == 2
    assert "no request that Retell sends" in result.stderr
    assert "secret" not in result.stderr


def test_a_large_body_is_refused(rules: Path) -> None:
    result = run("--body", "-", "--rules", rules, stdin="x" * (MAX_BODY + 1))

    assert result.exit_code == 2
    assert "larger than 256 kB" in result.stderr


def test_faulty_rules_are_told_on_stderr(rules: Path) -> None:
    rules.write_text(RULES.replace("percent: 10", "percnt: 10"))
    result = run("--call-id", "call_a", "--rules", rules, "-o", "json")

    assert result.exit_code == 1
    assert "percnt" in result.stderr
    assert result.stdout == ""


RUNNING: dict[str, Any] = {
    "call_id": "call_a",
    "kind": "function",
    "arm": "mcp",
    "reason": "recorded",
    "because": "decided before, by share, and on record",
    "hashed": 5,
    "fraction": 0.0,
    "percent": 25.0,
    "threshold": 1073741824,
    "joins_at": 0.01,
    "judged_by": "the call's record",
    "judged_ms": None,
    "entry": {
        "epoch": 3, "at_ms": 1767225600000, "scope": "new_calls", "who": "ops", "why": "step",
        "to": "mcp", "otherwise": "webhook", "percent": 25.0, "cap": 100.0, "kill": True,
    },
    "record": {
        "arm": "mcp", "reason": "share", "start_ms": None, "seen_ms": 1767225600000, "ended": True,
    },
    "overrides": [],
    "steps": [],
}  # fmt: skip


def test_a_running_sidecar_is_asked_with_admin() -> None:
    with FakeAdmin({"/explain": (200, RUNNING)}) as admin:
        result = run("--call-id", "call a", "--admin", admin.url, "--admin-token", "hush")

    assert admin.asked == [("GET", "/explain?call_id=call+a", "Bearer hush")]
    assert result.exit_code == 0
    for fact in (
        "mcp by share, seen about 2026-01-01T00:00:00+00:00, ended",
        "3, since 2026-01-01T00:00:00+00:00 by ops: step",
        "kill switch ON",
        "the call's record",
    ):
        assert fact in result.stdout


def test_a_body_is_posted_to_it() -> None:
    with FakeAdmin({"/explain": (200, RUNNING)}) as admin:
        result = run("--body", "-", "--admin", admin.url, "-o", "json", stdin="{}")

    assert admin.asked == [("POST", "/explain", "")]
    assert json.loads(result.stdout) == RUNNING


def test_a_sidecar_that_refuses_is_quoted() -> None:
    refusal = {"error": {"code": "bad_body", "message": "This body is no request."}}
    with FakeAdmin({"/explain": (400, refusal)}) as admin:
        result = run("--body", "-", "--admin", admin.url, stdin="{}")

    assert result.exit_code == 1
    assert "This body is no request." in result.stderr
