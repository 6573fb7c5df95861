"""Load by wrk, and what came of it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.bench.calls import pool
from tests.bench.process import Broken

SCRIPT = Path(__file__).with_name("load.lua")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What wrk counted."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float
    errors: int
    refused: int  # answers of 400 and above


def run(
    port: int, pool_file: Path, *, seconds: float, connections: int, cores: set[int]
) -> Outcome:
    """Keep `connections` busy for `seconds`.  Raises `Broken` unless every answer was good."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "10s"]
    command += ["-s", str(SCRIPT), f"http://127.0.0.1:{port}/retell", "--", str(pool_file)]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    line = next((one for one in done.stdout.splitlines() if one.startswith("RESULT ")), None)
    if line is None:
        raise Broken(f"wrk failed: {done.stdout}{done.stderr}")
    outcome = Outcome(**json.loads(line.removeprefix("RESULT ")))
    if outcome.errors or outcome.refused or not outcome.requests:
        raise Broken(f"not every answer was good: {outcome}")
    return outcome


def check(port: int, load: str, expected: bytes) -> None:
    """Ask a few times by hand: status 200, and the origin's own body.  Raises `Broken`."""
    for request in pool(load, 10):
        with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
            connection.sendall(request)
            answer = b""
            while not answer.endswith(expected):
                part = connection.recv(65536)
                if not part:
                    raise Broken(f"port {port} answered {answer[:300]!r}")
                answer += part
        if not answer.startswith(b"HTTP/1.1 200 "):
            raise Broken(f"port {port} answered {answer[:300]!r}")
