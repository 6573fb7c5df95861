"""Reports that are made in parts."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.bench import run_proof, tools
from tests.bench.place import reported
from tests.fuzz import run_fuzz
from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("text", ["", "{", None], ids=["empty", "broken", "none"])
def test_what_is_no_report_says_nothing(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "report.json"
    if text is not None:
        path.write_text(text)

    assert reported(path) == {}


def prove(monkeypatch: pytest.MonkeyPatch, out: Path, **found: Any) -> Any:
    only = ["--only", ",".join(found)] if len(found) < len(run_proof.PARTS) else []
    monkeypatch.setattr(sys, "argv", ["run_proof", "--out", str(out), *only])
    monkeypatch.setattr(sys, "path", sys.path[:])
    monkeypatch.setattr(tools, "provide", lambda **_: None)
    monkeypatch.setattr(run_proof, "prove", lambda _: found)
    assert run_proof.main() == 0
    return json.loads(out.read_text())


def test_a_part_of_the_proof_leaves_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    out = tmp_path / "proof.json"
    old: dict[str, Any] = {part: {"old": True} for part in run_proof.PARTS}
    prove(monkeypatch, out, **old, gone={})
    assert prove(monkeypatch, out, **old) == old

    assert prove(monkeypatch, out, timing={"new": 1}) == old | {"timing": {"new": 1}}


def test_a_target_that_is_fuzzed_leaves_the_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fuzz(seconds: str, *targets: str) -> Any:
        monkeypatch.setattr(sys, "argv", ["run_fuzz", "--seconds", seconds, *targets])
        assert run_fuzz.main() == 0
        return json.loads((tmp_path / "results" / "fuzz.json").read_text())["targets"]

    monkeypatch.setattr(run_fuzz, "ROOT", tmp_path)
    monkeypatch.setattr(run_fuzz, "FOUND", tmp_path / "results" / "fuzz")
    monkeypatch.setattr(run_fuzz, "provide", dict)
    monkeypatch.setattr(
        run_fuzz, "fuzz", lambda _, seconds, __: {"seconds": seconds, "crashes": []}
    )
    whole = fuzz("60")
    first = next(iter(TARGETS))

    assert fuzz("7", first) == whole | {first: {"seconds": 7, "crashes": []}}
