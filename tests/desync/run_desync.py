"""`make desync`: other people's vectors, and our own mutations, through a real sidecar.

A raw origin records what arrives, canaries fly behind each entry, and a reader of HTTP by the
letter, which shares no code with the sidecar, says what should have.  Prints counts per file and
every entry that is a violation or was turned away without a row that says so; then exit 1.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from pathlib import Path
from typing import Any


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vectors", type=Path, help="directory; default: tests/desync/vectors")
    parser.add_argument(
        "--mutations",
        type=int,
        default=400,
        help="of our own, of requests and of answers each; default: 400; 0: nothing of our own",
    )
    parser.add_argument("--seed", type=int, default=1, help="of the mutations; default: 1")
    parser.add_argument("--only", help="only entries whose ID contains this")
    parser.add_argument("--all", action="store_true", help="print every entry, not only findings")
    parser.add_argument("--out", type=Path, help="JSON file; default: results/desync.json")
    return parser.parse_args()


def main() -> int:
    """Run, save, print; 1 if something was found that must not be."""
    sys.path[0] = str(Path(__file__).resolve().parents[2])  # Not this directory.
    import uvloop

    from tests.bench.place import RESULTS
    from tests.desync import vectors
    from tests.desync.mutations import answers, mutations
    from tests.desync.obfuscations import obfuscations
    from tests.desync.report import print_report
    from tests.desync.runs import run

    asked = arguments()
    files = vectors.load(asked.vectors or vectors.HERE)
    if not files:
        print(f"no vector files (*.json, *.json.gz) in {asked.vectors}", file=sys.stderr)
        return 2
    if asked.mutations:
        files["own obfuscations"] = obfuscations()
        files["own mutations"] = mutations(asked.seed, asked.mutations)
        files["own answers"] = answers(asked.seed, asked.mutations)
    if asked.only:
        files = {name: [v for v in some if asked.only in v.id] for name, some in files.items()}
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result = runner.run(run(files))
    good = print_report(result, everything=asked.all)
    out = asked.out or RESULTS / "desync.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    summary: dict[str, Any] = result.summary()
    out.write_text(json.dumps({"seed": asked.seed, **summary}, indent=1) + "\n")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
