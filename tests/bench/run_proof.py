"""`make proof`: start, decision time, latency, breaker cycle, reloads, tokens, a million requests.

Everything runs on 127.0.0.1.  Takes some minutes; progress is told on standard error.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from tests.bench.place import Peer

PARTS = ("start", "decision", "timing", "latency", "cycle", "reloads", "endurance", "tracking")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=1_000_000, help="default: 1000000")
    parser.add_argument("--reloads", type=int, default=100, help="default: 100")
    parser.add_argument("--rate", type=float, default=500.0, help="for latency; default: 500/s")
    parser.add_argument(
        "--no-envoy", action="store_true", help="latency without Envoy, and no cycle"
    )
    parser.add_argument("--only", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    parser.add_argument("--out", type=Path, help="JSON file; default: results/proof.json")
    return parser.parse_args()


def main() -> int:
    """Prove, save, print; 1 if a target was missed, 2 if the run cannot be trusted."""
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # Not this directory.
    from tests.bench import tools
    from tests.bench.place import RESULTS, reported
    from tests.bench.process import Broken

    asked = arguments()
    try:
        tools.provide(envoy=not asked.no_envoy)
        results = prove(asked)
    except Broken as broken:
        print(f"proof: {broken}", file=sys.stderr)
        return 2
    path = asked.out or RESULTS / "proof.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    partly = set(asked.only.split(",")) < set(PARTS)
    report = reported(path, before=partly) | results
    path.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps({name: _short(result) for name, result in results.items()}, indent=1))
    return 0 if all(result.get("reached", True) for result in results.values()) else 1


def prove(asked: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """The parts that were asked for, in a fixed order."""
    from tests.bench import proofs
    from tests.bench.cycle import breaker_cycle
    from tests.bench.peers import callsplit, envoy
    from tests.bench.rounds import scratch
    from tests.bench.timing import token_timing

    parts = asked.only.split(",")
    ours = cast("Peer", callsplit)
    peers = [ours] if asked.no_envoy or "latency" not in parts else [ours, cast("Peer", envoy)]
    results: dict[str, dict[str, Any]] = {}
    with scratch() as directory, ExitStack() as stack:
        if "start" in parts:
            results["start"] = proofs.start_time(directory, say)
        if "decision" in parts:
            results["decision"] = proofs.decision()
        if "timing" in parts:
            results["timing"] = token_timing(directory, say)
        if "cycle" in parts and not asked.no_envoy:
            results["cycle"] = breaker_cycle(directory, say)
        if not {"latency", "reloads", "endurance", "tracking"} & set(parts):
            return results
        rig = proofs.rig_of(stack, directory, peers)
        if "latency" in parts:
            results["latency"] = proofs.added_latency(rig, peers, say, rate=asked.rate)
        if "reloads" in parts:
            results["reloads"] = proofs.reloads(rig, directory, say, asked.reloads)
        if "endurance" in parts:
            results["endurance"] = proofs.endurance(rig, directory, say, asked.requests)
        if "tracking" in parts:
            results["tracking"] = proofs.tracking(rig, directory, say)
        rig.finish()
    return results


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


def _short(result: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in result.items() if name != "samples"}


if __name__ == "__main__":
    sys.exit(main())
