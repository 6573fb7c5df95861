"""The processes of a run: both backends and the sidecar, started, harmed, started again."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from tests.bench.place import ROOT, free_port
from tests.functional.kit import ask_once

BACKEND = Path(__file__).with_name("backend.py")
PATIENCE = 20.0
"""Seconds that a process may take to start or to end."""


class Child:
    """A child process that may be started again and again at the same place."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self.port = free_port()
        self.frozen = False
        self.log = folder / f"{name}.log"
        self.out = folder / f"{name}.out"
        self._process: asyncio.subprocess.Process | None = None

    def command(self) -> list[str]:
        """What to run; different from start to start if need be."""
        raise NotImplementedError

    async def start(self) -> None:
        """Run it; it need not listen yet."""
        environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        with self.out.open("ab") as out, self.log.open("ab") as err:
            self._process = await _spawn(self.command(), environment, out, err)

    async def up(self) -> None:
        """Wait until it accepts connections."""
        async with asyncio.timeout(PATIENCE):
            while not await self._answers():
                await asyncio.sleep(0.02)

    @property
    def runs(self) -> bool:
        """It has been started and has not ended."""
        return self._process is not None and self._process.returncode is None

    @property
    def pid(self) -> int:
        """Of the process that runs."""
        assert self._process is not None
        return self._process.pid

    def signal(self, number: signal.Signals) -> None:
        """Send it one, if it runs."""
        if self._process is not None and self.runs:
            self._process.send_signal(number)

    def freeze(self) -> None:
        """Stop it where it stands; its connections stay."""
        self.frozen = True
        self.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self.frozen = False
        self.signal(signal.SIGCONT)

    async def kill(self) -> None:
        """End it as the kernel does."""
        self.signal(signal.SIGKILL)
        await self.ended()
        self.frozen = False

    async def stop(self) -> None:
        """End it kindly, then firmly."""
        self.thaw()
        self.signal(signal.SIGTERM)
        try:
            await self.ended()
        except TimeoutError:
            await self.kill()

    async def ended(self) -> int | None:
        """Its exit code, once it has ended."""
        if self._process is None:
            return None
        async with asyncio.timeout(PATIENCE):
            return await self._process.wait()

    async def _answers(self) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        return True


class BackendChild(Child):
    """One arm."""

    def __init__(self, name: str, wire: str, folder: Path, ledger: Path, seed: int) -> None:
        super().__init__(name, folder)
        self._wire, self._ledger, self._seed = wire, ledger, seed
        self.starts = 0

    def command(self) -> list[str]:
        """Each start has its own luck."""
        self.starts += 1
        own = [self.name, self._wire, str(self.port), str(self._ledger)]
        return [sys.executable, str(BACKEND), *own, f"{self._seed}-{self.starts}"]

    def fall_sick(self) -> None:
        """Fail in every way for a while."""
        self.signal(signal.SIGUSR1)


@dataclass
class Footprint:
    """What the sidecar holds when nothing is asked of it."""

    descriptors: int
    tasks: int | None
    rss_mb: float
    left: dict[str, int] = field(default_factory=dict)  # permits and the like that are not back


class SidecarChild(Child):
    """`callsplit serve` with these rules."""

    def __init__(self, folder: Path, rules: dict[str, Any]) -> None:
        super().__init__("sidecar", folder)
        self.admin_port = free_port()
        rules["listen"]["address"] = f"127.0.0.1:{self.port}"
        rules["admin"] = {"address": f"127.0.0.1:{self.admin_port}"}
        self._path = folder / "rules.yaml"
        self._path.write_text(json.dumps(rules, indent=1))
        self.exits: list[int | None] = []

    def command(self) -> list[str]:
        """As anybody starts it."""
        return [sys.executable, "-m", "proxy", "serve", "--rules", str(self._path)]

    async def up(self) -> None:
        """Wait until traffic is welcome."""
        async with asyncio.timeout(PATIENCE):
            while self.runs and not await self._ready():
                await asyncio.sleep(0.02)
        if not self.runs:
            raise RuntimeError(f"the sidecar did not start: {self.tail()}")

    async def status(self) -> dict[str, Any]:
        """Its /status."""
        answer: dict[str, Any] = (await ask_once(self.admin_port, "GET", "/status")).json
        return answer

    async def settled(self, patience: float) -> Footprint:
        """What it holds once nothing is under way, or after `patience` seconds all the same."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + patience
        while True:
            status = await self.status()
            left = what_is_left(status)
            if loop.time() > ends or not (status["connections"] or any(left.values())):
                break
            await asyncio.sleep(0.1)
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        kept = sum(arm["idle"] for arm in status["arms"].values())  # the probes keep some
        return Footprint(
            descriptors=len(os.listdir(f"/proc/{self.pid}/fd")) - kept,
            tasks=status.get("tasks"),
            rss_mb=round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1),
            left={name: count for name, count in left.items() if count},
        )

    def events(self, name: str) -> list[dict[str, Any]]:
        """What it logged by that name, over all its lives."""
        lines = self.log.read_text(errors="replace").splitlines()
        logged = [json.loads(line) for line in lines if line.startswith('{"') and line[-1:] == "}"]
        return [one for one in logged if one.get("event") == name]

    def tail(self) -> str:
        """The last lines that it wrote."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-8:])

    async def _ready(self) -> bool:
        try:
            return (await ask_once(self.admin_port, "GET", "/ready")).status == 200
        except (OSError, asyncio.IncompleteReadError):
            return False


def what_is_left(status: dict[str, Any]) -> dict[str, int]:
    """Everything in /status that has to go back to nought."""
    left = {"inflight": int(status["inflight"])}
    for name, arm in status["arms"].items():
        left[f"{name}: busy"] = int(arm["busy"])
        left[f"{name}: last resort"] = int(arm["breaker"]["last_resort"])
    return left


async def _spawn(
    command: list[str], environment: dict[str, str], out: IO[bytes], err: IO[bytes]
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, env=environment, stdout=out, stderr=err
    )
