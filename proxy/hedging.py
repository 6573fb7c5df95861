"""The first attempt of an exchange; beside a slow one that only reads, a second."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from proxy.attempt import Attempts, Plan
from proxy.core.exchange import Attempt, Exchange
from proxy.core.hedge import hedge_after
from proxy.core.model import Call, Reply, Verdict
from proxy.core.verdict import CUT
from proxy.hedged import Start, hedged
from proxy.ports import Arm, Clock, Watch
from proxy.relay import let_go

_Ended: TypeAlias = tuple[Reply | None, Verdict]


class Tried(NamedTuple):
    """What the first attempt came to, or the one beside it.

    `arm`: whose it is.  `both`: the other arm has been asked already, there is no rescue left.
    `failed`: how the arm that was decided for failed before the other answered; None if it did not.
    """

    arm: Arm
    reply: Reply | None
    verdict: Verdict
    both: bool = False
    failed: Verdict | None = None


class Hedging:
    """Tries an arm, within its retry budget another beside it."""

    def __init__(self, attempts: Attempts, *, clock: Clock, watch: Watch, start: Start) -> None:
        self._attempts = attempts
        self._clock = clock
        self._watch = watch
        self._start = start

    async def first(self, call: Call, plan: Plan, x: Exchange) -> Tried:
        """Try `plan.arm`."""
        arm, terms, began = plan.arm, plan.terms, self._clock.now()
        arm.retries.asked(began)
        if not terms.hedge:
            return Tried(arm, *await self._attempts.one(arm, call, plan, x))
        after = None
        if (other := plan.other) is not None:
            after = hedge_after(
                arm.pace,
                terms,
                other_passes=other.breaker.is_passing,
                left=plan.budget_ends - began,
                min_attempt=plan.min_attempt,
            )
        if other is None or after is None:
            reply, verdict = await self._attempts.one(arm, call, plan, x)
            tried = Tried(arm, reply, verdict)
        else:
            tried = await self._race(other, call, plan, x, after)
        if tried.verdict.delivers:
            arm.pace.heard(self._clock.now() - began)  # At least so long, if it was cut.
        return tried

    async def _race(self, other: Arm, call: Call, plan: Plan, x: Exchange, after: float) -> Tried:
        arm, one, began = plan.arm, self._attempts.one, self._clock.now()
        race = await hedged(
            one(arm, call, plan, x),
            partial(self._beside, arm, partial(one, other, call, plan, x, rescue=True)),
            after=after,
            delivers=lambda ended: ended[0] is not None and ended[1].delivers,
            drop=_drop,
            start=self._start,
        )
        if not race.hedged:
            assert race.first is not None
            return Tried(arm, *race.first)
        self._watch.hedged(arm.name, "won" if race.won else "lost")
        ended = race.second if race.won else race.first
        assert ended is not None
        if race.first is None or race.second is None:
            cut = arm if race.won else other
            self._was_cut(cut, self._clock.now() - began - (0.0 if race.won else after), x)
        failed = race.first[1] if race.won and race.first is not None else None
        return Tried(other if race.won else arm, *ended, both=True, failed=failed)

    def _beside(
        self, arm: Arm, attempt: Callable[[], Coroutine[Any, Any, _Ended]]
    ) -> Coroutine[Any, Any, _Ended] | None:
        """The second attempt; None if the budget has none left."""
        if arm.retries.take(self._clock.now(), arm.retry_ratio):
            return attempt()
        self._watch.hedged(arm.name, "refused")
        return None

    def _was_cut(self, arm: Arm, seconds: float, x: Exchange) -> None:
        """Account for an attempt that will not do so itself."""
        if any(attempt.arm == arm.name for attempt in x.attempts):
            return  # It ended at the same moment.
        attempt = Attempt(arm.name, CUT, max(0.0, seconds))
        x.attempts.append(attempt)
        self._watch.attempt_ended(attempt)


async def _drop(ended: _Ended) -> None:
    reply = ended[0]
    if reply is not None and not isinstance(reply.body, bytes):
        await let_go(reply.body, 0.0)
