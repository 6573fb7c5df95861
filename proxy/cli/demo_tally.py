"""What do the sidecar's access lines and the salon's own books add up to?"""

from __future__ import annotations

import math
from collections import Counter, OrderedDict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from backends.demo import Salon
from proxy.cli.demo_rules import OTHERWISE, TO
from proxy.core.model import TOOL_KINDS

SAMPLES = 1000
"""Latencies kept per figure: the latest."""

ROWS = 60
"""Tool calls kept for the list: the latest."""

CALLS_KEPT = 10_000
BOOKING = "book_appointment"


@dataclass(frozen=True, slots=True)
class Row:
    """One tool call, as the list shows it."""

    call_id: str
    tool: str
    arm: str  # who answered; `none` if nobody could
    reason: str
    outcome: str
    ms: float
    pending: bool  # the caller heard `say_pending`


@dataclass(slots=True)
class Since:
    """The calls that began since the share was last changed."""

    percent: float = -1.0
    calls: int = 0
    to: int = 0  # of them decided for the arm that the share fills

    @property
    def actual(self) -> float | None:
        """The split as it came out, in percent."""
        return 100 * self.to / self.calls if self.calls else None


@dataclass(slots=True)
class Tally:
    """Adds up access lines, one by one."""

    exchanges: int = 0
    decided: Counter[str] = field(default_factory=Counter)  # calls by the arm of their decision
    answered: Counter[str] = field(default_factory=Counter)  # tool calls by who answered
    rescued: Counter[str] = field(default_factory=Counter)  # by reason
    last_answers: int = 0
    pending: int = 0  # of them with `say_pending`
    moved: int = 0  # tool calls decided for another arm than their call before
    since: Since = field(default_factory=Since)
    waits: deque[float] = field(default_factory=lambda: deque(maxlen=SAMPLES))  # ms, of callers
    arm_ms: dict[str, deque[float]] = field(
        default_factory=lambda: {arm: deque(maxlen=SAMPLES) for arm in (TO, OTHERWISE)}
    )  # of attempts that gave an answer
    rows: deque[Row] = field(default_factory=lambda: deque(maxlen=ROWS))
    _arm_of: OrderedDict[str, str] = field(default_factory=OrderedDict)

    @property
    def rescues(self) -> int:
        """Tool calls answered by the other arm."""
        return self.rescued.total()

    def share_is(self, percent: float) -> None:
        """Tell the share in force; when it changes, its calls are counted anew."""
        if percent != self.since.percent:
            self.since = Since(percent)

    def take(self, line: Mapping[str, Any]) -> None:
        """Add one access line."""
        self.exchanges += 1
        if line["call_event"] == "call_started":
            self._began(line)
        elif line["kind"] in TOOL_KINDS and line["call_id"]:
            self._tool(line)

    def _began(self, line: Mapping[str, Any]) -> None:
        arm = line["decided"]
        self.decided[arm] += 1
        self.since.calls += 1
        self.since.to += arm == TO
        self._arm_of[line["call_id"]] = arm
        if len(self._arm_of) > CALLS_KEPT:
            self._arm_of.popitem(last=False)

    def _tool(self, line: Mapping[str, Any]) -> None:
        pending = "say_pending" in line["flags"]
        self.answered[line["arm"]] += 1
        self.moved += self._arm_of.get(line["call_id"], line["decided"]) != line["decided"]
        if line["outcome"] == "rescued":
            self.rescued[line["reason"]] += 1
        self.last_answers += line["outcome"] == "last_answer"
        self.pending += pending
        self.waits.append(line["ms"])
        for attempt in line["attempts"]:
            if attempt["status"] and attempt["arm"] in self.arm_ms:
                self.arm_ms[attempt["arm"]].append(attempt["ms"])
        self.rows.append(
            Row(
                line["call_id"],
                line["tool"] or "",
                line["arm"],
                line["reason"] or "",
                line["outcome"],
                line["ms"],
                pending,
            )
        )


class Books:
    """What really ran, read off the salon: the bookings, and those that ran twice for one call."""

    def __init__(self, salon: Salon) -> None:
        self.bookings = 0
        self.twice = 0
        self._salon = salon
        self._bookings_before = len(salon.bookings)
        self._runs_seen = salon.ran.total()
        self._of_call: OrderedDict[str, int] = OrderedDict()

    def look(self) -> None:
        """Read what has run since the last look."""
        runs, total = self._salon.runs, self._salon.ran.total()
        new = min(total - self._runs_seen, len(runs))
        self._runs_seen = total
        self.bookings = len(self._salon.bookings) - self._bookings_before
        for run in [runs[place] for place in range(-new, 0)]:
            if run.tool == BOOKING and run.call_id is not None:
                self._booked(run.call_id)

    def _booked(self, call_id: str) -> None:
        times = self._of_call[call_id] = self._of_call.get(call_id, 0) + 1
        self.twice += times == 2
        if len(self._of_call) > CALLS_KEPT:
            self._of_call.popitem(last=False)


def percentile(values: Iterable[float], percent: float) -> float | None:
    """The smallest value that `percent` of all do not exceed; None without values."""
    ordered = sorted(values)
    if not ordered:
        return None
    return ordered[max(0, math.ceil(percent / 100 * len(ordered)) - 1)]
