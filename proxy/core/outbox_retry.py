"""What becomes of an entry after a try: delivered, tried again, or dead?

A 2xx is the end of it.  So is any 4xx by which the arm's business says no: the same bytes would
get the same answer, so the entry is dead at once, for a person to look at, and does not hold up
the rest of its call.  (On the path of a call such an answer is the caller's, and ends it too.)
Everything else may pass: an arm that is down, busy or slow by itself, one that refuses (401, 403,
405, 413, ..., a redirect) once somebody has mended it.  It is tried again until `give_up` is over.
"""

from __future__ import annotations

from dataclasses import dataclass

from msgspec.structs import replace

from proxy.core.model import Verdict
from proxy.core.outbox import Entry, State

MAX_DOUBLINGS = 40
"""Beyond this the longest pause is reached, whatever the first one is."""

UNTRIED = frozenset({"open", "full"})
"""Whys of a try that never began: no fault of the entry's."""

_UNSIGNED = (401, 403)
"""How an arm may answer a signature that does not hold."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long, and how often.  Times are seconds."""

    first: float  # the pause after the first failure; it doubles each time
    most: float  # the longest pause
    give_up: float  # after this, counted from `Entry.since_ms`, an entry is dead


@dataclass(frozen=True, slots=True)
class Tried:
    """How one try ended.  `signed`: Retell's signature was made anew for it."""

    arm: str
    verdict: Verdict
    status: int = 0  # 0: no answer
    signed: bool = False

    @property
    def began(self) -> bool:
        """The arm was asked, as far as this side can tell."""
        return self.verdict.why not in UNTRIED


def pause(tries: int, patience: Patience, jitter: float) -> float:
    """Seconds until the next try after so many; `jitter` from 0 to 1 spreads the upper half."""
    whole = patience.first * 2.0 ** min(tries - 1, MAX_DOUBLINGS)
    return min(whole, patience.most) * (0.5 + jitter / 2)


def after(
    entry: Entry, tried: Tried, *, wall_ms: int, patience: Patience, jitter: float
) -> Entry | None:
    """What the entry has become; None: delivered."""
    verdict = tried.verdict
    if verdict.label == "success":
        return None
    reason = reason_of(tried)
    tries = entry.tries + tried.began
    over = wall_ms - entry.since_ms >= patience.give_up * 1000
    if verdict.label == "business_no" or over:
        return replace(entry, tries=tries, next_ms=0, state=State.DEAD, reason=reason)
    if not tried.began:
        return replace(entry, reason=reason)
    wait = pause(tries, patience, jitter)
    if verdict.retry_after is not None:
        wait = max(wait, min(verdict.retry_after, patience.most))
    return replace(entry, tries=tries, next_ms=wall_ms + round(wait * 1000), reason=reason)


def again(entry: Entry, wall_ms: int) -> Entry:
    """A dead entry as an operator brings it back, or a queued one that he hurries."""
    return replace(entry, state=State.QUEUED, since_ms=wall_ms, next_ms=wall_ms)


def unreadable(entry: Entry) -> Entry:
    """An entry whose letter is damaged or gone."""
    return replace(entry, next_ms=0, state=State.DEAD, reason="its stored bytes cannot be read")


def reason_of(tried: Tried) -> str:
    """Why a try failed, in a few words of ours: nothing that the arm said."""
    verdict, arm = tried.verdict, tried.arm
    if verdict.why == "open":
        return f"{arm} was not asked: its breaker is open"
    if verdict.why == "full":
        return f"{arm} was not asked: every connection is in use"
    if tried.status == 0:
        doubt = "" if verdict.label == "not_sent" else "; it may have arrived"
        return f"{arm} gave no answer ({verdict.why or verdict.label}){doubt}"
    if tried.status in _UNSIGNED:
        return f"{arm} answered {tried.status}; {_remedy(tried)}"
    return f"{arm} answered {tried.status}"


def _remedy(tried: Tried) -> str:
    key = f"backends.{tried.arm}.sign"
    if tried.signed:
        return f"it was signed anew with {key}: is that the key it knows?"
    return (
        f"if it checks Retell's signature, that is stale after 5 minutes: set {key}, and what is "
        "sent again is signed anew"
    )
