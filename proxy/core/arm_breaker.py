"""May this tool be asked of this arm?  The arm's breaker, and beside it one for each of its tools.

With `per_tool`, a tool that the rules name has a breaker of its own on the arm, and an attempt
needs the leave of both.  Who hears what:

    not sent (connect, DNS, TLS, a handshake)        the arm
    time-out, reset, 429, 503 + Retry-After          the arm and the tool
    any other 5xx, a body that says it failed, or
    that makes no sense, an answer that came slowly  the tool
    success, business no                             the arm and the tool

What opens or closes the arm says nothing of the tool: then only the arm hears it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from proxy.core.breaker import Breaker
from proxy.core.breaker_values import BreakerConfig, Permit, Snapshot, State, Transition
from proxy.core.model import Counts, Ran, Verdict
from proxy.core.rest import Jitter, calm

_SHUT = frozenset({State.OPEN, State.FORCED_OPEN})
# Bound once: reading a member of an enumeration is slow in Python 3.11.
_SUCCESS, _NOTHING, _NO = Counts.SUCCESS, Counts.NOTHING, Ran.NO


@dataclass(frozen=True, slots=True, eq=False)
class Both(Permit):
    """Leave of an arm and of one tool on it; era and role are the arm's."""

    arm: Permit
    own: Permit
    tool: Breaker


class ArmBreaker(Breaker):
    """An arm's breaker, which asks those of its tools too.

    Every other method of `Breaker` concerns the arm alone; an operator's or a rule's hand is laid
    on `each`.
    """

    def __init__(
        self, config: BreakerConfig, *, jitter: Jitter = calm, tools: Iterable[str] = ()
    ) -> None:
        super().__init__(config, jitter=jitter)
        self.tools: dict[str, Breaker] = {}
        self._both: dict[str, Both] = {}  # by tool, the one that serves while both pass
        self._jitter = jitter
        self.name_tools(tools)

    def name_tools(self, tools: Iterable[str]) -> None:
        """Give these tools a breaker of their own, and no others; those that had one keep it."""
        before = self.tools
        self.tools = {
            tool: before.get(tool) or Breaker(self.config, jitter=self._jitter, tool=tool)
            for tool in tools
        }
        self._both = {}

    @property
    def is_asked(self) -> bool:
        """At least some attempts, or probes, reach the arm."""
        return self.state not in _SHUT

    def each(self) -> tuple[Breaker, ...]:
        """The arm's, then its tools'."""
        return (self, *self.tools.values())

    def awaiting(self) -> Iterator[Breaker]:
        """Each that time or a probe may move on: no tool's while its arm is not asked at all."""
        yield self
        if self.is_asked:
            yield from self.tools.values()

    def admit(
        self, now: float, tool: str | None = None, *, safe: bool, covered: bool
    ) -> Permit | None:
        """Allow one attempt, which runs `tool`, or None: do not ask this arm.

        `safe` and `covered` are as `Breaker.admit` has them.
        """
        if tool is not None and self.tools and (own := self.tools.get(tool)) is not None:
            return self._admit_both(own, now, safe=safe, covered=covered)
        return self._routine or super().admit(now, safe=safe, covered=covered)

    def settle(
        self, permit: Permit, verdict: Verdict, now: float, seconds: float = 0.0
    ) -> Transition | None:
        """Take a permit back with the verdict on its attempt; at most one breaker changes by it.

        `seconds` is how long the arm took to answer, or to begin an answer that streams.
        """
        if type(permit) is Both:
            return self._settle_both(permit, verdict, now, seconds)
        return self.record(permit, verdict.counts, now, verdict.retry_after, seconds)

    def look_at(self) -> float | None:
        """When a breaker of `awaiting` is worth the next look; None: not before a change."""
        times = [at for each in self.awaiting() if (at := each.probe_at()) is not None]
        return min(times) if times else None

    def tool_snapshots(self, now: float) -> dict[str, Snapshot]:
        """The tools' breakers, for operators."""
        return {name: breaker.snapshot(now) for name, breaker in self.tools.items()}

    def _admit_both(self, own: Breaker, now: float, *, safe: bool, covered: bool) -> Permit | None:
        """The tool is asked first: what it refuses must not take the arm's slot."""
        leave = own.admit(now, safe=safe, covered=covered)
        if leave is None:
            return None
        known = self._both.get(own.tool)
        if known is not None and known.own is leave and known.arm is self._routine:
            return known
        arm = super().admit(now, safe=safe, covered=covered)
        if arm is None:
            own.record(leave, _NOTHING, now)
            return None
        both = Both(arm.era, arm.role, arm, leave, own)
        if self.is_passing and own.is_passing:
            self._both[own.tool] = both
        return both

    def _settle_both(
        self, both: Both, verdict: Verdict, now: float, seconds: float
    ) -> Transition | None:
        asked, own, counts = verdict.retry_after, both.tool, verdict.counts
        well = counts is _SUCCESS  # what nearly every attempt brings, and both hear
        change = self.record(both.arm, counts if well else _for_arm(verdict), now, asked)
        if change is not None:
            counts = _NOTHING
        elif not well:
            counts = _for_tool(verdict)
        its = own.record(both.own, counts, now, asked, seconds)
        gone = self.tools.get(own.tool) is not own  # by a reload: nobody looks at it any more
        return change if gone or change is not None else its


def _is_own(verdict: Verdict) -> bool:
    """The tool itself failed: the arm answered, and not about what comes before any tool."""
    why = verdict.why
    return verdict.label == "failed" and (
        why == "status" or (why == "body" and verdict.ran is not _NO)
    )


def _for_arm(verdict: Verdict) -> Counts:
    """What the arm hears of a tool that has a breaker."""
    return _NOTHING if _is_own(verdict) else verdict.counts


def _for_tool(verdict: Verdict) -> Counts:
    """What a tool hears: not that it could not even be asked."""
    asked = verdict.ran is not _NO or verdict.label == "busy" or _is_own(verdict)
    return verdict.counts if asked else _NOTHING
