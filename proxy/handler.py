"""THE path of a request, read top to bottom: handle -> serve -> attempt.

address, guard, size, anything presented (edge.screen) -> body (edge.body) -> kind, call ID, tool
(recognise) -> credentials hold (edge.authorise) -> limit (edge.meter) -> decision (splitter)
-> permit, attempt, verdict -> maybe the rescue -> answer -> account.

Every way out ends in `_account`, and every permit goes back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from proxy.attempt import TIMED, Attempts, Plan, Start
from proxy.core.dialects.last_answer import last_answer
from proxy.core.exchange import Exchange
from proxy.core.exchange_headers import headers_for_arms, headers_for_caller
from proxy.core.fields import fields
from proxy.core.model import (
    TOOL_KINDS,
    Call,
    Decision,
    Kind,
    Outbound,
    Ran,
    Reason,
    Reply,
    Verdict,
)
from proxy.core.recognise import recognise
from proxy.core.rescue import (
    combine,
    in_time,
    may_rescue,
    rescue_reason,
    says_pending,
)
from proxy.core.routes import RouteId
from proxy.edge import Visit
from proxy.errors import ClientGone, Refused, UpstreamFailed
from proxy.line import Line
from proxy.ports import Clock, Incoming, Watch
from proxy.relay import Settled

# Bound once: reading a member of an enumeration is slow in Python 3.11.
_HEALTH, _LLM, _OTHER = RouteId.HEALTH, Kind.LLM, Kind.OTHER


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
        self._attempts = Attempts(clock=clock, watch=watch, start=start)

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
        budget_ends, headers = began + terms.budget, headers_for_arms(call, x)
        return Plan(arm, other, reason, terms, budget_ends, line.fallback.min_attempt, headers)

    async def _try_arms(self, line: Line, call: Call, plan: Plan, x: Exchange) -> Reply:
        """The attempt, at most one rescue, the last answer."""
        reply, first = await self._attempts.one(plan.arm, call, plan, x)
        if reply is not None and (first.delivers or call.kind is _OTHER):
            x.arm, x.reason = plan.arm.name, plan.reason
            x.outcome = "business_no" if first.label == "business_no" else "ok"
            return reply
        ran = first.ran
        if plan.other is not None and self._may_rescue(call, plan, first):
            reply, second = await self._attempts.one(plan.other, call, plan, x, rescue=True)
            if reply is not None and second.delivers:
                x.arm, x.reason = plan.other.name, rescue_reason(first)
                x.outcome = "rescued"
                self._watch.rescued(plan.arm.name, x.reason.removeprefix("rescue_"))
                return reply
            ran = combine(ran, second.ran)
        return self._last_answer(line, call, x, ran)

    def _may_rescue(self, call: Call, plan: Plan, first: Verdict) -> bool:
        return may_rescue(first, plan.terms.effect, call.kind) and in_time(
            self._clock.now(), budget_ends=plan.budget_ends, min_attempt=plan.min_attempt
        )

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
