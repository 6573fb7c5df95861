"""THE path of a request, read top to bottom: handle -> serve -> attempt.

address, guard, size, anything presented (edge.screen) -> body (edge.body) -> kind, call ID, tool
(recognise) -> credentials hold (edge.authorise) -> has it run already? (once) -> limit (edge.meter)
-> decision (splitter) -> is an answer kept? (cached) -> permit, attempt, verdict
-> maybe the rescue -> maybe the outbox -> answer -> account.

Every way out ends in `_account`, and every permit goes back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from proxy.attempt import STATUS_ONLY, TIMED, Attempts, Plan
from proxy.batch import answer_batch
from proxy.cached import Cached, Fetch
from proxy.core.dialects.kept import again, keep
from proxy.core.dialects.last_answer import done_answer, language_of
from proxy.core.exchange import Exchange
from proxy.core.exchange_headers import headers_for_arms, headers_for_caller
from proxy.core.model import (
    TOOL_KINDS,
    Call,
    Decision,
    Effect,
    Era,
    Form,
    Kind,
    Ran,
    Reason,
    Reply,
)
from proxy.core.recognise import recognise
from proxy.core.replay_values import Full, Replay, Wait
from proxy.core.routes import RouteId
from proxy.core.verdict import SUCCESS
from proxy.edge import Visit
from proxy.endings import Endings, nobody_hears
from proxy.errors import ClientGone, Refused, UpstreamFailed
from proxy.hedged import Start
from proxy.hedging import Hedging
from proxy.lasting import Lasting
from proxy.line import Line
from proxy.once import Elsewhere, Heard, Once, Ticket
from proxy.passing import pass_through
from proxy.ports import Clock, Incoming, Outbox, Watch
from proxy.protocol import Protocol
from proxy.relay import Settled
from proxy.sessions import Sessions

# Bound once: reading a member of an enumeration is slow in Python 3.11.
_HEALTH, _LLM, _OTHER, _READ = RouteId.HEALTH, Kind.LLM, Kind.OTHER, Effect.READ
_MCP, _BATCH, _MODERN, _WRITE = Kind.MCP, Form.BATCH, Era.MODERN, Effect.WRITE

IDEMPOTENCY_KEY = b"idempotency-key"  # draft-ietf-httpapi-idempotency-key-header


class Handler:
    """Bytes in, bytes out.

    `start(coroutine, name)` starts a task that somebody holds; `new_id()` gives 32 hex digits.
    """

    def __init__(
        self,
        line: Line,
        *,
        once: Once,
        cached: Cached,
        sessions: Sessions,
        outbox: Outbox,
        clock: Clock,
        watch: Watch,
        new_id: Callable[[], str],
        start: Start,
    ) -> None:
        self.line = line  # replaced as a whole by a reload
        self.inflight = 0
        self._clock = clock
        self._watch = watch
        self._new_id = new_id
        self._once = once
        self._cached = cached
        self._outbox = outbox
        self.lasting = Lasting()
        self._start = start
        attempts = Attempts(clock=clock, watch=watch, start=start)
        self._protocol = Protocol(attempts, sessions, clock=clock, watch=watch, start=start)
        self._hedging = Hedging(attempts, clock=clock, watch=watch, start=start)
        self._endings = Endings(self._hedging, clock=clock, watch=watch, start=start)

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
            if not x.ended:
                self._account(x, 499, 0)
            raise
        except Exception as bug:
            self._watch.crashed("exchange", bug)
            x.outcome, x.code = "failed", "internal_error"
            oops = Refused(500, x.code, "Something went wrong here.")
            reply = line.edge.refuse(oops, x.request_id)
        if x.ended:
            return reply  # The caller has been answered, while a late write went on.
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
            return await pass_through(line, visit, body, x, self._clock)
        call = recognise(visit.route, visit.head, body, line.ids)
        x.kind, x.call_id, x.tool, x.event = call.kind, call.id, call.tool, call.event
        line.edge.authorise(call, visit, self._clock.wall_ms())
        if call.kind is _LLM:
            raise Refused(501, "not_implemented", "Custom LLM sockets are not carried yet.")
        if call.kind is not _MCP:
            return await self._answer_call(line, incoming, call, visit, x)
        if call.form is _BATCH:
            x.outcome = "ok"
            x.flags.append("batch")
            return await answer_batch(self.handle, incoming, body, start=self._start)
        answer = partial(self._answer_call, line, incoming, call, visit, x)
        return await self._protocol.converse(line, call, visit, answer, x)

    async def _answer_call(
        self, line: Line, incoming: Incoming, call: Call, visit: Visit, x: Exchange
    ) -> Reply:
        """From a call to its answer; a write is run once, whoever asks how often."""
        # What is in force now, as for the arms: a reload may have come with the body.
        terms = self.line.tools.terms(call)
        proved = visit.credential != ""
        step = self._once.begin(call, terms, x.started, proved=proved)
        while isinstance(step, (Heard, Elsewhere)):
            if isinstance(step, Elsewhere):
                step = await self._once.ask(step)
                continue
            taken = await self._once.taken(step, x.started + terms.budget)
            if taken is not False:
                return self._heard(line, call, x, taken=taken)
            step = self._once.begin(call, terms, self._clock.now())
        if step is not None and not isinstance(step, Ticket):
            return await self._repeat(line, call, step, x, terms.budget, proved=proved)
        try:
            limited = self._meter(line, call, visit, x)
            if limited is None:
                return await self._run(line, incoming, call, visit, step, x)
            return await self._turn_away(line, call, limited, step, x)
        finally:
            if step is not None:
                self._once.abandon(step)

    def _meter(self, line: Line, call: Call, visit: Visit, x: Exchange) -> Refused | None:
        """Why this is too much now; None: go on."""
        try:
            line.edge.meter(call, visit, x.started)
        except Refused as limited:
            return limited
        return None

    async def _turn_away(
        self, line: Line, call: Call, limited: Refused, ticket: Ticket | None, x: Exchange
    ) -> Reply:
        """Nothing is asked of the arms: a tool's caller hears so, an event may wait."""
        x.code = limited.code
        if call.kind in TOOL_KINDS:
            return self._endings.last_answer(line, call, x, Ran.NO)
        until = x.started + line.tools.terms(call).budget
        reply = await self._queue(call, line.otherwise, until, ticket, x)
        if reply is None:
            raise limited
        return reply

    def _heard(self, line: Line, call: Call, x: Exchange, *, taken: bool | None) -> Reply:
        """An event that an arm has taken already, or is still thinking about."""
        if taken is None:
            return self._endings.last_answer(line, call, x, Ran.UNKNOWN)
        x.reason, x.outcome = Reason.REPLAYED, "ok"
        return Reply(204)

    async def _repeat(
        self,
        line: Line,
        call: Call,
        step: Replay | Wait | Full,
        x: Exchange,
        patience: float,
        *,
        proved: bool,
    ) -> Reply:
        """A write that has run, is running or may have run: its own answer, or what is known.

        Without a credential nobody hears the answer to a request that had one, only that it is
        done.
        """
        if isinstance(step, Full):
            x.code = "replay_full"
            return self._endings.last_answer(line, call, x, Ran.NO)
        outcome = await self._once.outcome(step, self._clock.now() + patience)
        if isinstance(outcome, Ran):
            return self._endings.last_answer(line, call, x, outcome)
        tool, kept = line.tools.get(call.tool), outcome.kept
        if outcome.proved and not proved:
            kept = None
        if kept is None and not outcome.success:
            return self._endings.last_answer(line, call, x, Ran.NO)  # it said no, at great length
        x.reason, x.outcome = Reason.REPLAYED, "ok" if outcome.success else "business_no"
        if kept is None:
            reply = done_answer(call, tool=tool, language=language_of(call, tool))
        else:
            reply = again(call, kept, tool.output_schema)
        return reply

    async def _run(
        self,
        line: Line,
        incoming: Incoming,
        call: Call,
        visit: Visit,
        ticket: Ticket | None,
        x: Exchange,
    ) -> Reply:
        """Decide, ask the arms, remember how it ended."""
        line, wall_ms = self.line, self._clock.wall_ms()
        # The splitter is of now, and may name arms that came with a reload: so is the line.
        decision = self._decide(line, call, visit, wall_ms)
        x.decided, x.decided_by = decision.arm, decision.reason
        plan = self._plan(line, call, decision, x, wall_ms)
        if call.form is not None:
            # In 2026-07-28 hanging up is how a question is taken back.
            incoming.perishable = call.era is _MODERN and plan.terms.effect is not _WRITE
            if call.rpc_method != "tools/call":
                return await self._protocol.answer(line, call, plan, x)
            if call.continues and not plan.arm.speaks_mcp:
                return self._endings.last_answer(line, call, x, Ran.NO)
            call.promised = line.face.promised(call, plan.arm.name)
        if ticket is not None:
            self._bind(plan, ticket, partial(self._leave, line, incoming, call, x, ticket))
        if call.kind in STATUS_ONLY and self._outbox.has_queue(call.id):
            queued = await self._queue(call, plan.arm.name, plan.budget_ends, ticket, x)
            if queued is not None:
                return queued
        if (
            ticket is None
            and (found := self._cached.look(call, plan.arm.name, x.started)) is not None
        ):
            return await self._share(line, call, plan, found, x)
        reply, verdict, ran = await self._hedging.run(call, plan, x)
        if plan.terms.effect is not _READ and ran is not Ran.NO:
            self._wrote(call, reply)
        if reply is None and call.kind in STATUS_ONLY:
            reply = await self._queue(call, plan.arm.name, plan.budget_ends, ticket, x)
        elif ticket is not None:
            self._once.settle(ticket, call, reply, verdict, ran)
            if ticket.left:
                return nobody_hears()  # The caller has an answer already.
        if reply is None:
            return self._endings.last_answer(line, call, x, ran)
        if call.kind is _MCP:
            self._endings.see_through(line, call, plan, reply, x)
        return reply

    def _wrote(self, call: Call, reply: Reply | None) -> None:
        """Forget what a write makes untrue: now, and when an answer that streams has ended too."""
        self._cached.wrote(call)
        if reply is not None and not isinstance(reply.body, bytes):
            reply.body = Settled(reply.body, lambda *_: self._cached.wrote(call))

    async def _queue(
        self, call: Call, arm: str, until: float, ticket: Ticket | None, x: Exchange
    ) -> Reply | None:
        """Keep an event that no arm can take now, or that follows such a one; None: it cannot be.

        Once it is kept it has been taken, as far as its sender is concerned.
        """
        reply = await self._outbox.take(call, arm, until=until)
        if reply is not None:
            x.reason, x.outcome = Reason.LAST_ANSWER, "last_answer"
            x.flags.append("queued")
            if ticket is not None:
                self._once.settle(ticket, call, reply, SUCCESS, Ran.NO)
        return reply

    async def _share(
        self, line: Line, call: Call, plan: Plan, found: Reply | Fetch, x: Exchange
    ) -> Reply:
        """A read whose answer is kept, is on its way to a twin, or will be kept."""
        if isinstance(found, Reply):
            return self._kept(found, plan.arm.name, x)
        with found:
            patience = plan.budget_ends - plan.min_attempt
            if found.twin and (reply := await self._cached.join(found, patience)) is not None:
                return self._kept(reply, found.arm, x)
            reply, verdict, ran = await self._hedging.run(call, plan, x)
            if reply is not None:
                found.keep(keep(call, reply, verdict=verdict), x.arm)
                if call.kind is _MCP:
                    self._endings.see_through(line, call, plan, reply, x)
                return reply
            if (stale := self._cached.stale(found)) is not None:
                x.flags.append("stale")
                return self._kept(stale, plan.arm.name, x)
        return self._endings.last_answer(line, call, x, ran)

    def _kept(self, reply: Reply, arm: str, x: Exchange) -> Reply:
        no = reply.verdict is not None and reply.verdict.label == "business_no"
        x.arm, x.reason, x.outcome = arm, Reason.CACHED, "business_no" if no else "ok"
        return reply

    def _bind(self, plan: Plan, ticket: Ticket, leave: Callable[[], None]) -> None:
        """Every try of a write says that it is the same one.  A caller's own word never goes on."""
        plan.ticket = ticket
        if ticket.run is None:
            return
        plan.leave = leave
        plan.headers.append((IDEMPOTENCY_KEY, ticket.run.idempotency))

    def _leave(
        self, line: Line, incoming: Incoming, call: Call, x: Exchange, ticket: Ticket
    ) -> None:
        """Answer the caller of a write that is late: nobody is kept waiting for it any longer."""
        self._once.doubt(ticket)
        self._cached.wrote(call)
        reply = self._endings.last_answer(line, call, x, Ran.UNKNOWN)
        if incoming.gone:
            x.outcome, reply = "gone", nobody_hears()
        incoming.answer(self._answer(line, x, reply))

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
        if call.continues:  # Only who asked can make anything of it.
            other = None
        # Retell's patience with an event began with its first byte; a tool's body may be late.
        began = x.started if kind in TIMED else self._clock.now()
        budget_ends, headers = began + terms.budget, headers_for_arms(call, x)
        return Plan(arm, other, reason, terms, budget_ends, line.fallback.min_attempt, headers)

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
            if self.lasting.discard(stream):
                self.inflight += 1
            self._account(x, reply.status, stream.size)

        stream = reply.body = Settled(reply.body, ended)
        x.flags.append("streamed")
        if "lasting" in x.flags:
            self.lasting.add(stream)
            self.inflight -= 1
        return reply

    def _account(self, x: Exchange, status: int, size: int) -> None:
        """The one step in which every exchange ends."""
        x.status, x.bytes_out, x.ended = status, size, self._clock.now()
        self.inflight -= 1
        self._watch.exchange_ended(x)
