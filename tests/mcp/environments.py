"""Interpreters with other people's MCP: one environment for each major that callers may run.

`mcp` 2.x is what our own interpreter has; the others are made once, below `.cache/clients`.  As a
script it makes all of them, for `make test`; what cannot be had is told there, and the tests that
need it are skipped with the same words.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

CACHE = Path(__file__).resolve().parents[2] / ".cache" / "clients"

OURS = "mcp2"
"""The environment that the tests themselves run in."""

WANTED = {"mcp1": "mcp>=1.30,<2", "fastmcp": "fastmcp>=4.1,<5"}
"""What stands in each of the others, by its name."""


class Unavailable(Exception):
    """An environment cannot be made here; the message says why, and what helps."""


def interpreter(name: str) -> Path:
    """The Python of an environment, which is made if it is not there.

    Raises `Unavailable`.  Processes that ask at the same time wait for the one that makes it.
    """
    if name == OURS:
        return Path(sys.executable)
    home = CACHE / name
    python = home / "bin" / "python"
    with _alone(name):
        if _stamp(home) != _wish(name):
            _make(name, home, python)
    return python


def environment() -> dict[str, str]:
    """The variables for a process in one of them: nothing that leads it to our own packages."""
    ours = ("PYTHONPATH", "PYTHONHOME", "PYTHONSAFEPATH", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    return kept | {"PYTHONDONTWRITEBYTECODE": "1"}


@contextmanager
def _alone(name: str) -> Iterator[None]:
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # It is let go with the file.
        yield


def _wish(name: str) -> str:
    """What an environment must have been made for in order to do."""
    return f"{WANTED[name]} on {sys.version.split()[0]}\n"


def _stamp(home: Path) -> str:
    try:
        return (home / ".made").read_text()
    except OSError:
        return ""


def _make(name: str, home: Path, python: Path) -> None:
    print(f"Installing {WANTED[name]} into {home} (once) ...", file=sys.stderr)
    shutil.rmtree(home, ignore_errors=True)  # An older one, or half of one.
    _run(name, [sys.executable, "-m", "venv", str(home)])
    _run(name, [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
                WANTED[name]])  # fmt: skip
    (home / ".made").write_text(_wish(name))


def _run(name: str, command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, env=environment())
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines() or ["it did not say why"]
        raise Unavailable(f"{WANTED[name]} cannot be installed into {CACHE / name}: {said[-1]}")


def main() -> None:
    """Make all of them; what fails is told, and stops nothing."""
    for name in WANTED:
        try:
            interpreter(name)
        except Unavailable as reason:
            print(f"{reason} (its tests are skipped)", file=sys.stderr)


if __name__ == "__main__":
    main()
