"""Half a minute of chaos; `make chaos` is the ten-minute form."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.functional.kit import ROOT

RUN = ROOT / "tests" / "chaos" / "run_chaos.py"


async def chaos(folder: Path, *arguments: str) -> dict[str, Any]:
    """The report of one run."""
    out = folder / "report.json"
    command = [sys.executable, str(RUN), "--out", str(out), "--keep", str(folder), *arguments]
    run = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    try:
        _, said = await run.communicate()
    finally:
        if run.returncode is None:
            run.terminate()
            await run.wait()
    assert out.exists(), said.decode()
    report: dict[str, Any] = json.loads(out.read_text())
    return report


@pytest.mark.parametrize("arguments", [(), ("--kill-sidecar",)], ids=["restarts", "kills"])
async def test_chaos_loses_nobody_and_runs_nothing_twice(
    tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    """Backends die, freeze and fall sick; the sidecar is restarted, or killed with -9."""
    report = await chaos(tmp_path, "--seconds", "14", "--seed", "7", *arguments)

    assert report["reached"], report["found"]
    assert report["bookings_made"] > 50
    assert sum(report["harm"].values()) >= 5
