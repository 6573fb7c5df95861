"""The measurement: every peer in turn, round after round, on the same core with the same load."""

from __future__ import annotations

import fcntl
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench import load
from tests.bench.calls import write_pool
from tests.bench.load import Outcome
from tests.bench.peers import nginx
from tests.bench.place import CACHE, Peer, Place, free_port
from tests.bench.process import Broken, Running, busy, cores

WARM_UP = 1


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to measure."""

    rounds: int = 3
    seconds: int = 4  # per peer, load and round
    connections: int = 64
    pool: int = 20_000  # different requests per round; then they begin anew


@dataclass(slots=True)
class Row:
    """One peer under one load; each list holds a figure per round."""

    peer: str
    label: str
    load: str
    cpu_us: list[float] = field(default_factory=list)  # per request, user and system
    rps: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)
    others: list[float] = field(default_factory=list)  # share of the core that others took
    rss_mb: float = 0.0

    def middle(self, column: str) -> float:
        """The median of one list."""
        return float(statistics.median(getattr(self, column)))


class Rig:
    """The origin and all peers, running."""

    def __init__(self, stack: ExitStack, directory: Path, peers: Sequence[Peer]) -> None:
        self._directory = directory
        self._core, self.others = cores()
        self._peers: dict[str, tuple[Peer, Place, Running]] = {}
        self._requests = dict.fromkeys([peer.KEY for peer in peers], 0)
        home = _home(directory, "origin")
        self.origin_port = free_port()
        origin = Running(nginx.origin(home, self.origin_port), home, self.others)
        stack.enter_context(origin).await_port(self.origin_port)
        for peer in peers:
            place = Place(_home(directory, peer.KEY), self.origin_port)
            running = Running(peer.command(place), place.directory, self._core, place.access_log)
            stack.enter_context(running).await_port(place.port)
            self._peers[peer.KEY] = peer, place, running

    def peer(self, key: str) -> tuple[Place, Running]:
        """Where a peer is, and its process."""
        return self._peers[key][1:]

    def check(self, key: str, kind: str) -> None:
        """Raises `Broken` unless the peer gives the origin's answers."""
        load.check(self._peers[key][1].port, kind, nginx.ANSWER.encode())

    def run(
        self, key: str, pool_file: Path, plan: Plan, seconds: int
    ) -> tuple[Outcome, float, float]:
        """Load one peer: what wrk counted, the peer's CPU seconds, those of others on its core."""
        _, place, running = self._peers[key]
        core = min(self._core)
        before, around = running.cpu(), busy(core)
        try:
            outcome = load.run(
                place.port,
                pool_file,
                seconds=seconds,
                connections=plan.connections,
                cores=self.others,
            )
        except Broken as broken:
            raise Broken(f"{key}: {broken}\n{running.tail()}") from None
        self._requests[key] += outcome.requests
        taken = running.cpu() - before
        return outcome, taken, max(busy(core) - around - taken, 0.0)

    def forget(self, key: str) -> None:
        """Empty a peer's access log: a million lines need a disk, and prove no more."""
        place = self._peers[key][1]
        time.sleep(0.5)  # What is logged is on its way for a moment.
        os.truncate(place.access_log, 0)
        self._requests[key] = 0

    def finish(self) -> None:
        """Stop all peers.  Raises `Broken` if one cannot have done its whole job."""
        for key, (peer, place, running) in self._peers.items():
            running.stop()  # What is logged is flushed by now.
            if fault := peer.fault(place, self._requests[key]):
                raise Broken(f"{peer.LABEL}: {fault}")


def measure(wanted: Sequence[tuple[Peer, str]], plan: Plan) -> list[Row]:
    """A row for each peer and load.  Raises `Broken` if any answer was not good."""
    rows = [Row(peer.KEY, peer.LABEL, kind) for peer, kind in wanted]
    with scratch() as directory, ExitStack() as stack:
        rig = Rig(stack, directory, list(dict.fromkeys(peer for peer, _ in wanted)))
        for number in range(plan.rounds + 1):
            for row in rows:
                pool_file = directory / "pool"
                write_pool(pool_file, row.load, plan.pool)
                if number == 0:
                    rig.check(row.peer, row.load)
                    rig.run(row.peer, pool_file, plan, WARM_UP)
                else:
                    _note(row, rig, *rig.run(row.peer, pool_file, plan, plan.seconds))
            print(f"round {number} of {plan.rounds} done", file=sys.stderr, flush=True)
        rig.finish()
    return rows


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory for one run, gone afterwards.  Raises `Broken` while there is another run."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Broken(
                "another bench or proof is running; they would disturb each other"
            ) from None
        directory = Path(tempfile.mkdtemp(prefix="run-", dir=CACHE))
        try:
            yield directory
        finally:
            shutil.rmtree(directory, ignore_errors=True)


def _note(row: Row, rig: Rig, outcome: Outcome, cpu: float, others: float) -> None:
    row.cpu_us.append(cpu / outcome.requests * 1e6)
    row.rps.append(outcome.requests / outcome.seconds)
    row.p50_ms.append(outcome.p50_ms)
    row.p99_ms.append(outcome.p99_ms)
    row.others.append(others / outcome.seconds)
    row.rss_mb = rig.peer(row.peer)[1].rss() / 2**20


def _home(directory: Path, name: str) -> Path:
    home = directory / name
    home.mkdir()
    return home
