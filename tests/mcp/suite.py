"""What does the official conformance suite say of the server, or client, at an address?"""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from tests.mcp.suite_tools import ROOT, Tools

LEGACY = "2025-11-25"
MODERN = "2026-07-28"
PATIENCE = 240.0
"""Seconds for one run of the suite."""

STAMP = re.compile(r"-\d{4}-\d{2}-\d{2}T[\d-]+Z$")
PASSED, FAILED = "SUCCESS", "FAILURE"


class Broken(Exception):
    """The suite itself did not run; its message says why."""


class Check(NamedTuple):
    """One thing that a scenario looked at; it may do so several times."""

    scenario: str
    id: str
    name: str

    def __str__(self) -> str:
        return f"{self.scenario}: {self.id} ({self.name})"


@dataclass(slots=True)
class Said:
    """What one run said; `code` is the suite's own verdict on it."""

    code: int
    outcomes: dict[str, Counter[Check]] = field(default_factory=dict)
    """Status -> how often each check came to it."""

    reasons: dict[Check, str] = field(default_factory=dict)
    """Why a check did not pass."""

    def total(self, status: str) -> int:
        """How many checks came to it."""
        return self.outcomes.get(status, Counter()).total()

    @property
    def passed(self) -> int:
        return self.total(PASSED)

    @property
    def failed(self) -> int:
        return self.total(FAILED)

    def take(self, other: Said) -> None:
        """Add what another run said to this one."""
        self.code = self.code or other.code
        for status, counted in other.outcomes.items():
            self.outcomes.setdefault(status, Counter()).update(counted)
        self.reasons.update(other.reasons)

    def add(self, scenario: str, checks: Iterable[dict[str, str]]) -> None:
        """Count what a scenario found."""
        for found in checks:
            check = Check(scenario, found["id"], found["name"])
            self.outcomes.setdefault(found["status"], Counter())[check] += 1
            if found["status"] != PASSED and "errorMessage" in found:
                self.reasons[check] = found["errorMessage"]


def lost(direct: Said, through: Said) -> list[str]:
    """What passed direct and does not through a proxy, or fails there only; sorted, with reasons.

    A check that runs several times in its scenario is lost once it passes fewer times.
    """
    missing = direct.outcomes.get(PASSED, Counter()) - through.outcomes.get(PASSED, Counter())
    broken = through.outcomes.get(FAILED, Counter()) - direct.outcomes.get(FAILED, Counter())
    both = sorted(missing.keys() | broken.keys())
    return [f"{check}: {through.reasons.get(check, 'it did not run')}" for check in both]


def server(tools: Tools, url: str, selectors: Sequence[str], folder: Path) -> Said:
    """Ask the server at `url`; `selectors` say which scenarios, as on the suite's command line."""
    return _run(tools, ["server", "--url", url, *selectors], folder)


def client(tools: Tools, command: str, selectors: Sequence[str], folder: Path) -> Said:
    """Play a server to `command`, which is called with its address as the last argument."""
    return _run(tools, ["client", "--command", command, *selectors], folder)


def _run(tools: Tools, asked: Sequence[str], folder: Path) -> Said:
    """Raises `Broken` if it did not come to results."""
    folder.mkdir(parents=True)
    command = [str(tools.node), str(tools.suite), *asked, "--output-dir", str(folder)]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired as error:
        raise Broken(f"the suite did not end: {' '.join(asked)}") from error
    (folder / "output.log").write_text(done.stdout + done.stderr)
    said = Said(done.returncode)
    found = sorted(folder.rglob("checks.json"))
    for results in found:
        scenario = STAMP.sub("", results.parent.name).removeprefix(f"{asked[0]}-")
        said.add(scenario, json.loads(results.read_text()))
    if not found:
        raise Broken(f"the suite wrote no results: {(done.stderr or done.stdout)[-500:]}")
    return said
