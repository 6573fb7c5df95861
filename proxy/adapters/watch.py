"""Who is told what happened?  Fits the `Watch` port: metrics, access lines, events."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Protocol

from structlog.typing import FilteringBoundLogger

from proxy.adapters.metrics import Metrics
from proxy.core.breaker import Transition
from proxy.core.exchange import Attempt, Exchange
from proxy.core.model import TOOL_KINDS, Kind, Verdict

CODE_CLASSES = {n: f"{n}xx" for n in range(1, 6)}
REMIND_SECONDS = 60
"""The same fault of configuration is logged this often at most; the metric counts each."""

RATIO_SECONDS = 300
BUCKET_SECONDS = 10


class Lines(Protocol):
    """Where access lines go."""

    def write(self, x: Exchange) -> None:
        """Add the line of an ended exchange."""


class SplitRatio:
    """How the tool calls of the last five minutes were decided, in 10 s buckets."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._buckets: deque[list[int]] = deque()  # [bucket number, others, decided for `to`]
        self._last = [0, 0, 0]
        self._next = -math.inf  # when the next bucket begins

    def count(self, to: bool, now: float) -> None:
        if now >= self._next:
            number = int(now // BUCKET_SECONDS)
            self._next = float((number + 1) * BUCKET_SECONDS)
            self._last = [number, 0, 0]
            self._buckets.append(self._last)
            self._forget(number)
        self._last[2 if to else 1] += 1  # A single step: whoever reads meanwhile sees a ratio.

    def value(self) -> float:
        """0 to 1; 0 without calls.  Changes nothing: a scrape asks from a thread of its own."""
        oldest = int(self._now() // BUCKET_SECONDS) - RATIO_SECONDS // BUCKET_SECONDS
        buckets = [bucket.copy() for bucket in self._buckets.copy() if bucket[0] > oldest]
        total = sum(bucket[1] + bucket[2] for bucket in buckets)
        return sum(bucket[2] for bucket in buckets) / total if total else 0.0

    def _forget(self, number: int) -> None:
        while self._buckets and self._buckets[0][0] <= number - RATIO_SECONDS // BUCKET_SECONDS:
            self._buckets.popleft()


class Watcher:
    """Metrics first, then the line; nothing here can fail a call."""

    def __init__(
        self,
        metrics: Metrics,
        log: FilteringBoundLogger,
        *,
        now: Callable[[], float],
        access: Lines | None,
        to: str,
        tools: frozenset[str] = frozenset(),
    ) -> None:
        self.metrics = metrics
        self.log = log
        self.ratio = SplitRatio(now)
        self.to = to
        self.tools = tools  # those that the rules name; any other is labelled `other`
        self.breaker_hook: Callable[[str], None] = lambda arm: None  # hears each change's arm
        self._access = access
        self._told: dict[tuple[str, str], float] = {}
        self._now = now
        metrics.actual_ratio.set_function(self.ratio.value)

    def exchange_ended(self, exchange: Exchange) -> None:
        x, tool = exchange, ""
        if x.decided_by is not None and x.kind in TOOL_KINDS:
            self.ratio.count(x.decided == self.to, x.ended)
            if x.tool is not None:
                tool = x.tool if x.tool in self.tools else "other"
        code_class = CODE_CLASSES.get(x.status // 100, "none")
        labels = (x.kind, x.arm, x.outcome, code_class, tool)
        self.metrics.exchanges.observe(labels, x.ended - x.started)
        if self._access is not None:
            self._access.write(x)

    def attempt_ended(self, attempt: Attempt) -> None:
        self.metrics.attempts.observe((attempt.arm, attempt.verdict.label), attempt.seconds)

    def rescued(self, from_arm: str, why: str) -> None:
        self.metrics.rescues[from_arm, why] += 1

    def last_answered(self, kind: Kind) -> None:
        self.metrics.last_answers[kind,] += 1

    def replayed(self, kind: str) -> None:
        self.metrics.replays[kind,] += 1

    def answered_late(self, arm: str, verdict: Verdict) -> None:
        self.metrics.late_answers[arm, verdict.label] += 1
        self.log.info("write_ended_late", arm=arm, verdict=verdict.label)

    def breaker_changed(self, arm: str, transition: Transition) -> None:
        before, after, tool = transition.before, transition.after, transition.tool
        if tool:
            self.metrics.tool_breaker_transitions[arm, tool, before, after] += 1
        else:
            self.metrics.breaker_transitions[arm, before, after] += 1
            self.metrics.show_breaker(arm, after)
        whose = {"arm": arm, "tool": tool} if tool else {"arm": arm}
        self.log.warning("breaker_changed", **whose, before=before, after=after, why=transition.why)
        self.breaker_hook(arm)

    def config_fault(self, arm: str, detail: str) -> None:
        self.metrics.config_faults[arm,] += 1
        now = self._now()
        if now - self._told.get((arm, detail), -REMIND_SECONDS) >= REMIND_SECONDS:
            self._told[arm, detail] = now
            self.log.error("config_fault_seen", arm=arm, detail=detail)

    def auth_failed(self, reason: str) -> None:
        self.metrics.auth_failures[reason,] += 1

    def signature_repeated(self, kind: Kind) -> None:
        self.metrics.signature_repeats[kind,] += 1

    def admin_refused(self, reason: str, peer: str) -> None:
        """Somebody was turned away from the operators' pages."""
        self.metrics.admin_refusals[reason,] += 1
        now = self._now()
        if now - self._told.get(("admin", reason), -REMIND_SECONDS) >= REMIND_SECONDS:
            self._told["admin", reason] = now
            self.log.warning("admin_refused", reason=reason, peer=peer)

    def rate_limited(self, scope: str) -> None:
        self.metrics.rate_limited[scope,] += 1

    def cache_looked(self, tool: str, result: str) -> None:
        self.metrics.cache[tool, result] += 1

    def shed(self, reason: str, kind: Kind) -> None:
        self.metrics.shed[reason, kind] += 1
        now = self._now()
        if now - self._told.get(("", reason), -REMIND_SECONDS) >= REMIND_SECONDS:
            self._told["", reason] = now
            self.log.warning("load_shed", reason=reason, kind=kind)

    def repeated(self, arm: str, outcome: str) -> None:
        self.metrics.repeats[arm, outcome] += 1

    def hedged(self, arm: str, outcome: str) -> None:
        self.metrics.hedges[arm, outcome] += 1

    def mcp_session(self, event: str) -> None:
        self.metrics.mcp_sessions[event,] += 1

    def crashed(self, where: str, error: BaseException) -> None:
        self.log.error("exchange_crashed", where=where, exc_info=error)
