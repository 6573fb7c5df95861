"""Where one peer of a bench lives: its directory, its ports, the tools at hand."""

from __future__ import annotations

import json
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "bench"
RESULTS = ROOT / "results"

KEY = "key_bench_0123456789abcdef"
"""Signs the requests of every bench; nothing else knows it."""


def free_port() -> int:
    """A port that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def reported(path: Path, *, before: bool = True) -> dict[str, Any]:
    """What a report says already, for a run that adds a part to it; else nothing."""
    try:
        found: dict[str, Any] = json.loads(path.read_text()) if before else {}
    except (FileNotFoundError, ValueError):
        return {}
    return found


@dataclass(frozen=True, slots=True)
class Place:
    """What a peer needs to know to write its configuration."""

    directory: Path
    origin_port: int
    port: int = field(default_factory=free_port)
    admin_port: int = field(default_factory=free_port)

    @property
    def access_log(self) -> Path:
        """Where this peer writes one line per request, if it writes any."""
        return self.directory / "access.log"


class Peer(Protocol):
    """A proxy to be measured; a module of `peers/` fits."""

    KEY: str
    LABEL: str

    def command(self, place: Place) -> list[str]:
        """Write what the peer needs into `place.directory`; how to start it there."""

    def fault(self, place: Place, requests: int) -> str | None:
        """Why the peer cannot have done its whole job for `requests` requests; None: it can."""
