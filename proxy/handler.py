"""THE path of a request, read top to bottom: handle -> serve -> attempt.

address, guard, size, anything presented (edge.screen) -> body (edge.body) -> kind, call ID, tool
(recognise) -> credentials hold (edge.authorise) -> limit (edge.meter) -> decision (splitter)
-> permit, attempt, verdict -> maybe the rescue -> answer -> account.

Every way out ends in `_account`, and every permit goes back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias

from msgspec import Struct

from proxy.core.breaker_values import Permit
from proxy.core.dialects.answers import EVENTS
from proxy.core.dialects.headers import media_type
from proxy.core.dialects.last_answer import last_answer
from proxy.core.exchange import Attempt, Exchange
from proxy.core.exchange_headers import headers_for_arms, headers_for_caller
from proxy.core.fields import fields
from proxy.core.model import (
    TOOL_KINDS,
    Call,
    Decision,
    Headers,
    Kind,
    Outbound,
    Ran,
    Reason,
    Reply,
    Verdict,
)
from proxy.core.recognise import recognise
from proxy.core.rescue import (
    attempt_deadline,
    combine,
    in_time,
    may_rescue,
    rescue_reason,
    says_pending,
)
from proxy.core.routes import RouteId
from proxy.core.soundness import unsound
from proxy.core.tool_table import Terms
from proxy.core.verdict import BREAKER_OPEN, CUT, judge_failure, judge_reply
from proxy.edge import Visit
from proxy.errors import ClientGone, Refused, UpstreamFailed
from proxy.line import Line
from proxy.ports import Arm, Clock, Incoming, Watch
from proxy.relay import Sender, Settled

TIMED = frozenset({Kind.EVENT, Kind.INBOUND, Kind.ALERT})
"""Kinds that Retell gives 10 s in all: their budget bounds every attempt."""

STATUS_ONLY = frozenset({Kind.EVENT, Kind.ALERT})
"""Kinds whose answer is its status."""

# Bound once: reading a member of an enumeration is slow in Python 3.11.
_HEALTH, _LLM, _OTHER = RouteId.HEALTH, Kind.LLM, Kind.OTHER
_FIRST, _SECOND = (b"x-callsplit-attempt", b"1"), (b"x-callsplit-attempt", b"2")

Start: TypeAlias = Callable[
    [Coroutine[Any, Any, Reply | Exception], str], "asyncio.Task[Reply | Exception]"
]


class Plan(Struct, frozen=True, gc=False):
    """Where one call goes, and what may happen if that fails."""

    arm: Arm
    other: Arm | None  # None: no rescue, whatever happens
    reason: Reason
    terms: Terms
    budget_ends: float  # clock seconds
    headers: Headers  # the exchange's own, for the arms


class Handler:
    """Bytes in, bytes out.

    `start(coroutine, name)` starts a task that somebody holds; `new_id()` gives 32 hex digits.
    """

    def __init__(
        self, line: Line, *, clock: Clock, watch: Watch, new_id: Callable[[], str], start: Start
    ) -> None:
        self.line = line  # replaced as a whole by a reload
        self.inflight = 0
        self._clock = clock
        self._watch = watch
        self._new_id = new_id
        self._start = start

    async def handle(self, incoming: Incoming) -> Reply:
        """Answer one request; the only place where an error becomes an answer."""
        line, x = self.line, Exchange(self._new_id(), self._clock.now(), incoming.method)
        x.path, x.peer = incoming.target.partition("?")[0], incoming.peer
        self.inflight += 1
        try:
            reply = await self._serve(line, incoming, x)
        except Refused as refused:
            x.outcome, x.code = "refused", refused.code
            reply = line.edge.refuse(refused, x.request_id)
        except ClientGone:
            x.outcome = "gone"
            reply = nobody_hears()
        except asyncio.CancelledError:
            x.outcome = "gone"
            self._account(x, 499, 0)
            raise
        except Exception as bug:
            self._watch.crashed("exchange", bug)
            x.outcome, x.code = "failed", "internal_error"
            oops = Refused(500, x.code, "Something went wrong here.")
            reply = line.edge.refuse(oops, x.request_id)
        if incoming.gone and isinstance(reply.body, bytes):
            x.outcome, reply = "gone", nobody_hears()
        return self._answer(line, x, reply)

    async def _serve(self, line: Line, incoming: Incoming, x: Exchange) -> Reply:
        """From the wire to a decision."""
        visit = line.edge.screen(incoming, x.started)
        x.peer = visit.head.peer
        if visit.route is not None and visit.route.id is _HEALTH:
            x.outcome = "ok"
            return line.health()
        body = await line.edge.body(incoming, x.started)
        x.bytes_in = len(body)
        if visit.route is None:
            return await self._pass_through(line, visit, body, x)
        call = recognise(visit.route, visit.head, body, line.ids)
        x.kind, x.call_id, x.tool, x.event = call.kind, call.id, call.tool, call.event
        wall_ms = self._clock.wall_ms()
        line.edge.authorise(call, visit, wall_ms)
        if call.kind is _LLM:
            raise Refused(501, "not_implemented", "Custom LLM sockets are not carried yet.")
        try:
            line.edge.meter(call, visit, x.started)
        except Refused as limited:
            if call.kind not in TOOL_KINDS:
                raise
            x.code = limited.code
            return self._last_answer(line, call, x, Ran.NO)
        line = self.line  # The splitter is of now, and may name arms that came with a reload.
        decision = self._decide(line, call, visit, wall_ms)
        x.decided, x.decided_by = decision.arm, decision.reason
        return await self._try_arms(line, call, self._plan(line, call, decision, x, wall_ms), x)

    def _decide(self, line: Line, call: Call, visit: Visit, wall_ms: int) -> Decision:
        if call.kind is _OTHER:
            return Decision(line.otherwise, Reason.KIND)
        decision = line.splitter.decide(call, wall_ms=wall_ms, forced=visit.forced)
        if call.event is not None:
            line.splitter.observe(call)
        return decision

    def _plan(self, line: Line, call: Call, decision: Decision, x: Exchange, wall_ms: int) -> Plan:
        arm, reason, kind = line.arms[decision.arm], decision.reason, call.kind
        if kind not in arm.backend.kinds:  # by nature the other's: that is no rescue
            arm, reason = line.other(arm.name), Reason.KIND
            if kind not in arm.backend.kinds:
                raise Refused(501, "kind_not_taken", "No backend takes this kind of request.")
        other, terms = line.rescuer(arm.name, kind, wall_ms), line.tools.terms(call)
        # Retell's patience with an event began with its first byte; a tool's body may be late.
        began = x.started if kind in TIMED else self._clock.now()
        budget_ends = began + terms.budget
        return Plan(arm, other, reason, terms, budget_ends, headers_for_arms(call, x))

    async def _try_arms(self, line: Line, call: Call, plan: Plan, x: Exchange) -> Reply:
        """The attempt, at most one rescue, the last answer."""
        reply, first = await self._attempt(line, plan.arm, call, plan, x)
        if reply is not None and (first.delivers or call.kind is _OTHER):
            x.arm, x.reason = plan.arm.name, plan.reason
            x.outcome = "business_no" if first.label == "business_no" else "ok"
            return reply
        ran = first.ran
        if plan.other is not None and self._may_rescue(line, call, plan, first):
            reply, second = await self._attempt(line, plan.other, call, plan, x, rescue=True)
            if reply is not None and second.delivers:
                x.arm, x.reason = plan.other.name, rescue_reason(first)
                x.outcome = "rescued"
                self._watch.rescued(plan.arm.name, x.reason.removeprefix("rescue_"))
                return reply
            ran = combine(ran, second.ran)
        return self._last_answer(line, call, x, ran)

    def _may_rescue(self, line: Line, call: Call, plan: Plan, first: Verdict) -> bool:
        return may_rescue(first, plan.terms.effect, call.kind) and in_time(
            self._clock.now(), budget_ends=plan.budget_ends, min_attempt=line.fallback.min_attempt
        )

    async def _attempt(
        self, line: Line, arm: Arm, call: Call, plan: Plan, x: Exchange, *, rescue: bool = False
    ) -> tuple[Reply | None, Verdict]:
        """One try at one arm: permit, exchange, verdict.

        The permit goes back here, or when an answer that streams has ended.
        """
        began, last = self._clock.now(), rescue or plan.other is None
        permit = arm.breaker.admit(began, safe=plan.terms.safe, covered=not last)
        if permit is None:
            return None, self._attempted(Attempt(arm.name, BREAKER_OPEN, 0.0), x)
        until = attempt_deadline(
            began,
            timeout=arm.timeout,
            budget_ends=plan.budget_ends,
            min_attempt=line.fallback.min_attempt,
            last=last,
            hard=call.kind in TIMED,
        )
        send = Sender(
            arm.upstream,
            [*plan.headers, _SECOND if rescue else _FIRST],
            deadline=until,
            linger=plan.terms.linger,
        )
        reply, verdict, streams = None, CUT, False
        try:
            if arm.in_process:
                reply = await self._ask_here(arm, call, send, until, plan.terms.linger)
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
            if not streams:
                self._hand_back(arm, permit, verdict, ended)
        if streams and reply is not None:
            keep = verdict.delivers or call.kind is _OTHER
            await self._hold(arm, permit, reply, verdict, keep=keep, linger=plan.terms.linger)
        status = reply.status if reply is not None else 0
        return reply, self._attempted(Attempt(arm.name, verdict, ended - began, status), x)

    async def _ask_here(
        self, arm: Arm, call: Call, send: Sender, until: float, linger: float
    ) -> Reply:
        """The answer of a backend that works in this process, and so is bounded in time here."""
        task = self._start(caught(arm.backend.handle(call, send)), f"backend {arm.name}")
        await asyncio.wait({task}, timeout=until - self._clock.now())
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
        reply: Reply,
        verdict: Verdict,
        *,
        keep: bool,
        linger: float,
    ) -> None:
        """Hand the permit back when the stream has ended, or at once if nobody reads it.

        A stream of events may begin long before the tool ends: a caller who leaves a write's
        must not cut it.
        """

        def ended(failure: UpstreamFailed | None, whole: bool) -> None:
            cut = judge_failure(failure, dispatched=True) if failure else CUT
            shown = verdict if whole or not keep else cut
            self._hand_back(arm, permit, shown, self._clock.now())

        assert not isinstance(reply.body, bytes)
        goes_on = keep and media_type(reply.headers) == EVENTS
        reply.body = Settled(reply.body, ended, linger=linger if goes_on else 0.0)
        if not keep:
            await reply.body.aclose()

    def _hand_back(self, arm: Arm, permit: Permit, verdict: Verdict, now: float) -> None:
        change = arm.breaker.record(permit, verdict.counts, now, verdict.retry_after)
        if change is not None:
            self._watch.breaker_changed(arm.name, change)

    def _attempted(self, attempt: Attempt, x: Exchange) -> Verdict:
        x.attempts.append(attempt)
        self._watch.attempt_ended(attempt)
        if attempt.verdict.config_fault:
            self._watch.config_fault(attempt.arm, f"{attempt.verdict.label} {attempt.status or ''}")
        return attempt.verdict

    def _last_answer(self, line: Line, call: Call, x: Exchange, ran: Ran) -> Reply:
        """What the caller hears if no arm could answer: a sentence the agent can speak."""
        tool = line.tools.get(call.tool)
        pending = says_pending(ran, line.tools.terms(call).effect)
        spoken = fields(call).get(tool.language) if tool.language else None
        x.reason, x.outcome = Reason.LAST_ANSWER, "last_answer"
        if call.kind in TOOL_KINDS:
            x.flags.append("say_pending" if pending else "say")
        self._watch.last_answered(call.kind)
        return last_answer(
            call,
            ran=ran if pending else Ran.NO,
            tool=tool,
            language=spoken if isinstance(spoken, str) else None,
        )

    async def _pass_through(self, line: Line, visit: Visit, body: bytes, x: Exchange) -> Reply:
        """A path that is not ours: forwarded as it is, every status relayed, never split."""
        assert line.passthrough is not None
        arm, head = line.arms[line.passthrough], visit.head
        x.kind, x.reason = Kind.PASSTHROUGH, Reason.PASSTHROUGH
        headers = headers_for_arms(Call(x.kind, head), x)
        outbound = Outbound(head.method, head.target, head.end_to_end, body)
        until = self._clock.now() + arm.timeout
        try:
            reply = await arm.upstream.send(outbound, headers, deadline=until, buffer=0)
        except UpstreamFailed as failure:
            late = failure.why == "timeout"
            raise Refused(
                504 if late else 502, "upstream_failed", "The application gave no answer."
            ) from failure
        x.arm, x.outcome = arm.name, "ok"
        return reply

    def _answer(self, line: Line, x: Exchange, reply: Reply) -> Reply:
        """Say who answered and why, and account: now, or when the stream has ended."""
        if line.expose_headers:
            reply.headers = headers_for_caller(reply.headers, x)
        if isinstance(reply.body, bytes):
            self._account(x, reply.status, len(reply.body))
            return reply

        def ended(failure: UpstreamFailed | None, whole: bool) -> None:
            if not whole:
                x.outcome = "failed" if failure else "gone"
            self._account(x, reply.status, stream.size)

        stream = reply.body = Settled(reply.body, ended)
        x.flags.append("streamed")
        return reply

    def _account(self, x: Exchange, status: int, size: int) -> None:
        """The one step in which every exchange ends."""
        x.status, x.bytes_out, x.ended = status, size, self._clock.now()
        self.inflight -= 1
        self._watch.exchange_ended(x)


def nobody_hears() -> Reply:
    """What stands in the log for an answer whose caller has hung up; 499 as nginx has it."""
    return Reply(499, close=True)


def judged(reply: Reply, arm: Arm, kind: Kind) -> Verdict:
    """The verdict on an answer whose backend had none of its own."""
    body = reply.body if isinstance(reply.body, bytes) and kind not in STATUS_ONLY else None
    return judge_reply(reply.status, reply.headers, body, not_executed=arm.not_executed)


async def caught(answer: Coroutine[Any, Any, Reply]) -> Reply | Exception:
    """An answer, or why there is none: nobody may be left to hear an exception."""
    try:
        return await answer
    except Exception as error:
        return error
