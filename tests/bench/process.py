"""Processes under measurement: started on one core, watched through /proc, stopped."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from tests.bench.place import ROOT

TICK = os.sysconf("SC_CLK_TCK")


class Broken(Exception):
    """The bench cannot be trusted; its message says why."""


class Running:
    """A child process, pinned to `cores`; its output goes to files in `directory`."""

    def __init__(
        self, command: list[str], directory: Path, cores: set[int], output: Path | None = None
    ) -> None:
        self.log = directory / "output.log"
        environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
        with (
            (output or self.log).open("ab") as out,
            self.log.open("ab") as err,
        ):
            self.process = subprocess.Popen(
                command, stdout=out, stderr=err, cwd=directory, env=environment
            )
        self.confine(cores)
        self._proc = Path(f"/proc/{self.process.pid}")

    def __enter__(self) -> Running:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def await_port(self, port: int, seconds: float = 20.0) -> None:
        """Return when `port` accepts connections."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends:
            if self.process.poll() is not None:
                raise Broken(f"{self.process.args!r} ended: {self.tail()}")
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.02)
        raise Broken(f"{self.process.args!r} does not listen on {port}: {self.tail()}")

    def confine(self, cores: set[int]) -> None:
        """Let it run on these only."""
        os.sched_setaffinity(self.process.pid, cores)

    def cpu(self) -> float:
        """Seconds of user and system time so far, all threads."""
        fields = (self._proc / "stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def rss(self) -> int:
        """Bytes in memory."""
        pages = int((self._proc / "statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def descriptors(self) -> int:
        """Open file descriptors."""
        return len(os.listdir(self._proc / "fd"))

    def tail(self) -> str:
        """The last lines that the process wrote."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-8:])

    def stop(self) -> None:
        """End it kindly, then firmly."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


@contextmanager
def awake() -> Iterator[None]:
    """Meanwhile no core falls asleep: something runs that gives way to everything else.

    To wake one costs a machine, a virtual one above all, up to a tenth of a millisecond, which is
    charged to whoever is spoken to.
    """
    spins = [sys.executable, "-c", "while True: pass"]
    idlers = []
    try:
        for core in os.sched_getaffinity(0):
            idlers.append(subprocess.Popen(spins))
            os.sched_setaffinity(idlers[-1].pid, {core})
            os.sched_setscheduler(idlers[-1].pid, os.SCHED_IDLE, os.sched_param(0))
        yield
    finally:
        for idler in idlers:
            idler.kill()
            idler.wait()


def busy(core: int) -> float:
    """Seconds that processes, and the host beneath, have used of a core since boot."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name == f"cpu{core}":
            user, nice, system, *_ = map(int, fields)
            return (user + nice + system + int(fields[7])) / TICK
    return 0.0


def cores() -> tuple[set[int], set[int]]:
    """One core for the peer under measurement, the others for the load and the origin."""
    every = sorted(os.sched_getaffinity(0))
    if len(every) < 2:
        print(
            "Only one core: load and peer share it, so rps and latency mean little.",
            file=sys.stderr,
        )
        return set(every), set(every)
    return {every[0]}, set(every[1:])
