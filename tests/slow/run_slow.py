"""`make slow`: callers who send, read or wait for ever; what normal callers notice, and memory.

Each attack meets a fresh `callsplit serve`.  Three are slowhttptest's, at 200 connections.  All is
well if every normal answer came within 100 ms meanwhile and memory grew by less than 20 MB.
Everything runs on 127.0.0.1 and takes about two minutes.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="some of them, with commas between")
    parser.add_argument("--out", type=Path, help="JSON file; default: results/slow.json")
    return parser.parse_args()


def main() -> int:
    """Attack, save, print; 1 if somebody waited or memory grew, 2 if nothing could be tried."""
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # Not this directory.
    from tests.bench.place import RESULTS, reported
    from tests.bench.process import Broken
    from tests.slow.attacks import ATTACKS

    asked = arguments()
    names = asked.only.split(",") if asked.only else list(ATTACKS)
    if unknown := [name for name in names if name not in ATTACKS]:
        say(f"slow: no such attack: {', '.join(unknown)}; there are {', '.join(ATTACKS)}")
        return 2
    path = asked.out or RESULTS / "slow.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    results = reported(path, before=bool(asked.only))
    try:
        with tempfile.TemporaryDirectory(prefix="callsplit-slow-") as directory:
            for name in names:
                results[name] = run(name, Path(directory) / name)
    except Broken as broken:
        say(f"slow: {broken}")
        return 2
    path.write_text(json.dumps(results, indent=1) + "\n")
    return 0 if all(result["reached"] for result in results.values()) else 1


def run(name: str, directory: Path) -> dict[str, Any]:
    """One attack on a sidecar of its own."""
    from tests.slow.attacks import ATTACKS, CONNECTIONS
    from tests.slow.stand import GROWTH, Callers, standing

    with standing(directory, CONNECTIONS if name == "crowd" else 10_000) as stand:
        warm = Callers(stand)
        for _ in range(200):
            warm.once()
        before = stand.sidecar.rss()
        callers = Callers(stand)
        with callers.calling():
            found = ATTACKS[name](stand)
        callers.once()
        grown = max(callers.peak, stand.sidecar.rss()) - before
        held = found.pop("reached", True)
        result = {
            **found,
            "callers": callers.report(),
            "rss_before_mb": round(before / 2**20, 1),
            "rss_grown_mb": round(grown / 2**20, 1),
            "reached": held and callers.served and grown < GROWTH,
        }
    slowest = max(each["slowest_ms"] for each in result["callers"].values())
    say(f"{name}: slowest answer {slowest} ms, memory +{result['rss_grown_mb']} MB")
    return result


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
