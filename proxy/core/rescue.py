"""When may the other arm answer, and how long may one arm try?"""

from __future__ import annotations

from proxy.core.model import Effect, Kind, Ran, Reason, Verdict

SLACK = 0.1
"""Seconds by which deadlines, swept coarsely, and a busy loop may be late."""

_DOUBT = {Ran.NO: 0, Ran.UNKNOWN: 1, Ran.YES: 2}
_UNHARMED_BY_REPEATS = frozenset({Kind.EVENT, Kind.INBOUND})
_REASONS = {reason.partition("_")[2]: reason for reason in Reason if reason.startswith("rescue_")}


def coverable(
    arm: str, *, otherwise: str, takes: frozenset[Kind], enabled: bool, both_ways: bool
) -> frozenset[Kind]:
    """The kinds for which the opposite of `arm` may ever answer instead of it.

    From any arm to `otherwise`; the reverse only with `both_ways`, and while `way_back` says so.
    `takes` holds the kinds that the opposite arm can take.  An unknown shape stays where it is:
    nobody knows what it does.
    """
    return takes - {Kind.OTHER} if enabled and (arm != otherwise or both_ways) else frozenset()


def way_back(*, percent: float, cap: float, kill: bool) -> bool:
    """Whether calls may be rescued to `to`: never where nobody is to reach it."""
    return percent > 0 and cap > 0 and not kill


def may_rescue(verdict: Verdict, effect: Effect, kind: Kind) -> bool:
    """Whether asking the other arm too can do no harm."""
    if verdict.delivers or not verdict.rescuable:
        return False
    return verdict.ran is Ran.NO or is_safe(effect, kind)


def rescue_reason(verdict: Verdict) -> Reason:
    """Why another arm answered; a user's backend may fail for reasons that have no name here."""
    return _REASONS.get(verdict.why or "", Reason.RESCUE_BODY)


def is_safe(effect: Effect, kind: Kind) -> bool:
    """Whether nothing is lost if an attempt fails half way and another follows."""
    return effect is not Effect.WRITE or kind in _UNHARMED_BY_REPEATS


def attempt_deadline(
    now: float,
    *,
    timeout: float,
    budget_ends: float,
    min_attempt: float,
    last: bool,
    hard: bool,
) -> float:
    """When an attempt that begins `now` must be over.

    `last`: no other arm may follow.  Such an attempt runs under its own backend's `timeout`, but
    for a `hard` budget, which bounds everything.  Any other ends early enough for a rescue to begin
    `min_attempt` before the budget's end, if the budget has room for both.
    """
    own = now + timeout
    if last:
        return min(own, budget_ends) if hard else own
    early = budget_ends - min_attempt - SLACK
    return min(own, early if early - now >= min_attempt else budget_ends)


def in_time(now: float, *, budget_ends: float, min_attempt: float) -> bool:
    """Whether a rescue may still begin."""
    return now + min_attempt <= budget_ends


def combine(one: Ran, other: Ran) -> Ran:
    """What is known of two attempts together: only two times NO is NO."""
    return one if _DOUBT[one] >= _DOUBT[other] else other


def says_pending(ran: Ran, effect: Effect) -> bool:
    """Whether the last answer must warn that it may have happened (`say_pending`, else `say`)."""
    return ran is not Ran.NO and effect is not Effect.READ
