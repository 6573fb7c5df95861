"""Does the time of a refusal tell how near a token came?

Wrong tokens of several sorts are presented in random order, over a connection to a running sidecar
and to the comparison itself; each sort is compared with those that differ in their first byte, by
ranks (Mann, Whitney 1947; ties corrected).  A comparison that does end at the first wrong byte is
measured the same way: its difference must be found, or the measurement sees nothing.
"""

from __future__ import annotations

import json
import math
import os
import random
import socket
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from proxy.core.tokens import TokenSet
from tests.bench import admin
from tests.bench.place import Place, free_port
from tests.bench.process import Broken, Running, cores

SAMPLES = 2000
"""Of each sort."""

ALPHA = 0.001
"""A p below it is a difference.  Of all runs without one, one in a few hundred shows one all the
same: then the run is repeated, and a difference counts only if it shows again."""

TOKEN = "3f9c2d7a1b8e4f60a5d2c7e9b1f4a8d3"
BACKUP = "90e1b7c3d5f2a8461c0e9d7b3a5f8c24"

Say = Callable[[str], None]


def sorts(token: str) -> dict[str, bytes]:
    """A wrong token of each sort, as near to the right one as it can be."""
    flipped = {"0": "1"}
    first = flipped.get(token[0], "0") + token[1:]
    last = token[:-1] + flipped.get(token[-1], "0")
    return {
        "first byte": first.encode(),
        "last byte": last.encode(),
        "half": (token[: len(token) // 2] + first[0] * (len(token) - len(token) // 2)).encode(),
        "one shorter": token[:-1].encode(),
        "one longer": (token + "0").encode(),
        "not ASCII": (token[:-2] + "\u00e9").encode(),
        "nothing right": first[::-1].encode(),
    }


def token_timing(directory: Path, say: Say, samples: int = SAMPLES) -> dict[str, Any]:
    """The sidecar's answers, the comparison by itself, and one that leaks."""
    for attempt in (1, 2):
        wire = _over_the_wire(directory / f"timing-{attempt}", samples)
        say(f"timing over the wire: p from {_least(wire):.3g}")
        if _least(wire) >= ALPHA:
            break
    alone, leaky = _alone(samples, _ours), _alone(samples, _leaky)
    say(
        f"timing of the comparison alone: p {_least(alone):.3g}; of a leaky one {_least(leaky):.3g}"
    )
    return {
        "samples_of_each_sort": samples,
        "alpha": ALPHA,
        "attempts": attempt,
        "over_the_wire": wire,
        "comparison_alone": alone,
        "leaky_comparison": leaky,
        "reached": min(_least(wire), _least(alone)) >= ALPHA and _least(leaky) < ALPHA,
    }


def compared(times: Mapping[str, Sequence[int]]) -> dict[str, dict[str, float]]:
    """Each sort beside the first: medians, their difference with its 95 % interval, and p."""
    (base, *_), rows = times, {}
    for name, taken in times.items():
        row = {"median_us": round(statistics.median(taken) / 1000, 3)}
        if name != base:
            low, high = _interval(times[base], taken)
            row |= {
                "difference_us": round(
                    (statistics.median(taken) - statistics.median(times[base])) / 1000, 3
                ),
                "from_us": round(low / 1000, 3),
                "to_us": round(high / 1000, 3),
                "p": round(rank_test(times[base], taken), 6),
            }
        rows[name] = row
    return rows


def rank_test(left: Sequence[float], right: Sequence[float]) -> float:
    """The two-sided p of the Mann-Whitney U test, by its normal approximation."""
    n, m = len(left), len(right)
    marked = sorted([(value, 0) for value in left] + [(value, 1) for value in right])
    ranks, ties, at = 0.0, 0.0, 0
    while at < n + m:
        end = at
        while end < n + m and marked[end][0] == marked[at][0]:
            end += 1
        ranks += (at + end + 1) / 2 * sum(1 - side for _, side in marked[at:end])
        ties += (end - at) ** 3 - (end - at)
        at = end
    u = ranks - n * (n + 1) / 2
    spread = n * m / 12 * (n + m + 1 - ties / ((n + m) * (n + m - 1)))
    return math.erfc(abs(u - n * m / 2) / math.sqrt(2 * spread)) if spread > 0 else 1.0


def _over_the_wire(home: Path, samples: int) -> dict[str, dict[str, float]]:
    """One kept connection; each request is answered 401 before the next is sent."""
    home.mkdir()
    place = Place(home, origin_port=free_port())
    rules = {
        "listen": {"address": f"127.0.0.1:{place.port}", "access_log": False},
        "admin": {"address": f"127.0.0.1:{place.admin_port}"},
        "backends": {"mcp": {"handler": "demo", "options": {"like": "mcp"}},
                     "webhook": {"handler": "demo"}},
        "auth": {"tokens": ["env:TOKEN", "env:BACKUP"],
                 "require": {"mcp": ["token"], "tools": ["token"]}},
        "limits": {"ip_per_minute": None},
        "state_dir": str(home / "state"),
    }  # fmt: skip
    (home / "rules.yaml").write_text(json.dumps(rules))
    (home / "env").write_text(f"TOKEN={TOKEN}\nBACKUP={BACKUP}\n")
    command = [sys.executable, "-m", "proxy", "serve", "--rules", str(home / "rules.yaml"),
               "--env-file", str(home / "env")]  # fmt: skip
    peer, ours = cores()
    with Running(command, home, peer):
        admin.await_ready(place.admin_port)
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, ours)
        try:
            with socket.create_connection(("127.0.0.1", place.port)) as connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                return compared(_shuffled(samples, sorts(TOKEN), _asker(connection)))
        finally:
            os.sched_setaffinity(0, before)


def _asker(connection: socket.socket) -> Callable[[bytes], int]:
    head = b"POST /mcp HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nAuthorization: Bearer %b\r\n\r\n"
    clock = time.perf_counter_ns

    def ask(token: bytes) -> int:
        request = head % token
        begins = clock()
        connection.sendall(request)
        answer = connection.recv(65_536)
        taken = clock() - begins
        if not answer.startswith(b"HTTP/1.1 401 ") or not answer.endswith(b"}"):
            raise Broken("a wrong token was not answered 401, in one piece")
        return taken

    return ask


def _alone(samples: int, find: Callable[[bytes], Callable[[bytes], object]]) -> Any:
    """The comparison by itself, with tokens so long that one that leaks takes its time."""
    token = TOKEN * 128
    tries = {name: wrong for name, wrong in sorts(token).items() if len(wrong) == len(token)}
    look, clock = find(token.encode()), time.perf_counter_ns

    def ask(wrong: bytes) -> int:
        begins = clock()
        for _ in range(20):
            look(wrong)
        return clock() - begins

    return compared(_shuffled(samples, tries, ask))


def _ours(token: bytes) -> Callable[[bytes], object]:
    return TokenSet([token, BACKUP.encode()]).find


def _leaky(token: bytes) -> Callable[[bytes], object]:
    return lambda presented: presented == token


def _shuffled(
    samples: int, tries: Mapping[str, bytes], ask: Callable[[bytes], int]
) -> dict[str, list[int]]:
    """Nanoseconds of each try by its sort, in an order that no drift can favour."""
    times: dict[str, list[int]] = {name: [] for name in tries}
    for wrong in list(tries.values()) * 50:  # Warm.
        ask(wrong)
    order = list(tries) * samples
    random.Random(7).shuffle(order)
    for name in order:
        times[name].append(ask(tries[name]))
    return times


def _interval(left: Sequence[int], right: Sequence[int], rounds: int = 200) -> tuple[float, float]:
    """Where the difference of the medians lies, with 95 %: by drawing anew (bootstrap)."""
    draw = random.Random(7).choices
    found = sorted(
        statistics.median(draw(right, k=len(right))) - statistics.median(draw(left, k=len(left)))
        for _ in range(rounds)
    )
    return found[rounds // 40], found[-rounds // 40 - 1]


def _least(rows: Mapping[str, Mapping[str, float]]) -> float:
    return min(row["p"] for row in rows.values() if "p" in row)
