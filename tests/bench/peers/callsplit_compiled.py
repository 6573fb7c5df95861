"""callsplit with everything on, its hot path compiled to C; `make compiled` has built it."""

from __future__ import annotations

from tests.bench.peers import callsplit
from tests.bench.place import ROOT, Place

KEY = "callsplit_compiled"
LABEL = "callsplit, compiled"

PYTHON = ROOT / ".cache" / "compiled" / "venv" / "bin" / "python"


def command(place: Place) -> list[str]:
    """The same rules and command; isolated, or it would run this tree's sources."""
    _, *arguments = callsplit.command(place)
    return [str(PYTHON), "-I", *arguments]


def fault(place: Place, requests: int) -> str | None:
    """The same job, so the same proof of it."""
    return callsplit.fault(place, requests)
