"""The figures that `make bench` does not give: start, endurance, reloads, decision, latency."""

from __future__ import annotations

import os
import statistics
import threading
import time
import timeit
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from proxy.core.split import call_hash, in_share
from tests.bench import admin, latency
from tests.bench.calls import pool, write_pool
from tests.bench.latency import Spread
from tests.bench.load import Outcome
from tests.bench.peers import callsplit, nginx
from tests.bench.place import Peer, Place, free_port
from tests.bench.process import Broken, Running, cores
from tests.bench.rounds import Plan, Rig

Say = Callable[[str], None]
MILLION = 1_000_000
CALLS = 20_000
"""Calls that go on during the endurance run, each speaking again and again."""
POOL = 50_000
SETTLE = 8.0
"""Seconds after which idle upstream connections are closed: longer than their keep-alive."""


def start_time(directory: Path, say: Say, times: int = 5) -> dict[str, Any]:
    """Seconds from the process's start to /ready, several starts."""
    core, _ = cores()
    taken = []
    for number in range(times):
        home = directory / f"start-{number}"
        home.mkdir()
        place = Place(home, origin_port=free_port())
        command = callsplit.command(place)
        begins = time.monotonic()
        with Running(command, home, core):
            admin.await_ready(place.admin_port)
            taken.append(round(time.monotonic() - begins, 3))
        say(f"start {number + 1}: {taken[-1]} s")
    middle = statistics.median(taken)
    return {"seconds": taken, "median": middle, "target": 1.0, "reached": middle < 1.0}


def endurance(rig: Rig, directory: Path, say: Say, requests: int) -> dict[str, Any]:
    """Memory and descriptors over `requests` requests of the same `CALLS` calls."""
    _, running = rig.peer(callsplit.KEY)
    for _ in range(4):  # Warm: every call is known, every table has its size.
        _slice(rig, directory, CALLS)
    before, done = _settled(running), 0
    samples: list[tuple[int, int]] = []
    while done < requests:
        rig.forget(callsplit.KEY)
        done += _slice(rig, directory, CALLS)
        samples.append((done, running.rss()))
        say(f"{done:,} of {requests:,} requests, RSS {running.rss() / 2**20:.1f} MB")
    megabytes = [(count / MILLION, rss / 2**20) for count, rss in samples]
    grows, last = round(slope(megabytes), 3), round(megabytes[-1][1], 1)
    opened = _settled(running) - before
    return {
        "requests": done,
        "rss_mb": last,
        "rss_target_mb": 90,
        "rss_mb_per_million": grows,
        "descriptors_more": opened,
        "samples": [{"requests": count, "rss_mb": round(rss / 2**20, 2)} for count, rss in samples],
        "reached": last <= 90 and grows < 1.0 and opened <= 0,
    }


def tracking(rig: Rig, directory: Path, say: Say, calls: int = 100_000) -> dict[str, Any]:
    """What it costs to remember calls: memory before and after many new ones."""
    _, running = rig.peer(callsplit.KEY)
    before, seen = running.rss(), 0
    while seen < calls:
        seen += min(_slice(rig, directory, None), POOL)
        say(f"{seen:,} calls tracked, RSS {running.rss() / 2**20:.1f} MB")
    megabytes = round((running.rss() - before) / seen * 100_000 / 2**20, 1)
    return {
        "calls": seen,
        "mb_per_100000": megabytes,
        "target_mb": 60,
        "reached": megabytes < 60,
    }


def _slice(rig: Rig, directory: Path, calls: int | None) -> int:
    """Five seconds of load with fresh signatures; how many requests that was."""
    pool_file = directory / "pool"
    write_pool(pool_file, "functions", POOL, calls)
    return rig.run(callsplit.KEY, pool_file, Plan(), 5)[0].requests


def _settled(running: Running) -> int:
    """Descriptors once the load is over."""
    time.sleep(SETTLE)
    return running.descriptors()


def reloads(rig: Rig, directory: Path, say: Say, times: int = 100) -> dict[str, Any]:
    """Change the rules `times` times under load; every answer must be good."""
    place, _ = rig.peer(callsplit.KEY)
    pool_file = directory / "pool"
    write_pool(pool_file, "mix", 20_000)
    stop, outcomes, faults = threading.Event(), [], []

    def traffic() -> None:
        try:
            while not stop.is_set():
                outcomes.append(rig.run(callsplit.KEY, pool_file, Plan(), 2)[0])
        except Broken as broken:
            faults.append(str(broken))

    loading = threading.Thread(target=traffic)
    loading.start()
    taken = []
    try:
        now = admin.digest(place.admin_port)
        for number in range(times):
            begins = time.monotonic()
            callsplit.rules(place, 50 + (number % 2 + 1) / 100)
            now = admin.await_other_digest(place.admin_port, now)
            taken.append(time.monotonic() - begins)
            if (number + 1) % 20 == 0:
                say(f"{number + 1} of {times} reloads")
    finally:
        stop.set()
        loading.join()
    return _reloads(taken, outcomes, faults)


def decision() -> dict[str, Any]:
    """Nanoseconds for a call's hash and its side of the share."""
    call_id, number = "call_8b4ae1c23f55e5126bc4bd42684", 200_000
    once = min(
        timeit.repeat(
            lambda: in_share(call_hash(call_id, "a salt of the rules"), 12.5),
            number=number,
            repeat=5,
        )
    )
    nanoseconds = round(once / number * 1e9)
    return {"nanoseconds": nanoseconds, "target": 1000, "reached": nanoseconds < 1000}


def added_latency(
    rig: Rig, peers: Sequence[Peer], say: Say, *, rate: float = 500.0, rounds: int = 3
) -> dict[str, Any]:
    """Percentiles direct and through each peer at the same rate, in turns."""
    os.sched_setaffinity(0, rig.others)
    ports = {"direct": rig.origin_port} | {peer.KEY: rig.peer(peer.KEY)[0].port for peer in peers}
    times: dict[str, list[float]] = {name: [] for name in ports}
    for number in range(rounds + 1):
        for name, port in ports.items():
            requests = pool("functions", int(rate * (3 if number else 1)))
            ending = nginx.ANSWER.encode()
            seconds = latency.measure(port, requests, rate=rate, ending=ending)
            if number:  # The first round warms up.
                times[name] += seconds
        say(f"latency round {number} of {rounds}")
    spreads = {name: Spread.of(seconds) for name, seconds in times.items()}
    base = spreads["direct"].p50
    added = {name: round(one.p50 - base, 4) for name, one in spreads.items() if name != "direct"}
    result: dict[str, Any] = {
        "rate": rate,
        "ms": {name: {"p50": s.p50, "p90": s.p90, "p99": s.p99} for name, s in spreads.items()},
        "added_p50_ms": added,
    }
    if "envoy" in added:
        result["reached"] = added[callsplit.KEY] <= added["envoy"]
    return result


def slope(samples: Sequence[tuple[float, float]]) -> float:
    """Least squares: how much the second grows per one of the first."""
    if len(samples) < 2:
        return 0.0
    return statistics.linear_regression(*zip(*samples, strict=True)).slope


def rig_of(stack: ExitStack, directory: Path, peers: Sequence[Peer]) -> Rig:
    """The peers, running and seen to answer."""
    rig = Rig(stack, directory, peers)
    for peer in peers:
        rig.check(peer.KEY, "functions")
    return rig


def _reloads(taken: list[float], outcomes: list[Outcome], faults: list[str]) -> dict[str, Any]:
    return {
        "reloads": len(taken),
        "median_seconds": round(statistics.median(taken), 3),
        "slowest_seconds": round(max(taken), 3),
        "requests": sum(outcome.requests for outcome in outcomes),
        "errors": len(faults),
        "faults": faults,
        "reached": not faults and max(taken) < 1.0,
    }
