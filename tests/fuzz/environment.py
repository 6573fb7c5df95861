"""Where is atheris?  Below `.cache/fuzz`, got once: 35 MB, and wheels for Linux on x86 alone.

Nothing else needs it: what it has found is replayed without it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.mcp.environments import Unavailable

ROOT: Final = Path(__file__).resolve().parents[2]
CACHE: Final = ROOT / ".cache" / "fuzz"
WANTED: Final = "atheris>=3,<4"
PATIENCE: Final = 120.0
"""Seconds that an installation may take."""


def provide() -> dict[str, str]:
    """The variables for a process that finds atheris; it is installed if it is not there.

    Raises `Unavailable`.
    """
    site = CACHE / f"python{sys.version_info.major}.{sys.version_info.minor}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # It is let go with the file.
        if not (site / "atheris").is_dir():
            _install(site)
    path = os.pathsep.join((str(site), str(ROOT)))
    return os.environ | {"PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}


def _install(site: Path) -> None:
    print(f"Installing {WANTED} into {site} (once) ...", file=sys.stderr)
    fresh = site.with_suffix(".new")
    shutil.rmtree(fresh, ignore_errors=True)  # Half of one.
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
               "--only-binary=:all:", "--target", str(fresh), WANTED]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{WANTED} cannot be had: {error}") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines() or ["it did not say why"]
        raise Unavailable(f"{WANTED} cannot be had: {said[-1]}")
    fresh.replace(site)
