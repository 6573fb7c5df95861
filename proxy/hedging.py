"""All tries of an exchange: the attempt, a second beside a slow one that only reads, the rescue."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any, NamedTuple, TypeAlias

from proxy.attempt import Attempts, Plan
from proxy.core.exchange import Attempt, Exchange
from proxy.core.hedge import hedge_after
from proxy.core.model import Call, Kind, Ran, Reason, Reply, Verdict
from proxy.core.rescue import combine, in_time, may_rescue, rescue_reason
from proxy.core.verdict import CUT
from proxy.hedged import Start, hedged
from proxy.ports import Arm, Clock, Watch
from proxy.relay import let_go

_OTHER = Kind.OTHER  # Bound once: reading a member of an enumeration is slow in Python 3.11.

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
    """Tries an arm, another beside it within the retry budget, another after it if that is safe."""

    def __init__(self, attempts: Attempts, *, clock: Clock, watch: Watch, start: Start) -> None:
        self._attempts = attempts
        self._clock = clock
        self._watch = watch
        self._start = start

    async def run(self, call: Call, plan: Plan, x: Exchange) -> tuple[Reply | None, Verdict, Ran]:
        """The attempt, and at most one at the other arm.

        The answer with its verdict, None if nobody gave one; and what all attempts may have run.
        """
        arm, failed, both = plan.arm, None, False
        if plan.terms.hedge:
            arm, reply, first, both, failed = await self.first(call, plan, x)
        else:  # What nearly every exchange comes to.
            arm.retries.asked(self._clock.now())
            reply, first = await self._attempts.one(arm, call, plan, x)
        if x.ended:  # It came late: nobody but the guard wants to know.
            return reply if first.delivers else None, first, first.ran
        if reply is not None and (first.delivers or call.kind is _OTHER):
            self._answered(arm, first, failed, plan, x)
            return reply, first, first.ran
        if both or plan.other is None or not self._may_rescue(call, plan, first):
            return None, first, first.ran
        reply, second = await self._attempts.one(plan.other, call, plan, x, rescue=True)
        if reply is None or not second.delivers:
            return None, second, combine(first.ran, second.ran)
        if not x.ended:
            self._answered(plan.other, second, first, plan, x)
        return reply, second, second.ran

    async def after(self, failed: Verdict, call: Call, plan: Plan, x: Exchange) -> Reply | None:
        """The other arm's whole answer, where `plan.arm` has failed in the middle of its own."""
        if plan.other is None or not self._may_rescue(call, plan, failed):
            return None
        reply, second = await self._attempts.one(plan.other, call, plan, x, rescue=True)
        if reply is None:
            return None
        if not second.delivers or not isinstance(reply.body, bytes):
            await _drop((reply, second))
            return None
        self._answered(plan.other, second, failed, plan, x)
        return reply

    def _answered(
        self, arm: Arm, verdict: Verdict, failed: Verdict | None, plan: Plan, x: Exchange
    ) -> None:
        """Say who answered, and why it was not the arm that was decided for."""
        no = verdict.label == "business_no"
        x.arm, x.reason, x.outcome = arm.name, plan.reason, "business_no" if no else "ok"
        if failed is not None:
            x.reason, x.outcome = rescue_reason(failed), "rescued"
            self._watch.rescued(plan.arm.name, x.reason.removeprefix("rescue_"))
        elif arm is not plan.arm:
            x.reason = Reason.HEDGED

    def _may_rescue(self, call: Call, plan: Plan, first: Verdict) -> bool:
        return may_rescue(first, plan.terms.effect, call.kind) and in_time(
            self._clock.now(), budget_ends=plan.budget_ends, min_attempt=plan.min_attempt
        )

    async def first(self, call: Call, plan: Plan, x: Exchange) -> Tried:
        """Try `plan.arm`, and beside it the other one as soon as this takes longer than usual."""
        arm, terms, began = plan.arm, plan.terms, self._clock.now()
        arm.retries.asked(began)
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
