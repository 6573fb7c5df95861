"""`make bench`: what one proxied request costs, callsplit beside Envoy, nginx and plain aiohttp.

Everything runs on 127.0.0.1: the proxy under measurement alone on one core, wrk and the origin on
the others, 64 keep-alive connections, 1.2 kB Retell bodies.  CPU is what the kernel charged to the
proxy's process, user and system, over the answers it gave.  Read the ratios, not the figures.
"""

from __future__ import annotations

import argparse
import platform
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from tests.bench.place import Peer

PEERS = ("naive", "callsplit", "callsplit_compiled", "envoy", "envoy_plain", "nginx", "floor")
IN_THE_MIX = ("naive", "callsplit", "callsplit_compiled", "envoy")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    parser.add_argument("--seconds", type=int, default=4, help="per proxy and round; default: 4")
    parser.add_argument("--connections", type=int, default=64, help="default: 64")
    parser.add_argument(
        "--only", default=",".join(PEERS), help=f"some of {','.join(PEERS)}; default: all"
    )
    parser.add_argument("--load", choices=("functions", "mix", "both"), default="both")
    parser.add_argument("--out", type=Path, help="JSON file; default: results/bench.json")
    return parser.parse_args()


def main() -> int:
    """Measure, show, save; 1 if a target was missed, 2 if the run cannot be trusted."""
    sys.path[0] = str(
        Path(__file__).resolve().parents[2]
    )  # Not this directory: its names are common.
    from rich.console import Console

    from tests.bench import table, tools
    from tests.bench.place import RESULTS
    from tests.bench.process import Broken
    from tests.bench.rounds import Plan, measure

    asked = arguments()
    chosen = [name for name in PEERS if name in asked.only.replace("-", "_").split(",")]
    loads = ("functions", "mix") if asked.load == "both" else (asked.load,)
    plan = Plan(rounds=asked.rounds, seconds=asked.seconds, connections=asked.connections)
    try:
        tools.provide(envoy=any(name.startswith("envoy") for name in chosen))
        if "callsplit_compiled" in chosen and not tools.compiled():
            chosen.remove("callsplit_compiled")
        peers = {name: cast("Peer", import_module(f"tests.bench.peers.{name}")) for name in chosen}
        wanted = [
            (peers[name], kind)
            for kind in loads
            for name in chosen
            if kind == "functions" or name in IN_THE_MIX
        ]
        rows = measure(wanted, plan)
    except Broken as broken:
        print(f"bench: {broken}", file=sys.stderr)
        return 2
    table.show(rows, Console(width=None if sys.stdout.isatty() else 110))
    about = {
        "machine": platform.platform(),
        "python": platform.python_version(),
        "plan": {"rounds": plan.rounds, "seconds": plan.seconds, "connections": plan.connections},
    }
    table.save(rows, about, asked.out or RESULTS / "bench.json")
    return 0 if table.all_reached(rows) else 1


if __name__ == "__main__":
    sys.exit(main())
