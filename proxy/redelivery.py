"""How is an event that waited handed to an arm?  As the path would: its breaker, its verdicts.

It goes to the arm that takes events by nature, which is where a rescue would have brought it.  Its
signature is made anew, because Retell's own is stale after 5 minutes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

from proxy.attempt import Attempts, Plan
from proxy.core.breaker_values import State
from proxy.core.dialects.headers import SIGNATURE, for_same_body
from proxy.core.exchange import Exchange
from proxy.core.exchange_headers import headers_for_arms
from proxy.core.model import Headers, Kind, Outbound, Reason, Reply
from proxy.core.outbox import Entry, Letter, call_of
from proxy.core.outbox_retry import Tried
from proxy.core.signature import HEADER, sign
from proxy.core.verdict import BREAKER_OPEN
from proxy.line import Line
from proxy.ports import Arm, Clock, Upstream
from proxy.relay import let_go


class Redelivery:
    """Fits the courier's `Post`.  `line()` is the one in force; `new_id()` gives 32 hex digits."""

    def __init__(
        self,
        line: Callable[[], Line],
        attempts: Attempts,
        *,
        clock: Clock,
        new_id: Callable[[], str],
    ) -> None:
        self._line = line
        self._attempts = attempts
        self._clock = clock
        self._new_id = new_id

    def shut(self, entry: Entry) -> Tried | None:
        """The entry's arm would not be asked; None: perhaps it would."""
        arm = destination(self._line(), entry, self._clock.wall_ms())
        breaker = arm.breaker
        unproved = breaker.state is State.HALF_OPEN and breaker.probe_at() is not None
        return None if breaker.is_asked and not unproved else Tried(arm.name, BREAKER_OPEN)

    def passes(self, name: str) -> bool:
        """That arm is asked freely."""
        arm = self._line().arms.get(name)
        return arm is not None and arm.breaker.is_passing

    async def hand(self, entry: Entry, letter: Letter) -> Tried:
        """One try, as the path of a request makes it.

        The outbox stands behind it as another arm would, so an open breaker lends no last resort.
        """
        line, call, now = self._line(), call_of(entry, letter), self._clock.now()
        arm = destination(line, entry, self._clock.wall_ms())
        signing = arm.sign is not None
        if arm.sign is not None:
            arm = replace(arm, upstream=Signing(arm.upstream, arm.sign, self._clock))
        x = Exchange(self._new_id(), now)
        times = (b"x-callsplit-redelivered", b"%d" % (entry.tries + 1))
        plan = Plan(
            arm=arm,
            other=arm,
            reason=Reason.KIND,
            terms=line.tools.terms(call),
            budget_ends=math.inf,
            min_attempt=0.0,
            headers=[*headers_for_arms(call, x), times],
        )
        reply, verdict = await self._attempts.one(arm, call, plan, x)
        if reply is None:
            return Tried(arm.name, verdict, signed=signing)
        if not isinstance(reply.body, bytes):
            await let_go(reply.body, 0.0)
        return Tried(arm.name, verdict, reply.status, signing)


class Signing:
    """An upstream whose every request carries Retell's signature, made here and now."""

    def __init__(self, upstream: Upstream, key: bytes, clock: Clock) -> None:
        self._upstream = upstream
        self._key = key
        self._clock = clock

    async def send(
        self,
        outbound: Outbound,
        extra: Headers,
        *,
        deadline: float,
        linger: float = 0.0,
        buffer: int | None = None,
        late: Callable[[], bool] | None = None,
    ) -> Reply:
        """As `Upstream.send`, signed."""
        fresh = (HEADER, sign(self._key, outbound.body, self._clock.wall_ms()))
        outbound.headers = for_same_body(outbound.headers, [fresh], SIGNATURE)
        return await self._upstream.send(
            outbound, extra, deadline=deadline, linger=linger, buffer=buffer, late=late
        )

    async def connect(self, *, deadline: float) -> None:
        """As `Upstream.connect`."""
        await self._upstream.connect(deadline=deadline)

    async def aclose(self, grace: float) -> None:
        """It is somebody else's to close."""


def destination(line: Line, entry: Entry, wall_ms: int) -> Arm:
    """The arm for an event that waited.

    By nature: `otherwise`, or `to` if only that takes its kind.  Where no rescue may lead away
    from the arm that it was meant for, that one; never to an arm that nobody is to reach.
    """
    kind = Kind(entry.kind)
    by_nature = line.arms[line.otherwise]
    if kind not in by_nature.backend.kinds:
        by_nature = line.arms[line.to]
    meant = line.arms.get(entry.arm)
    if meant is None or kind not in meant.backend.kinds or line.splitter.present(wall_ms).kill:
        return by_nature
    return by_nature if line.rescuer(meant.name, kind, wall_ms) is not None else meant
