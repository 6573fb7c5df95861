"""A sidecar under attack, and normal callers beside: how long they wait, what memory it takes."""

from __future__ import annotations

import socket
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse
from pathlib import Path
from typing import Any

from tests.bench import admin
from tests.bench.calls import pool
from tests.bench.place import KEY, ROOT, free_port
from tests.bench.process import Running, cores

LIMIT = 0.1
"""Seconds in which a normal caller is to have his answer, whatever goes on beside."""

GROWTH = 20 * 2**20
"""Bytes by which memory may grow meanwhile."""

RULES = """\
version: 1
listen: {{address: "127.0.0.1:{port}", connections: {connections}, drain_grace: 1s}}
admin: {{address: "127.0.0.1:{admin}"}}
split: {{to: new, otherwise: old, percent: 50, salt: slow}}
backends:
  new: {{handler: webhook, url: "http://127.0.0.1:{origin}/new"}}
  old: {{handler: webhook, url: "http://127.0.0.1:{origin}/old"}}
tools:
  default: {{effect: write, say: "Not now.", say_pending: "Please wait."}}
auth:
  retell_keys: [env:SLOW_KEY]
  require: {{function: [signature], event: [none]}}
limits: {{tools_per_minute: null, ip_per_minute: null}}
passthrough: old
state_dir: {directory}/state
metrics: {{namespace: slow}}
"""
"""An open kind, so that bodies without a credential are read; no rate, so that nothing is spared
by it."""


@dataclass
class Stand:
    """A sidecar that runs, and where it is asked."""

    port: int
    admin_port: int
    sidecar: Running

    @property
    def connections(self) -> int:
        return int(admin.get(self.admin_port, "/status")[1]["connections"])


@contextmanager
def standing(directory: Path, connections: int = 10_000) -> Iterator[Stand]:
    """A fresh sidecar before a fresh application."""
    directory.mkdir(parents=True)
    port, admin_port, origin_port = free_port(), free_port(), free_port()
    (directory / "rules.yaml").write_text(
        RULES.format(
            port=port,
            admin=admin_port,
            origin=origin_port,
            connections=connections,
            directory=directory,
        )
    )
    (directory / "env").write_text(f"SLOW_KEY={KEY}\n")
    serve = [sys.executable, "-m", "proxy", "serve"]
    serve += ["--rules", str(directory / "rules.yaml"), "--env-file", str(directory / "env")]
    application = [sys.executable, str(ROOT / "tests" / "slow" / "origin.py"), str(origin_port)]
    own, others = cores()
    with Running(application, directory, others) as origin:
        origin.await_port(origin_port)
        with Running(serve, directory, own, directory / "access.log") as sidecar:
            admin.await_ready(admin_port)
            yield Stand(port, admin_port, sidecar)


def answer_on(sock: socket.socket, request: bytes) -> int:
    """The status of the answer to `request`."""
    sock.sendall(request)
    answer = HTTPResponse(sock)
    answer.begin()
    answer.read()
    return answer.status


@dataclass
class Callers:
    """Normal traffic, one request after another; the seconds of each, by what was asked."""

    stand: Stand
    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    failed: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    peak: int = 0

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._requests = pool("functions", 5000)
        self._kept: socket.socket | None = None

    def once(self) -> None:
        """Each sort of normal request."""
        self._timed("call", self._call)
        self._timed("call_on_a_new_connection", self._call_anew)
        self._timed("health", lambda: self._page(self.stand.port, "/api/mcp/retell/health"))
        self._timed("admin_ready", lambda: self._page(self.stand.admin_port, "/ready"))
        self.peak = max(self.peak, self.stand.sidecar.rss())

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Meanwhile they call, again and again."""
        thread = threading.Thread(target=self._go_on)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join()
            if self._kept is not None:
                self._kept.close()
                self._kept = None

    def report(self) -> dict[str, Any]:
        """Milliseconds."""
        return {
            name: {
                "asked": len(taken),
                "failed": self.failed[name],
                "p50_ms": round(sorted(taken)[len(taken) // 2] * 1000, 1),
                "slowest_ms": round(max(taken) * 1000, 1),
            }
            for name, taken in self.seconds.items()
        }

    @property
    def served(self) -> bool:
        """Everybody had a good answer in time."""
        slowest = max(max(taken) for taken in self.seconds.values())
        return slowest < LIMIT and not sum(self.failed.values())

    def _go_on(self) -> None:
        while not self._stop.wait(0.03):
            self.once()

    def _timed(self, name: str, ask: Callable[[], int]) -> None:
        began = time.perf_counter()
        try:
            good = ask() == 200
        except (OSError, HTTPException):
            good = False
        self.seconds[name].append(time.perf_counter() - began)
        self.failed[name] += not good

    def _call(self) -> int:
        if self._kept is None:
            self._kept = self._connect()
        try:
            return answer_on(self._kept, self._requests.pop())
        except (OSError, HTTPException):
            self._kept.close()
            self._kept = None
            raise

    def _call_anew(self) -> int:
        with self._connect() as sock:
            return answer_on(sock, self._requests.pop())

    def _connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.stand.port), timeout=5)

    def _page(self, port: int, path: str) -> int:
        connection = HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            # Nobody probes these arms: the page of the guide says 503 then, and says it at once.
            return 200 if path.endswith("/health") and answer.status == 503 else answer.status
        finally:
            connection.close()
