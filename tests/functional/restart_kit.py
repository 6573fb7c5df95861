"""Sidecars that follow each other, and callers who hold on to their connections."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.functional.kit import ROOT, Process
from tests.functional.wire import Answer, Client, until
from tests.interpreter import python

# What a supervisor does between fork and exec: only then is LISTEN_PID known.
GIVEN = (
    "import os, sys\n"
    "fds = [int(fd) for fd in sys.argv[1].split(',')]\n"
    "fds = [os.dup2(os.dup(fd), 100 + at) for at, fd in enumerate(fds)]\n"
    "fds = [os.dup2(fd, 3 + at) for at, fd in enumerate(fds)]\n"
    "os.environ['LISTEN_PID'] = str(os.getpid())\n"
    "os.execv(sys.argv[2], sys.argv[2:])\n"
)


class Line(Process):
    """One sidecar after another, each following the one before: all log to the same file."""

    def started(self) -> list[Any]:
        return self.events("sidecar_started")

    async def upped(self, count: int = 1) -> int:
        """Wait until the `count`-th of them serves; its process ID."""
        await until(lambda: len(self.started()) >= count or self._all_gone(), f"{count} started")
        started = self.started()
        assert len(started) >= count, self.err.read_text()
        newest = started[-1]
        self.port = int(newest["address"].rpartition(":")[2])
        self.admin_port = int(newest["admin"].rpartition(":")[2])
        return int(newest["pid"])

    def _all_gone(self) -> bool:
        return self.ended and not any(alive(line["pid"]) for line in self.started())

    async def gone(self, pid: int) -> None:
        """Wait for the end of one of them."""
        await until(lambda: not alive(pid), f"{pid} is gone")

    async def stop(self) -> None:
        """End them all."""
        for line in self.started():
            with contextlib.suppress(ProcessLookupError):
                os.kill(line["pid"], signal.SIGKILL)
        await super().stop()


class Given(Line):
    """A sidecar that is given its sockets, by name, as service managers do."""

    def __init__(self, folder: Path, sockets: Mapping[str, socket.socket]) -> None:
        super().__init__(folder)
        self.sockets = sockets
        self.names = ":".join(sockets)
        self._children: list[asyncio.subprocess.Process] = []

    @property
    def ended(self) -> bool:
        return all(child.returncode is not None for child in self._children)

    async def stop(self) -> None:
        for child in self._children:
            if child.returncode is None:
                child.kill()
            await child.wait()
        await self.hang_up()

    async def follow(self, *arguments: str, **variables: str) -> asyncio.subprocess.Process:
        """Start one more with the same sockets and the rules that lie there."""
        fds = ",".join(str(sock.fileno()) for sock in self.sockets.values())
        keep = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
        serve = [*python(), "-m", "proxy", "serve", "--rules", str(self.rules_path), *arguments]
        named = {"LISTEN_FDS": str(len(self.sockets)), "LISTEN_FDNAMES": self.names}
        with self.out.open("ab") as out, self.err.open("ab") as err:
            child = await asyncio.create_subprocess_exec(
                sys.executable, "-c", GIVEN, fds, *serve,
                cwd=ROOT, env={**keep, **named, **variables}, stdout=out, stderr=err,
                pass_fds=[sock.fileno() for sock in self.sockets.values()],
            )  # fmt: skip
        self._children.append(child)
        return child


def alive(pid: int) -> bool:
    """Whether that process runs; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def heeded(pid: int, number: signal.Signals) -> bool:
    """Whether a signal that was sent to that process waits no more."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    waits = (int(line.split()[1], 16) for line in lines if line.startswith(("SigPnd", "ShdPnd")))
    return not any(mask >> (number - 1) & 1 for mask in waits)


def listening() -> socket.socket:
    """A socket on a free port, as a supervisor would hold it."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(4096)
    return sock


@dataclass
class Tally:
    """What callers met."""

    answers: int = 0
    closes: int = 0  # answers that said it was the connection's last
    lost: list[str] = field(default_factory=list)
    others: list[Answer] = field(default_factory=list)  # that were no 200
    reasons: list[str] = field(default_factory=list)


class Callers:
    """Callers that ask again and again over kept connections, and never ask twice."""

    def __init__(self, port: int, number: int, ask: Callable[[int], bytes]) -> None:
        self.tally = Tally()
        self._port = port
        self._ask = ask
        self._going = True
        self._asked = 0
        self._tasks = [asyncio.create_task(self._call()) for _ in range(number)]

    async def answered(self, more: int) -> None:
        """Until so many more of them have had an answer."""
        goal = self.tally.answers + more
        while self.tally.answers < goal and not self.tally.lost:
            await asyncio.sleep(0.005)

    async def end(self) -> Tally:
        self._going = False
        await asyncio.gather(*self._tasks)
        return self.tally

    async def _call(self) -> None:
        client: Client | None = None
        tally = self.tally
        while self._going:
            self._asked += 1
            try:
                client = client or await Client.connect(self._port)
                answer = await client.ask(self._ask(self._asked))
            except (OSError, EOFError) as error:
                tally.lost.append(f"{type(error).__name__}: {error}")
                client = None
                continue
            tally.answers += 1
            tally.reasons.append(answer.reason)
            if answer.status != 200:
                tally.others.append(answer)
            if not client.usable:
                tally.closes += 1
                await client.close()
                client = None
        if client is not None:
            await client.close()
