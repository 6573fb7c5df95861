"""An attempt, and at most one rescue: permits, exchanges, verdicts; and every permit goes back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from msgspec import Struct

from proxy.core.breaker_values import Permit
from proxy.core.dialects.answers import EVENTS
from proxy.core.dialects.ear import Ear
from proxy.core.dialects.headers import media_type
from proxy.core.exchange import Attempt, Exchange
from proxy.core.model import Call, Era, Form, Headers, Kind, Reason, Reply, Verdict
from proxy.core.rescue import (
    attempt_deadline,
)
from proxy.core.soundness import unsound
from proxy.core.tool_table import Terms
from proxy.core.verdict import BREAKER_OPEN, CUT, LATE, judge_failure, judge_reply
from proxy.errors import UpstreamFailed
from proxy.hedged import Start
from proxy.once import Ticket
from proxy.ports import Arm, Clock, Watch
from proxy.relay import Sender, Settled, heard_out, let_go

TIMED = frozenset({Kind.EVENT, Kind.INBOUND, Kind.ALERT})
"""Kinds that Retell gives 10 s in all: their budget bounds every attempt."""

STATUS_ONLY = frozenset({Kind.EVENT, Kind.ALERT})
"""Kinds whose answer is its status."""

# Bound once: reading a member of an enumeration is slow in Python 3.11.
_OTHER, _STREAM, _MODERN = Kind.OTHER, Form.STREAM, Era.MODERN
_FIRST, _SECOND = (b"x-callsplit-attempt", b"1"), (b"x-callsplit-attempt", b"2")


class Plan(Struct, gc=False):
    """Where one call goes, and what may happen if that fails."""

    arm: Arm
    other: Arm | None  # None: no rescue, whatever happens
    reason: Reason
    terms: Terms
    budget_ends: float  # clock seconds
    min_attempt: float  # seconds of the budget that a rescue must find left
    headers: Headers  # the exchange's own, for the arms
    ticket: Ticket | None = None  # of a write that must not run twice
    leave: Callable[[], None] | None = None  # answers the caller of a write that is late


class Attempts:
    """Tries arms.  `start(coroutine, name)` starts a task that somebody holds."""

    def __init__(self, *, clock: Clock, watch: Watch, start: Start) -> None:
        self._clock = clock
        self._watch = watch
        self._start = start

    async def one(
        self, arm: Arm, call: Call, plan: Plan, x: Exchange, *, rescue: bool = False
    ) -> tuple[Reply | None, Verdict]:
        """Try `arm`; the reply is None if it gave none.

        The permit goes back here, or when an answer that streams has ended.
        """
        began, last = self._clock.now(), rescue or plan.other is None
        permit = arm.breaker.admit(began, call.tool, safe=plan.terms.safe, covered=not last)
        if permit is None:
            return None, self._attempted(Attempt(arm.name, BREAKER_OPEN, 0.0), x)
        until = attempt_deadline(
            began,
            timeout=arm.timeout,
            budget_ends=plan.budget_ends,
            min_attempt=plan.min_attempt,
            last=last,
            hard=call.kind in TIMED,
        )
        ticket, late, linger = plan.ticket, None, plan.terms.linger
        if ticket is not None:
            ticket.asked = True
            if plan.leave is not None:
                late = partial(self._left, arm, permit, began, plan, x)
        headers = [*plan.headers, _SECOND if rescue else _FIRST]
        send = Sender(arm.upstream, headers, deadline=until, linger=linger, late=late)
        reply, verdict, streams = None, CUT, False
        try:
            if arm.in_process:
                reply = await self._ask_here(arm, call, send, until, linger)
            else:
                reply = await arm.backend.handle(call, send)
            verdict = reply.verdict or judged(reply, arm, call.kind)
            streams = not isinstance(reply.body, bytes)
        except UpstreamFailed as failure:
            verdict = judge_failure(failure, dispatched=send.dispatched or arm.in_process)
        except Exception as bug:  # of a user's backend: an answer that nobody understands
            self._watch.crashed(f"backend {arm.name}", bug)
            crash = UpstreamFailed("body", "the backend crashed", sent=True)
            verdict = judge_failure(crash, dispatched=send.dispatched or arm.in_process)
        finally:
            ended = self._clock.now()
            if not streams and (ticket is None or not ticket.left):
                self._hand_back(arm, permit, verdict, ended, ended - began)
        if ticket is not None and ticket.left:
            left = until + linger - ended
            return await self._came_late(arm, call, reply, verdict, patience=left)
        if streams and reply is not None and lasts(call):
            self._hand_back(arm, permit, verdict, ended, ended - began)
        elif streams and reply is not None:
            keep, took = verdict.delivers or call.kind is _OTHER, ended - began
            await self._hold(
                arm, permit, call, reply, verdict, seconds=took, keep=keep, linger=linger
            )
        status = reply.status if reply is not None else 0
        return reply, self._attempted(Attempt(arm.name, verdict, ended - began, status), x)

    def _left(self, arm: Arm, permit: Permit, began: float, plan: Plan, x: Exchange) -> bool:
        """A write is late: its arm has failed so far, its caller hears so, and it goes on."""
        assert plan.leave is not None
        now = self._clock.now()
        self._hand_back(arm, permit, LATE, now, now - began)
        self._attempted(Attempt(arm.name, LATE, now - began), x)
        plan.leave()
        return True

    async def _came_late(
        self, arm: Arm, call: Call, reply: Reply | None, verdict: Verdict, *, patience: float
    ) -> tuple[Reply | None, Verdict]:
        """What became of a write whose caller has left."""
        if reply is not None and not isinstance(body := reply.body, bytes):
            if verdict.delivers and media_type(reply.headers) == EVENTS:
                reply = await heard_out(call, reply, patience=patience, by_rule=arm.by_rule)
                verdict = (reply.verdict or verdict) if reply is not None else LATE
            else:
                await let_go(body, 0.0)
        self._watch.answered_late(arm.name, verdict)
        return reply, verdict

    async def _ask_here(
        self, arm: Arm, call: Call, send: Sender, until: float, linger: float
    ) -> Reply:
        """The answer of a backend that works in this process, and so is bounded in time here."""
        task = self._start(caught(arm.backend.handle(call, send)), f"backend {arm.name}")
        await asyncio.wait({task}, timeout=until - self._clock.now())
        if not task.done() and send.late():
            await asyncio.wait({task}, timeout=linger)
            linger = 0.0
        if not task.done():  # a write is never cut short: it has its time to finish
            asyncio.get_running_loop().call_later(linger, task.cancel)
            raise UpstreamFailed("timeout", "the backend took too long", sent=True)
        if task.cancelled():  # from within: as an exception it would end our caller's connection
            raise UpstreamFailed("body", "the backend gave up", sent=True)
        answer = task.result()
        if isinstance(answer, Exception):
            raise answer
        if wrong := unsound(answer):
            raise TypeError(f"the backend's answer is {wrong}")
        return answer

    async def _hold(
        self,
        arm: Arm,
        permit: Permit,
        call: Call,
        reply: Reply,
        verdict: Verdict,
        *,
        seconds: float,
        keep: bool,
        linger: float,
    ) -> None:
        """Hand the permit back when the stream has ended, or at once if nobody reads it.

        A stream of events may begin long before the tool ends: a caller who leaves a write's
        must not cut it.
        """
        told = False
        ear: Ear | None = None

        def tell(shown: Verdict) -> None:
            nonlocal told
            if not told:
                told = True
                self._hand_back(arm, permit, shown, self._clock.now(), seconds)

        def ended(failure: UpstreamFailed | None, whole: bool) -> None:
            cut = judge_failure(failure, dispatched=True) if failure else CUT
            said = verdict if ear is None else heard(call, ear, verdict)
            tell(said if whole or not keep else cut)

        assert not isinstance(reply.body, bytes)
        goes_on, late = keep and media_type(reply.headers) == EVENTS, partial(tell, LATE)
        if goes_on and call.rpc_id is not None and call.rpc_method == "tools/call":
            ear = Ear(call.rpc_id, arm.by_rule)
        reply.body = Settled(
            reply.body,
            ended,
            linger=linger if goes_on else 0.0,
            hear=None if ear is None else ear.feed,
            late=late,
        )
        if not keep:
            await reply.body.aclose()

    def _hand_back(
        self, arm: Arm, permit: Permit, verdict: Verdict, now: float, seconds: float
    ) -> None:
        change = arm.breaker.settle(permit, verdict, now, seconds)
        if change is not None:
            self._watch.breaker_changed(arm.name, change)

    def _attempted(self, attempt: Attempt, x: Exchange) -> Verdict:
        x.attempts.append(attempt)
        self._watch.attempt_ended(attempt)
        if attempt.verdict.config_fault:
            self._watch.config_fault(attempt.arm, f"{attempt.verdict.label} {attempt.status or ''}")
        return attempt.verdict


def heard(call: Call, ear: Ear, verdict: Verdict) -> Verdict:
    """The verdict on a tool's stream of events that has come to its end.

    One of a legacy server may end before its answer, which then comes on another (SEP-1699).
    """
    if ear.message is None and ear.numbered and call.era is not _MODERN:
        return verdict
    return ear.verdict


def lasts(call: Call) -> bool:
    """Whether its answer is a stream that says nothing of how well the arm works, for hours."""
    return call.form is _STREAM or call.rpc_method == "subscriptions/listen"


def judged(reply: Reply, arm: Arm, kind: Kind) -> Verdict:
    """The verdict on an answer whose backend had none of its own."""
    body = reply.body if isinstance(reply.body, bytes) and kind not in STATUS_ONLY else None
    return judge_reply(
        reply.status, reply.headers, body, not_executed=arm.not_executed, by_rule=arm.by_rule
    )


async def caught(answer: Coroutine[Any, Any, Reply]) -> Reply | Exception:
    """An answer, or why there is none: nobody may be left to hear an exception."""
    try:
        return await answer
    except Exception as error:
        return error
