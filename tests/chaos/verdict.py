"""What a run has shown: the ledger of what ran, beside what callers were told."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tests.chaos.calls import Told

SHOWN = 20
"""Findings of one kind that are told in full."""


@dataclass(frozen=True)
class Finding:
    """One kind of thing that must not be; `excused` is what only a killed sidecar may do."""

    broken: list[str]
    excused: list[str]

    def told(self) -> dict[str, Any]:
        """For the report."""
        return {
            "count": len(self.broken),
            "after_a_kill": len(self.excused),
            "which": self.broken[:SHOWN],
        }


def doubles(ledger: list[dict[str, Any]], told: Told, killed_at: list[float]) -> Finding:
    """Bookings made more often than they were meant; excused if the sidecar died in between.

    In between the first and the last word about it: when it ran may be much later.
    """
    ran: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for entry in ledger:
        if entry["what"] == "booking":
            ran[entry["call"], entry["of"]].append(entry["arm"])
    finding = Finding([], [])
    for key, arms in ran.items():
        if len(arms) > told.meant[key]:
            call, slot = key
            began, ended = told.asked[key]
            died = any(began <= at <= ended for at in killed_at)
            kind = finding.excused if died else finding.broken
            kind.append(f"{slot} of {call} at {' and '.join(arms)}, told {told.bookings[key]}")
    return finding


def untrue(ledger: list[dict[str, Any]], told: Told, killed_at: list[float]) -> Finding:
    """Callers who were told that it is done, and it never ran; or that nothing ran, and it did.

    A sidecar that was killed cannot know what it began: only the latter is excused then.
    """
    ran = Counter((entry["call"], entry["of"]) for entry in ledger if entry["what"] == "booking")
    finding = Finding([], [])
    for (call, slot), heard in told.bookings.items():
        text = f"{slot} of {call} ran {ran[call, slot]} times, told {heard}"
        if "done" in heard and not ran[call, slot]:
            finding.broken.append(text)
        elif ran[call, slot] and set(heard) <= {"say", "no"}:
            (finding.excused if killed_at else finding.broken).append(text)
    return finding


def lost_events(ledger: list[dict[str, Any]], told: Told) -> Finding:
    """Events that were taken with a 2xx and reached nobody."""
    ran = {(entry["call"], entry["of"]) for entry in ledger if entry["what"] == "event"}
    return Finding([f"{event} of {call}" for call, event in sorted(told.events - ran)], [])


def plain(found: Iterable[str]) -> Finding:
    """Findings that nothing excuses."""
    return Finding(list(found), [])
