"""The measurements of `make bench-mcp`: what callsplit adds to a call, and what its bridge carries.

Direct, through callsplit, and through a proxy that only passes on take turns, some calls each,
so that whatever the machine does meanwhile happens to all.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import uvloop

from tests.bench import calls, load, mcp_calls
from tests.bench.peers import (
    callsplit_mcp,
    callsplit_mcp_compiled,
    fastmcp_proxy,
    mcp_server,
    passing,
)
from tests.bench.place import Peer, Place, free_port
from tests.bench.process import Broken, Running, awake, cores

ADDED_MS = 0.35
"""What callsplit may add to the median of a warm tools/call."""

TIMES = 20.0
"""How many times the throughput of FastMCP's proxy the bridge must have."""

DIRECT = "direct"
OURS = (callsplit_mcp.KEY, callsplit_mcp_compiled.KEY)
WARM_UP = 100
TURN = 50
"""Calls before the next has its turn: with a turn for each, none would find its core warm."""

CONNECTIONS = 8
"""That keep the bridge, or the proxy, busy."""

Say = Callable[[str], None]


@dataclass(slots=True)
class Warm:
    """Milliseconds of a warm tools/call in one era: the medians of the rounds, by who was asked."""

    era: str
    medians: dict[str, list[float]] = field(default_factory=dict)

    def results(self) -> dict[str, dict[str, Any]]:
        """For the table and the file: what each proxy added, compared round by round."""
        direct = self.medians[DIRECT]
        rows: dict[str, dict[str, Any]] = {}
        for key, through in self.medians.items():
            if key == DIRECT:
                continue
            added = [mine - theirs for mine, theirs in zip(through, direct, strict=True)]
            rows[f"{self.era}, {key}"] = {
                "direct_p50_ms": round(statistics.median(direct), 3),
                "through_p50_ms": round(statistics.median(through), 3),
                "added_ms": round(statistics.median(added), 3),
                "lowest": round(min(added), 3),
                "highest": round(max(added), 3),
                "target": ADDED_MS if key in OURS else None,
                "reached": statistics.median(added) <= ADDED_MS if key in OURS else None,
            }
        return rows


@dataclass(slots=True)
class Carried:
    """Calls a second, round by round."""

    bridge: list[float] = field(default_factory=list)  # functions of Retell's, through callsplit
    proxy: list[float] = field(default_factory=list)  # tools/call through FastMCP's proxy
    direct: list[float] = field(default_factory=list)  # tools/call, with nothing in between

    def result(self) -> dict[str, Any]:
        """For the table and the file."""
        ratios = [ours / theirs for ours, theirs in zip(self.bridge, self.proxy, strict=True)]
        times = statistics.median(ratios)
        return {
            "callsplit_per_second": round(statistics.median(self.bridge), 1),
            "fastmcp_per_second": round(statistics.median(self.proxy), 1),
            "direct_per_second": round(statistics.median(self.direct), 1),
            "times": round(times, 1),
            "lowest": round(min(ratios), 1),
            "highest": round(max(ratios), 1),
            "target": TIMES,
            "reached": times >= TIMES,
        }


class Rig:
    """One MCP server, and all peers before it."""

    def __init__(self, stack: ExitStack, directory: Path, peers: Sequence[Peer]) -> None:
        self._core, self.others = cores()
        self._pool = directory / "pool"
        self.server_port = free_port()
        self._server = self._start(
            stack, directory, "server", mcp_server.command, self.others, self.server_port
        )
        self.peers = {peer.KEY: peer for peer in peers}
        self.places: dict[str, Place] = {}
        self.requests = dict.fromkeys(self.peers, 0)
        self._running: dict[str, Running] = {}
        for key, peer in self.peers.items():
            self._running[key] = self._start(stack, directory, key, peer.command, self._core)

    @contextmanager
    def anywhere(self) -> Iterator[None]:
        """Meanwhile every process runs where the kernel puts it, as in production."""
        for running in (self._server, *self._running.values()):
            running.confine(self._core | self.others)
        try:
            yield
        finally:
            self._server.confine(self.others)
            for running in self._running.values():
                running.confine(self._core)

    def _start(
        self,
        stack: ExitStack,
        directory: Path,
        name: str,
        command: Callable[[Place], list[str]],
        on: set[int],
        port: int | None = None,
    ) -> Running:
        home = directory / name
        home.mkdir()
        place = Place(home, self.server_port)
        if port is None:
            self.places[name] = place
        running = Running(command(place), home, on, place.access_log)
        stack.enter_context(running).await_port(port or place.port)
        return running

    def load(self, port: int, write: Callable[[Path], None], seconds: float) -> float:
        """Calls a second that get an answer.  Raises `Broken` if one does not get a good one."""
        write(self._pool)
        outcome = load.run(
            port, self._pool, seconds=seconds, connections=CONNECTIONS, cores=self.others
        )
        for key, place in self.places.items():
            if place.port == port:
                self.requests[key] += outcome.requests
        return outcome.requests / outcome.seconds

    def finish(self) -> None:
        """Stop the peers.  Raises `Broken` if one cannot have done its whole job."""
        for key, peer in self.peers.items():
            self._running[key].stop()  # What is logged is flushed by now.
            if fault := peer.fault(self.places[key], self.requests[key]):
                raise Broken(f"{peer.LABEL}: {fault}")


class Caller:
    """A warm connection with, in the legacy era, a session."""

    def __init__(self, client: aiohttp.ClientSession, port: int, path: str, era: str) -> None:
        self._client, self._era = client, era
        self._url = f"http://127.0.0.1:{port}{path}"
        self._headers = mcp_calls.headers(era)
        self._pick, self._number = random.Random(), 0

    async def open(self) -> None:
        """Shake hands, where the era asks for it."""
        if self._era != "legacy":
            return
        first = mcp_calls.headers("handshake")
        async with self._client.post(self._url, json=mcp_calls.INITIALIZE, headers=first) as answer:
            session = answer.headers.get("mcp-session-id")
            if answer.status != 200 or session is None:
                raise Broken(f"initialize was answered {answer.status}: {await answer.text()}")
        self._headers["mcp-session-id"] = session
        async with self._client.post(
            self._url, json=mcp_calls.INITIALIZED, headers=self._headers
        ) as answer:
            await answer.read()

    async def call(self) -> float:
        """Milliseconds of one tools/call.  Raises `Broken` unless the tool ran."""
        self._number += 1
        body = mcp_calls.tools_call(self._era, self._number, self._pick)
        begins = time.perf_counter()
        async with self._client.post(self._url, data=body, headers=self._headers) as answer:
            said = await answer.read()
        taken = time.perf_counter() - begins
        if answer.status != 200 or b"Booked for" not in said:
            raise Broken(f"{self._url} answered {answer.status}: {said[:300]!r}")
        return taken * 1000


def added(rig: Rig, say: Say, *, rounds: int, calls_each: int) -> dict[str, Any]:
    """What callsplit adds to the median of a warm call, by era."""
    with awake(), rig.anywhere():
        return uvloop.run(_added(rig, say, rounds, calls_each))


async def _added(rig: Rig, say: Say, rounds: int, calls_each: int) -> dict[str, Any]:
    through = {key: rig.places[key].port for key in (*OURS, passing.KEY) if key in rig.places}
    ports = {DIRECT: rig.server_port} | through
    results: dict[str, Any] = {}
    async with aiohttp.ClientSession() as client:
        for era in mcp_calls.ERAS:
            callers = {
                key: Caller(client, port, f"/mcp/call_bench_{era}" if key in OURS else "/mcp", era)
                for key, port in ports.items()
            }
            for caller in callers.values():
                await caller.open()
            await _turns(callers, WARM_UP)
            warm = Warm(era, {key: [] for key in callers})
            for number in range(rounds):
                medians = await _turns(callers, calls_each)
                for key, middle in medians.items():
                    warm.medians[key].append(middle)
                told = ", ".join(f"{middle:.3f} {key}" for key, middle in medians.items())
                say(f"{era}, round {number + 1}: {told} ms")
            for key in through:
                rig.requests[key] += WARM_UP + rounds * calls_each
            results |= warm.results()
    return results


async def _turns(callers: Mapping[str, Caller], count: int) -> dict[str, float]:
    """The median of each caller's calls."""
    taken: dict[str, list[float]] = {key: [] for key in callers}
    for _ in range(count // TURN):
        for key, caller in callers.items():
            taken[key] += [await caller.call() for _ in range(TURN)]
    return {key: statistics.median(ones) for key, ones in taken.items()}


def carried(rig: Rig, say: Say, *, rounds: int, seconds: float) -> dict[str, Any]:
    """Functions a second over the bridge, beside tools/calls a second through FastMCP's proxy."""
    bridge, proxy = (rig.places[peer.KEY].port for peer in (callsplit_mcp, fastmcp_proxy))
    result = Carried()
    for number in range(rounds + 1):
        length = seconds if number else 1.0
        ours = rig.load(bridge, _functions, length)
        theirs = rig.load(proxy, _tools_calls, length)
        nobody = rig.load(rig.server_port, _tools_calls, length)
        if number == 0:
            continue  # Warm now.
        result.bridge.append(ours)
        result.proxy.append(theirs)
        result.direct.append(nobody)
        say(f"bridge, round {number}: {ours:.0f}/s, FastMCP {theirs:.1f}/s, direct {nobody:.0f}/s")
    return result.result()


def _functions(path: Path) -> None:
    calls.write_pool(path, "functions", 20_000)


def _tools_calls(path: Path) -> None:
    mcp_calls.write_pool(path, 20_000)
