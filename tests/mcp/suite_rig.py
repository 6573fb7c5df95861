"""Which processes does a conformance run need?  Servers, a webhook, and the sidecar between them.

Every one is a child on a port of its own; leaving its `with` ends it, by its own id.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.bench.place import ROOT, free_port
from tests.interpreter import python
from tests.mcp.suite_tools import Tools

PATIENCE = 30.0
"""Seconds that a process may take to start."""

CALL_ID = "call_conformance"
NO_ARGUMENTS = {"type": "object", "properties": {}}


class Broken(Exception):
    """A process did not start; the message has what it said last."""


class Child:
    """A process whose output goes to files in `folder`."""

    def __init__(self, name: str, command: list[str], folder: Path, **environment: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.out, self.err = folder / f"{name}.out", folder / f"{name}.err"
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self._process = subprocess.Popen(
                command, cwd=ROOT, env=os.environ | environment, stdout=out, stderr=err
            )

    def find(self, what: Callable[[], int | None]) -> int:
        """The first port that `what` finds."""
        ends = time.monotonic() + PATIENCE
        while time.monotonic() < ends and self._process.poll() is None:
            found = what()
            if found is not None:
                return found
            time.sleep(0.02)
        said = self.err.read_text(errors="replace") + self.out.read_text(errors="replace")
        raise Broken(f"{self._process.args!r} does not serve: {said[-800:]}")

    def kill(self) -> None:
        """End it as the kernel does."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        """End it kindly, then firmly."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill()


@contextmanager
def _alive(child: Child) -> Iterator[Child]:
    try:
        yield child
    finally:
        child.stop()


class Server:
    """An MCP server under test: where it is, and how to take it away."""

    def __init__(self, url: str, child: Child) -> None:
        self.url, self._child = url, child

    def kill(self) -> None:
        """Nobody listens there from now on."""
        self._child.kill()


@contextmanager
def everything(folder: Path) -> Iterator[Server]:
    """Our own everything-server, in both eras."""
    with _alive(_module("everything", folder)) as child:
        port = child.find(lambda: _printed(child))
        yield Server(f"http://127.0.0.1:{port}/mcp", child)


@contextmanager
def reference(tools: Tools, folder: Path) -> Iterator[Server]:
    """The protocol project's own `server-everything`: legacy only, on another SDK."""
    port = free_port()
    command = [str(tools.node), str(tools.reference), "streamableHttp"]
    with _alive(Child("reference", command, folder, PORT=str(port))) as child:
        child.find(lambda: port if _listens(port) else None)
        yield Server(f"http://127.0.0.1:{port}/mcp", child)


@contextmanager
def webhook(folder: Path) -> Iterator[str]:
    """A webhook that knows the simplest tools; its address."""
    with _alive(_module("suite_webhook", folder)) as child:
        yield f"http://127.0.0.1:{child.find(lambda: _printed(child))}/hook"


@contextmanager
def sidecar(folder: Path, mcp: str, hook: str | None = None) -> Iterator[str]:
    """`callsplit serve` with every call on the MCP arm; its address for one call.

    Without `hook` there is no webhook: whatever passes has come from the MCP arm.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "rules.yaml"
    path.write_text(json.dumps(rules(folder, mcp, hook or f"http://127.0.0.1:{free_port()}/hook")))
    command = [*python(), "-m", "proxy", "serve", "--rules", str(path)]
    with _alive(Child("sidecar", command, folder)) as child:
        port = child.find(lambda: _started(child))
        yield f"http://127.0.0.1:{port}/mcp/{CALL_ID}"


def rules(folder: Path, mcp: str, hook: str) -> dict[str, Any]:
    """Nothing is limited, and everything is given time: the suite asks much, quickly."""
    patient = {"timeout": "30s", "connect_timeout": "5s"}
    said_no = {"when": {"success": {"in": [False]}}, "verdict": "business_no"}
    return {
        "version": 1,
        "listen": {"address": "127.0.0.1:0", "drain_grace": "2s"},
        "admin": {"address": "127.0.0.1:0"},
        "split": {"to": "mcp", "otherwise": "webhook", "percent": 100, "salt": "conformance"},
        "backends": {
            "mcp": {"handler": "mcp", "url": mcp, **patient},
            "webhook": {"handler": "webhook", "url": hook, "body_verdicts": [said_no], **patient},
        },
        "fallback": {"budget": {"mcp": "30s", "function": "30s"}},
        "tools": dict(declared()),
        "limits": {"tools_per_minute": None, "ip_per_minute": None},
        "outbox": {"enabled": False},
        "state_dir": str(folder / "state"),
    }


def declared() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The tools that the webhook knows, as the rules declare them."""
    yield "default", {"effect": "read"}
    for name, about in {
        "test_simple_text": "Returns a text.",
        "test_error_handling": "Always fails.",
    }.items():
        yield name, {"effect": "read", "description": about, "input_schema": NO_ARGUMENTS}


def _module(name: str, folder: Path) -> Child:
    return Child(name, [sys.executable, "-m", f"tests.mcp.{name}"], folder)


def _printed(child: Child) -> int | None:
    """The port that a child of ours has printed."""
    line = child.out.read_text()
    return int(line) if line.endswith("\n") else None


def _started(child: Child) -> int | None:
    """The port that the sidecar's log tells of."""
    for told in logged(child.err):
        if told["event"] == "sidecar_started":
            return int(told["address"].rpartition(":")[2])
    return None


def logged(log: Path) -> Iterator[dict[str, Any]]:
    """What a sidecar has logged so far; the last line may be half a line."""
    for line in log.read_text().splitlines(keepends=True):
        if line.startswith("{") and line.endswith("\n"):
            yield json.loads(line)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
