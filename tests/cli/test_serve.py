"""`callsplit serve` as a process of its own: start, signals, exit codes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.interpreter import python

RULES = """
version: 1
listen: {address: "127.0.0.1:0", drain_grace: 5s}
admin: {address: "127.0.0.1:0"}
backends:
  mcp: {handler: demo, options: {like: mcp}}
  webhook: {handler: demo}
"""


class Process:
    def __init__(self, *arguments: str, **environment: str) -> None:
        self.child = subprocess.Popen(
            [*python(), "-m", "proxy", "serve", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, **environment},
            text=True,
        )

    def event(self, name: str) -> dict[str, Any]:
        """Read events until `name` comes."""
        assert self.child.stderr is not None
        for line in self.child.stderr:
            event = json.loads(line)
            if event["event"] == name:
                assert isinstance(event, dict)
                return event
        raise AssertionError(f"the process ended without {name}")

    def end(self, number: int) -> tuple[int, str]:
        self.child.send_signal(number)
        out, _ = self.child.communicate(timeout=20)
        return self.child.returncode, out


@pytest.fixture
def rules(tmp_path: Path) -> Path:
    path = tmp_path / "rules.yaml"
    path.write_text(RULES + f"state_dir: {tmp_path / 'state'}\n")
    return path


@pytest.fixture
def process(rules: Path) -> Iterator[Process]:
    started = Process("--rules", str(rules))
    yield started
    if started.child.poll() is None:
        started.child.kill()
    started.child.communicate()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_it_is_told_to_stop(process: Process, number: int) -> None:
    started = process.event("sidecar_started")
    body = b'{"name":"get_company_info","args":{},"call":{"call_id":"call_7"}}'
    request = urllib.request.Request(f"http://{started['address']}/retell", body)
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.headers["x-callsplit-arm"] == "webhook"
    code, out = process.end(number)

    assert code == 0
    assert json.loads(out)["call_id"] == "call_7"


def test_a_hangup_reloads_the_rules(process: Process) -> None:
    process.event("sidecar_started")
    process.child.send_signal(signal.SIGHUP)

    assert process.event("rules_loaded")["digest"]
    assert process.end(signal.SIGTERM)[0] == 0


def run(*arguments: str) -> tuple[int, str]:
    child = Process(*arguments).child
    _, said = child.communicate(timeout=20)
    return child.returncode, said


def test_unusable_rules_are_exit_2_with_every_fault_in_its_place(rules: Path) -> None:
    rules.write_text(RULES + "split: {percent: 101}\nlimts: {}\n")
    code, said = run("--rules", str(rules))

    assert code == 2
    assert f"{rules}:8:" in said
    assert "did you mean" in said
    assert "nothing was started" in said


def test_a_missing_file_is_exit_2(tmp_path: Path) -> None:
    code, said = run("--rules", str(tmp_path / "none.yaml"))

    assert code == 2
    assert "none.yaml" in said


def test_a_bad_environment_is_exit_2(rules: Path, tmp_path: Path) -> None:
    code, said = run("--rules", str(rules), "--env-file", str(tmp_path / "none.env"))

    assert code == 2
    assert "none.env" in said


def test_a_required_key_that_is_not_set_is_exit_2(rules: Path) -> None:
    auth = "auth: {retell_keys: [env:NO_KEY?], require: {event: [signature]}}\n"
    rules.write_text(rules.read_text() + auth)
    code, said = run("--rules", str(rules))

    assert code == 2
    assert "auth.require.event" in said


def test_a_taken_address_is_exit_2_and_says_so(process: Process, rules: Path) -> None:
    address = process.event("sidecar_started")["address"]
    rules.write_text(RULES + f"state_dir: {rules.parent / 'another'}\n")
    code, said = run("--rules", str(rules), "--listen", address)

    assert code == 2
    assert "is another process there?" in said
    assert address.rpartition(":")[2] in said
    assert "--listen" in said


def test_a_state_dir_in_use_is_exit_2_and_says_so(process: Process, rules: Path) -> None:
    process.event("sidecar_started")
    code, said = run("--rules", str(rules))

    assert code == 2
    assert f"is in use by process {process.child.pid}" in said


def test_a_bad_address_is_exit_2(rules: Path) -> None:
    code, said = run("--rules", str(rules), "--listen", "nonsense")

    assert code == 2
    assert "host:port" in said
