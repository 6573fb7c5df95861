"""`make bench-mcp`: what callsplit adds to an MCP call, and how much its bridge to MCP carries.

An MCP server (`mcp` 2.x, JSON answers) is asked directly and through callsplit, in turns, by the
same plain HTTP client: the difference of the medians is what callsplit adds.  Beside it stands what
a few lines of aiohttp add that only pass on.  Then custom functions of Retell's go through
callsplit to that server, and tools/calls through FastMCP's proxy: as many a second as each carries.
Everything runs on 127.0.0.1.  For the first, the kernel places the processes, and no core may fall
asleep; for the second, the proxies have a core to themselves.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

    from tests.bench.place import Peer

PARTS = ("added", "bridge")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--calls", type=int, default=500, help="per era and round; default: 500")
    parser.add_argument("--seconds", type=float, default=4, help="per load and round; default: 4")
    parser.add_argument("--only", default=",".join(PARTS), help=f"some of {','.join(PARTS)}")
    parser.add_argument("--no-compiled", action="store_true", help="without the compiled build")
    parser.add_argument("--out", type=Path, help="JSON file; default: results/bench-mcp.json")
    return parser.parse_args()


def main() -> int:
    """Measure, show, save; 1 if a goal was missed, 2 if the run cannot be trusted."""
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # Not this directory.
    from rich.console import Console

    from tests.bench.place import RESULTS
    from tests.bench.process import Broken
    from tests.mcp.environments import Unavailable

    asked = arguments()
    try:
        results = measure(asked)
    except (Broken, Unavailable) as broken:
        print(f"bench-mcp: {broken}", file=sys.stderr)
        return 2
    show(results, Console(width=None if sys.stdout.isatty() else 110))
    path = asked.out or RESULTS / "bench-mcp.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"about": about(asked), **results}, indent=1) + "\n")
    return 0 if reached(results) else 1


def measure(asked: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """The parts that were asked for."""
    from contextlib import ExitStack

    from tests.bench import mcp_cost, tools
    from tests.bench.rounds import scratch

    parts = asked.only.split(",")
    compiled = "added" in parts and not asked.no_compiled and tools.compiled()
    if "bridge" in parts:
        tools.provide(envoy=False)
    results: dict[str, dict[str, Any]] = {}
    with scratch() as directory, ExitStack() as stack:
        rig = mcp_cost.Rig(stack, directory, peers(parts, compiled=compiled))
        if "added" in parts:
            results["added"] = mcp_cost.added(rig, say, rounds=asked.rounds, calls_each=asked.calls)
        if "bridge" in parts:
            carried = mcp_cost.carried(rig, say, rounds=asked.rounds, seconds=asked.seconds)
            results["bridge"] = {"functions": carried}
        rig.finish()
    return results


def peers(parts: list[str], *, compiled: bool) -> list[Peer]:
    """Who is needed for these parts."""
    from tests.bench.peers import callsplit_mcp, callsplit_mcp_compiled, fastmcp_proxy, passing

    wanted: list[Any] = [callsplit_mcp]
    if "added" in parts:
        wanted += [passing, *([callsplit_mcp_compiled] if compiled else [])]
    return wanted + ([fastmcp_proxy] if "bridge" in parts else [])


def reached(results: dict[str, dict[str, Any]]) -> bool:
    """Every goal that was measured is reached, by one of our builds at least."""
    goals: dict[str, list[bool]] = {}
    for rows in results.values():
        for name, row in rows.items():
            if row["reached"] is not None:
                goals.setdefault(name.partition(",")[0], []).append(row["reached"])
    return all(map(any, goals.values()))


def show(results: dict[str, dict[str, Any]], console: Console) -> None:
    """A table for each part, and what the goals say."""
    from rich.table import Table

    for part, rows in results.items():
        title = {"added": "a warm tools/call", "bridge": "a second, same server behind"}[part]
        table = Table(title=title, title_justify="left")
        first = next(iter(rows.values()))
        for name in ("", *first):
            table.add_column(name.replace("_", " "), justify="right" if name else "left")
        for name, row in rows.items():
            table.add_row(name, *(_cell(value) for value in row.values()))
        console.print(table)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "NO"
    return f"{value:g}"


def about(asked: argparse.Namespace) -> dict[str, Any]:
    """What was measured how."""
    return {
        "machine": platform.platform(),
        "python": platform.python_version(),
        "mcp": version("mcp"),
        "plan": {"rounds": asked.rounds, "calls": asked.calls, "seconds": asked.seconds},
    }


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
