from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from proxy.adapters.rules_file import digest_of, load_rules, parse_rules
from proxy.cli.rules import rules_app
from proxy.core.rules.reference import reference
from proxy.core.rules.schema import rules_schema

RULES = """\
backends:
  mcp: {handler: mcp, url: "http://127.0.0.1:8000/mcp"}
  webhook: {handler: webhook, url: "http://127.0.0.1:8000/hook", sign: "env:KEY?"}
split:
  percent: ${SHARE:-0}
"""


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("CALLSPLIT_", "MCP_")):
            monkeypatch.delenv(name)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "rules.yaml").write_text(RULES)
    return tmp_path / "rules.yaml"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(rules_app, [str(argument) for argument in arguments])


def test_fine_rules_leave_stdout_empty_and_exit_0(path: Path) -> None:
    result = run("check", path)

    assert result.exit_code == 0
    assert result.stdout == ""
    assert "is fine" in result.stderr


def test_faults_go_to_stdout_with_their_place_and_exit_1(path: Path) -> None:
    path.write_text(RULES + "rolout: {}\n")
    result = run("check", path)

    assert result.exit_code == 1
    assert f"{path}:6:1: rolout: unknown key 'rolout'" in result.stdout
    assert "did you mean 'rollout'?" in result.stdout
    assert result.stderr == "1 fault(s)\n"


def test_what_would_not_start_here_is_told_unless_only_the_file_is_asked_about(path: Path) -> None:
    path.write_text(RULES + "auth: {tokens: [env:MCP_TOKEN?], require: {mcp: [token]}}\n")

    result = run("check", path)
    assert result.exit_code == 1
    assert "auth.require.mcp: needs token" in result.stdout
    assert run("check", "--file-only", path).exit_code == 0


def test_a_handler_that_is_not_there_is_told_unless_only_the_file_is_asked_about(
    path: Path,
) -> None:
    path.write_text(RULES.replace("handler: mcp", "handler: mpc"))

    result = run("check", path)
    assert result.exit_code == 1
    assert "backends.mcp.handler: there is no backend 'mpc' (did you mean 'mcp'?)" in result.stdout
    assert run("check", "--file-only", path).exit_code == 0


def test_the_environment_counts(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHARE", "many")

    assert run("check", path).exit_code == 1


def test_notes_are_told_but_stop_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCP_SHAER", "1")
    monkeypatch.setenv("SHARE", "10")
    path.write_text(RULES + "rollout: {every: 1m}\n")
    result = run("check", path)

    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "warning: MCP_SHAER is set, but nothing reads it",
        "not yet in force: rollout",
        "warning: split.salt: no secret is set, so call IDs can be crafted to reach one arm",
    ]


def test_the_rules_are_found_without_a_path(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALLSPLIT_RULES", str(path))
    assert run("check").exit_code == 0

    monkeypatch.delenv("CALLSPLIT_RULES")
    monkeypatch.chdir(path.parent)
    result = run("check")
    assert result.exit_code == 1
    assert result.stdout == "rules/rules.yaml: cannot be read: no such file or directory\n"


def test_an_env_file_fills_in_and_a_faulty_one_is_wrong_usage(path: Path, tmp_path: Path) -> None:
    (tmp_path / "a.env").write_text("SHARE=25\n")
    shown = run("show", path, "--env-file", tmp_path / "a.env", "-o", "json")
    assert json.loads(shown.stdout)["split"]["percent"] == 25

    result = run("check", path, "--env-file", tmp_path / "nothing")
    assert result.exit_code == 2
    assert "no such file" in result.stderr


def test_an_unknown_option_is_wrong_usage() -> None:
    assert run("check", "--nope").exit_code == 2


@pytest.mark.parametrize("form", ["yaml", "json"])
def test_what_is_shown_are_rules_that_mean_the_same(path: Path, form: str) -> None:
    result = run("show", path, "-o", form)
    again = parse_rules(result.stdout.encode(), {}, path=path)

    assert result.exit_code == 0
    assert again.digest == load_rules(path, {}).digest


def test_secrets_are_shown_as_references(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KEY", "hunter2")
    result = run("show", path)

    assert "hunter2" not in result.output
    assert yaml.safe_load(result.stdout)["backends"]["webhook"]["sign"] == "env:KEY?"


def test_faulty_rules_cannot_be_shown(path: Path) -> None:
    path.write_text("a: [")

    assert run("show", path).exit_code == 1


def test_the_schema_is_printed() -> None:
    assert json.loads(run("schema").stdout) == rules_schema()


def test_the_reference_is_printed_or_written(tmp_path: Path) -> None:
    assert run("reference").stdout == reference()
    readme = tmp_path / "README.md"
    readme.write_text("<!-- reference: generated by `callsplit rules reference`, do not edit -->\n"
                      "<!-- end of reference -->\n")  # fmt: skip

    assert run("reference", "--into", readme).exit_code == 0
    assert reference() in readme.read_text()


def test_the_digest_is_the_one_that_the_sidecar_shows(path: Path) -> None:
    loaded = load_rules(path, {})

    assert digest_of(loaded.rules) in run("check", path).stderr
