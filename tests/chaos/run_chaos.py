"""`make chaos`: live calls while backends are killed, frozen and sick, and the sidecar restarts.

Two backends with one ledger of what ran, a real `callsplit serve`, callers as Retell and its agents
are.  At the end: was everybody answered, did nothing run twice, is what was told true, did no event
get lost, is nothing left over?  Everything runs on 127.0.0.1; the same seed does the same harm.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

REPEATS = True
"""Agents repeat their writes, and Retell its requests: only the replay guard makes that safe."""

OUTBOX = True
"""Events that no arm takes are answered 2xx and delivered later."""


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=600.0, help="of harm; default: 600")
    parser.add_argument("--seed", type=int, help="default: drawn by lot, and told")
    parser.add_argument("--rate", type=float, default=6.0, help="new calls a second; default: 6")
    parser.add_argument(
        "--kill-sidecar", action="store_true", help="kill -9 the sidecar instead of restarting it"
    )
    parser.add_argument("--repeats", action=argparse.BooleanOptionalAction, default=REPEATS)
    parser.add_argument("--outbox", action=argparse.BooleanOptionalAction, default=OUTBOX)
    parser.add_argument("--keep", type=Path, help="leave ledger, logs and rules in this directory")
    parser.add_argument("--out", type=Path, help="JSON file; default: results/chaos.json")
    return parser.parse_args()


def main() -> int:
    """Run, save, print; 1 if something was found that must not be."""
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # Not this directory.
    from tests.bench.place import RESULTS
    from tests.chaos.run import Plan, run

    asked = arguments()
    seed = asked.seed if asked.seed is not None else time.time_ns() % 1_000_000
    plan = Plan(
        seconds=asked.seconds,
        seed=seed,
        rate=asked.rate,
        kills=asked.kill_sidecar,
        repeats=asked.repeats,
        outbox=asked.outbox,
        keep=asked.keep,
    )
    say(f"seed {seed}, {asked.seconds:.0f} s")
    report: dict[str, Any] = asyncio.run(run(plan, say))
    path = asked.out or RESULTS / "chaos.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))
    return 0 if report["reached"] else 1


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
