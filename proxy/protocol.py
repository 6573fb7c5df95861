"""MCP's own messages, those that run no tool: relayed where the arm speaks MCP, else said here.

So a caller finds an MCP server whichever arm its call is on, and whichever of them is away.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial

from proxy.attempt import Attempts, Plan, lasts
from proxy.core.dialects.answers import EVENTS, rpc_reply
from proxy.core.dialects.headers import media_type
from proxy.core.dialects.jsonrpc import INTERNAL_ERROR, render_error
from proxy.core.dialects.last_answer import RETRY_AFTER, last_answer
from proxy.core.exchange import Exchange
from proxy.core.model import Call, Era, Form, Ran, Reply, Verdict
from proxy.core.rescue import rescue_reason
from proxy.edge import Visit
from proxy.errors import CallsplitError, UpstreamFailed
from proxy.finale import Finale, as_events
from proxy.hedged import Start
from proxy.line import Line
from proxy.ports import Clock, Watch
from proxy.relay import Settled
from proxy.sessions import Sessions

# Bound once: reading a member of an enumeration is slow in Python 3.11.
_STREAM, _LEGACY = Form.STREAM, Era.LEGACY


class Protocol:
    """Answers every MCP message but `tools/call`."""

    def __init__(
        self,
        attempts: Attempts,
        sessions: Sessions,
        *,
        clock: Clock,
        watch: Watch,
        start: Start,
    ) -> None:
        self._attempts = attempts
        self._sessions = sessions
        self._clock = clock
        self._watch = watch
        self._start = start
        self._listeners: Counter[str] = Counter()  # by arm: each holds a connection of its own

    async def converse(
        self,
        line: Line,
        call: Call,
        visit: Visit,
        answer: Callable[[], Awaitable[Reply]],
        x: Exchange,
    ) -> Reply:
        """A message of an MCP caller, in the caller's session if it has one; raises `Refused`."""
        sessions = self._sessions
        sessions.open(call, visit.credential, self._clock.wall_ms())
        if call.session is not None:
            x.session = call.session.id
        if call.tool is not None:
            x.tool = call.tool = line.tools.known(call.tool)
        under_way = sessions.begin(call, guarded=line.tools.terms(call).replay_for is not None)
        try:
            reply = await self._sound(line, call, answer, x)
            if under_way and not isinstance(reply.body, bytes):
                reply.body = Settled(reply.body, lambda *_: sessions.finish(call))
                under_way = False
        finally:
            if under_way:
                sessions.finish(call)
        faced, refused = "face" in x.flags, x.outcome in ("business_no", "failed")
        sessions.stamp(call, reply, x.decided, visit.credential, faced=faced, refused=refused)
        return reply

    async def _sound(
        self, line: Line, call: Call, answer: Callable[[], Awaitable[Reply]], x: Exchange
    ) -> Reply:
        """An answer in MCP's own words even of a bug: a failing status ends clients' sessions."""
        try:
            return await answer()
        except CallsplitError:
            raise
        except Exception as bug:
            self._watch.crashed("exchange", bug)
            x.outcome, x.code = "failed", "internal_error"
            return last_answer(call, ran=Ran.UNKNOWN, tool=line.tools.get(call.tool))

    async def answer(self, line: Line, call: Call, plan: Plan, x: Exchange) -> Reply:
        """The arm's answer, or that of our face, which then is one of the exchange's flags."""
        arm, x.reason, failed = plan.arm, plan.reason, None
        if arm.speaks_mcp and lasts(call) and self._listeners[arm.name] >= arm.listeners:
            return self._later(x)
        if arm.speaks_mcp:
            reply, verdict = await self._attempts.one(arm, call, plan, x)
            if reply is not None and verdict.delivers:
                x.arm, x.outcome = arm.name, "ok"
                if verdict.label == "business_no":
                    x.outcome = "business_no"
                if not isinstance(reply.body, bytes):
                    self._see_through(line, call, reply, x, arm.timeout)
                return reply
            failed = verdict
        return self._say(line, call, plan, x, failed)

    def _say(
        self, line: Line, call: Call, plan: Plan, x: Exchange, failed: Verdict | None
    ) -> Reply:
        x.arm = plan.arm.name if failed is None else line.other(plan.arm.name).name
        x.outcome = "ok" if failed is None else "rescued"
        if failed is not None:
            x.reason = rescue_reason(failed)
            self._watch.rescued(plan.arm.name, x.reason.removeprefix("rescue_"))
            if call.form is _STREAM:  # No "never" (405): its server will be back.
                return self._later(x)
        x.flags.append("face")
        return line.face.answer(call)

    def _left(self, arm: str, failure: UpstreamFailed | None, whole: bool) -> None:
        self._listeners[arm] -= 1

    def _later(self, x: Exchange) -> Reply:
        x.arm, x.outcome = "none", "last_answer"
        return Reply(503, [(b"retry-after", b"%d" % RETRY_AFTER)])

    def _see_through(
        self, line: Line, call: Call, reply: Reply, x: Exchange, timeout: float
    ) -> None:
        """A stream of events that answers a request comes to its end."""
        assert not isinstance(reply.body, bytes)
        if lasts(call):
            x.flags.append("lasting")
            self._listeners[x.arm] += 1
            reply.body = Settled(reply.body, partial(self._left, x.arm))
        if call.rpc_id is not None and media_type(reply.headers) == EVENTS:
            rpc_id = call.rpc_id

            async def finish(_: Verdict) -> bytes:
                if line.face.knows(call):
                    return as_events(line.face.answer(call))
                message = render_error(rpc_id, INTERNAL_ERROR, "The server broke off.")
                return as_events(rpc_reply(call, message))

            reply.length = None  # There may be more to say.
            patient = lasts(call)
            reply.body = Finale(
                reply.body,
                rpc_id,
                finish,
                start=self._start,
                first=None if patient else self._clock.now() + timeout,
                patience=timeout,
                resumable=call.era is _LEGACY,
            )
