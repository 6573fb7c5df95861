"""`make restarts`: rolling restarts under kept connections; no request lost, no write run twice.

Sixteen callers who never ask twice hold on to their connections.  Every fifth request is a write,
and each write is asked for by two of them.  Meanwhile one process follows another: first by
SIGUSR2, then as a supervisor does it, that gives old and new the same socket.  All on 127.0.0.1.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.functional.restart_kit import Callers, Given, Line
    from tests.functional.wire import Origin

WAYS = ("signal", "supervisor")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=15_000, help="at least; default: 15000")
    parser.add_argument("--restarts", type=int, default=4, help="default: 4")
    parser.add_argument("--callers", type=int, default=16, help="default: 16")
    parser.add_argument("--only", choices=WAYS, help="one way of both")
    parser.add_argument("--out", type=Path, help="JSON file; default: results/restarts.json")
    return parser.parse_args()


def main() -> int:
    """Run, save, print; 1 if a request was lost or a write ran twice."""
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # Not this directory.
    from tests.bench.place import RESULTS

    asked = arguments()
    report = asyncio.run(both(asked))
    path = asked.out or RESULTS / "restarts.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))
    return 0 if all(each["reached"] for each in report.values()) else 1


async def both(asked: argparse.Namespace) -> dict[str, Any]:
    """Each way that was asked for."""
    return {way: await rolled(way, asked) for way in WAYS if asked.only in (None, way)}


async def rolled(way: str, asked: argparse.Namespace) -> dict[str, Any]:
    """One way: its figures."""
    from tests.functional.restart_kit import Callers, Given, Line, listening
    from tests.functional.wire import Origin, answers, mcp, runs, text

    arm = Origin("mcp", mcp(runs(text('{"ok":true}'))))
    other = Origin("webhook", answers(b'{"ok":true}'))
    with tempfile.TemporaryDirectory() as folder, listening() as sock:
        line = Line(Path(folder)) if way == "signal" else Given(Path(folder), {"callsplit": sock})
        try:
            await arm.listen()
            await other.listen()
            await begin(line, arm, other)
            callers = Callers(line.port, asked.callers, ask)
            pauses = await roll(line, callers, asked)
            tally = await callers.end()
            failed = line.events("restart_failed")
        finally:
            await line.stop()
            await arm.stop()
            await other.stop()
    ran = Counter(seen.json["params"]["arguments"]["n"] for seen in arm.tools if is_write(seen))
    reasons = Counter(tally.reasons)
    return {
        "requests": tally.answers,
        "restarts": asked.restarts,
        "lost": len(tally.lost),
        "why": tally.lost[:5],
        "other_statuses": len(tally.others),
        "told_to_close": tally.closes,
        "writes": len(ran),
        "writes_run_twice": sum(1 for times in ran.values() if times > 1),
        "answers_by_reason": dict(reasons),
        "nobody_accepted_ms": pauses,
        "failed": failed,
        "reached": not (tally.lost or tally.others or failed)
        and set(ran.values()) == {1}
        and tally.answers >= asked.requests,
    }


async def begin(line: Line, arm: Origin, other: Origin) -> None:
    """The first process, and rules for all of them."""
    from tests.functional.kit import rules, write_rules
    from tests.functional.restart_kit import Given

    document = rules(arm, other, state_dir=str(line.rules_path.parent / "state"))
    document["tools"]["default"] = {"effect": "read"}
    write_rules(line.rules_path, document)
    if isinstance(line, Given):
        await line.follow()
    else:
        await line.launch()
    await line.upped()


async def roll(line: Line, callers: Callers, asked: argparse.Namespace) -> list[int]:
    """One restart after another, spread over all requests; how long nobody accepted, in ms."""
    share = asked.requests // (asked.restarts + 1) + 1
    for count in range(asked.restarts):
        await callers.answered(share)
        began = time.monotonic()
        await follow(line, count + 2)
        say(f"restart {count + 1}: {time.monotonic() - began:.2f} s to the next process")
    await callers.answered(share)
    return [each["shut_ms"] for each in line.events("handed_over")]


async def follow(line: Line | Given, count: int) -> None:
    """Have the newest process followed."""
    from tests.functional.restart_kit import Given

    old = line.started()[-1]["pid"]
    if not isinstance(line, Given):
        os.kill(old, signal.SIGUSR2)
        await line.upped(count)
        return
    await line.follow()
    await line.upped(count)
    os.kill(old, signal.SIGTERM)  # As supervisors do; it drains already.


def ask(number: int) -> bytes:
    """Reads, and every fifth time a write, which another caller asks for too."""
    from tests.functional.kit import BOOK, SLOTS, function
    from tests.functional.wire import request

    if number % 5:
        return request("POST", "/retell", function(SLOTS, f"call_{number % 200}", {"n": number}))
    twin = number // 10
    return request("POST", "/retell", function(BOOK, f"writer_{twin}", {"n": twin}))


def is_write(seen: Any) -> bool:
    """Whether that ran the tool which must not run twice."""
    from tests.functional.kit import BOOK

    return bool(seen.json["params"]["name"] == BOOK)


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
