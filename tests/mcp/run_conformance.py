"""`make conformance`: the official MCP conformance suite, direct and through callsplit.

Whatever passes direct must pass through callsplit.  Needs no network once Node and the suite are
below `.cache/conformance`.  Takes about two minutes; progress is told on standard error.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.mcp.suite_parts import Row

NAMES = ("everything", "reference", "outage", "client")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default=",".join(NAMES), help=f"some of {','.join(NAMES)}")
    parser.add_argument("--keep", type=Path, help="leave the suite's own results in this directory")
    parser.add_argument("--out", type=Path, help="JSON file; default: results/conformance.json")
    return parser.parse_args()


def main() -> int:
    """Run, save, show; 1 if anything was lost that is not known, 2 if the run cannot be trusted."""
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # Not this directory.
    from tests.bench.place import RESULTS
    from tests.mcp import suite, suite_parts, suite_rig, suite_tools
    from tests.mcp.environments import Unavailable

    asked = arguments()
    rows: list[Row] = []
    try:
        tools = suite_tools.provide()
        with ExitStack() as stack:
            folder = asked.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            for name in asked.only.split(","):
                rows += suite_parts.PARTS[name](tools, folder / name, say)
    except (Unavailable, suite.Broken, suite_rig.Broken, suite_parts.Incomplete) as broken:
        print(f"conformance: {broken}", file=sys.stderr)
        return 2
    path = asked.out or RESULTS / "conformance.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record(rows, tools.versions), indent=1) + "\n")
    show(rows)
    return 1 if any(row.surprises for row in rows) else 0


def record(rows: list[Row], versions: dict[str, str]) -> dict[str, Any]:
    """What was run, when, and what came out."""
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"mcp": version("mcp"), **versions},
        "rows": [row.as_dict() for row in rows],
    }


def show(rows: list[Row]) -> None:
    """A table, and below it every check that was lost, or the reason where that is known."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="conformance: checks that pass", title_justify="left")
    for name in ("part", "asked", "direct", "through callsplit", "lost"):
        table.add_column(name, justify="left" if name in ("part", "asked") else "right")
    for row in rows:
        direct = str(row.direct.passed) if row.direct else "-"
        table.add_row(row.part, row.asked, direct, str(row.through.passed), str(len(row.lost)))
    console = Console()
    console.print(table)
    for row in rows:
        known = [f"known: {row.known}" if row.lost else f"no longer lost: {row.known}"]
        for line in known if row.known else row.lost:
            console.print(f"{row.part}, {row.asked}: {line}", markup=False, soft_wrap=True)


def say(text: str) -> None:
    """Progress."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
