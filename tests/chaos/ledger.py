"""What ran, and where: one file that both backends append to, whoever of them is killed."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any


class Ledger:
    """The writing end."""

    def __init__(self, path: Path, arm: str) -> None:
        self._arm = arm
        self._fd = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)

    def note(self, what: str, call: str, of: str) -> None:
        """Set down one thing; whole or not at all, for it is one write."""
        entry = {"at": time.monotonic(), "arm": self._arm, "what": what, "call": call, "of": of}
        os.write(self._fd, json.dumps(entry).encode() + b"\n")


def entries(path: Path) -> list[dict[str, Any]]:
    """All of it, in the order in which it happened."""
    return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []
