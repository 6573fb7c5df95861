"""How the figures are shown: a table for people, JSON for machines."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.bench.rounds import Row

OURS = {"callsplit": "callsplit is", "callsplit_compiled": "compiled is"}
"""Our builds, and the heading of what each costs as a share of the other peers' cost."""

TARGETS = {("functions", "envoy"): 0.85, ("functions", "naive"): 0.45, ("mix", "envoy"): 1.0}
"""What each build's CPU per request may be at most, as a share of another peer's."""
DISTURBED = 0.05
"""The share of the core, used by others, from which figures are not to be trusted."""


def ratio(row: Row, base: Row) -> float:
    """CPU of `row` over that of `base`: the median of the rounds, each compared with itself.

    Rounds are compared in pairs because the machine is not the same from one to the next.
    """
    pairs = zip(row.cpu_us, base.cpu_us, strict=True)
    return float(statistics.median(mine / other for mine, other in pairs))


def show(rows: list[Row], console: Console) -> None:
    """One table per load, and what the targets say."""
    for kind in dict.fromkeys(row.load for row in rows):
        here = [row for row in rows if row.load == kind]
        bases = [row for row in here if row.peer in OURS]
        table = Table(title=f"load: {kind}", title_justify="left")
        for name in (
            "proxy",
            "CPU us/request",
            "lowest",
            *(OURS[row.peer] for row in bases),
            "rps",
            "p50 ms",
            "p99 ms",
        ):
            table.add_column(name, justify="left" if name == "proxy" else "right")
        table.add_column("RSS MB", justify="right")
        for row in sorted(here, key=lambda one: one.middle("cpu_us")):
            table.add_row(*_cells(row, bases))
        console.print(table)
    for line in verdicts(rows):
        console.print(
            f"{line['load']}: {line['ours']} is {line['ratio']:.2f} x {line['peer']} "
            f"(at most {line['target']:.2f}; best rounds: {line['of_lowest']:.2f}): "
            f"{'reached' if line['reached'] else 'NOT reached'}"
        )
    worst = max((share for row in rows for share in row.others), default=0.0)
    if worst > DISTURBED:
        console.print(f"Others used up to {worst:.0%} of the proxy's core: measure again in quiet.")


def verdicts(rows: list[Row]) -> list[dict[str, Any]]:
    """Each of our builds against each target that was measured."""
    by = {(row.load, row.peer): row for row in rows}
    lines = []
    for ours, ((kind, peer), target) in product(OURS, TARGETS.items()):
        mine, other = by.get((kind, ours)), by.get((kind, peer))
        if mine and other:
            share = ratio(mine, other)
            lines.append(
                {
                    "load": kind,
                    "ours": ours,
                    "peer": peer,
                    "ratio": round(share, 3),
                    "of_lowest": round(min(mine.cpu_us) / min(other.cpu_us), 3),
                    "target": target,
                    "reached": share <= target,
                }
            )
    return lines


def all_reached(rows: list[Row]) -> bool:
    """Every target that was measured is reached by one of our builds at least."""
    lines = verdicts(rows)
    targets = {(line["load"], line["peer"]) for line in lines}
    return targets == {(line["load"], line["peer"]) for line in lines if line["reached"]}


def save(rows: list[Row], about: dict[str, Any], path: Path) -> None:
    """All figures, and what was measured how."""
    path.parent.mkdir(parents=True, exist_ok=True)
    document = {"about": about, "targets": verdicts(rows), "rows": [asdict(row) for row in rows]}
    path.write_text(json.dumps(document, indent=1) + "\n")


def _cells(row: Row, bases: list[Row]) -> list[str]:
    shares = [f"x{ratio(base, row):.2f}" if base is not row else "" for base in bases]
    return [
        row.label,
        f"{row.middle('cpu_us'):.1f}",
        f"{min(row.cpu_us):.1f}",
        *shares,
        f"{row.middle('rps'):,.0f}",
        f"{row.middle('p50_ms'):.2f}",
        f"{row.middle('p99_ms'):.2f}",
        f"{row.rss_mb:.0f}",
    ]
