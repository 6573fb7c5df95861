from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from proxy import __version__
from proxy.cli.main import app


def test_help_lists_every_command() -> None:
    out = CliRunner().invoke(app, ["--help"]).stdout

    for command in ("serve", "demo", "rules", "explain", "status", "health", "breaker"):
        assert command in out


@pytest.mark.parametrize("group", [[], ["rules"], ["breaker"]])
def test_no_commands_summary_is_cut_off(group: list[str]) -> None:
    out = CliRunner(env={"COLUMNS": "80"}).invoke(app, [*group, "--help"]).stdout

    assert "..." not in out.partition("Commands:")[2]


def test_the_version_is_told() -> None:
    assert CliRunner().invoke(app, ["--version"]).stdout == f"callsplit {__version__}\n"


def test_a_wrong_word_is_a_usage_error() -> None:
    assert CliRunner().invoke(app, ["explode"]).exit_code == 2


def test_asking_for_help_loads_nothing_heavy() -> None:
    """`callsplit --help` has 200 ms; aiohttp, redis or pydantic alone cost more."""
    code = (
        "import sys; import proxy.cli.main; "
        "print(sorted({'aiohttp', 'redis', 'pydantic', 'structlog', 'uvloop', 'yaml', "
        "'prometheus_client'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert found.stdout.strip() == "[]"


def test_the_module_is_the_command() -> None:
    run = [sys.executable, "-m", "proxy", "--version"]
    found = subprocess.run(run, capture_output=True, text=True, check=True)

    assert found.stdout == f"callsplit {__version__}\n"
