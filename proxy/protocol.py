"""MCP's own messages, those that run no tool: relayed where the arm speaks MCP, else said here.

So a caller finds an MCP server whichever arm its call is on, and whichever of them is away.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from proxy.attempt import Attempts, Plan, lasts
from proxy.core.dialects.answers import EVENTS, rpc_reply
from proxy.core.dialects.headers import media_type
from proxy.core.dialects.jsonrpc import INTERNAL_ERROR, render_error
from proxy.core.dialects.last_answer import RETRY_AFTER
from proxy.core.exchange import Exchange
from proxy.core.model import Call, Era, Form, Reply, Verdict
from proxy.core.rescue import rescue_reason
from proxy.edge import Visit
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
            reply = await answer()
            if under_way and not isinstance(reply.body, bytes):
                reply.body = Settled(reply.body, lambda *_: sessions.finish(call))
                under_way = False
        finally:
            if under_way:
                sessions.finish(call)
        sessions.stamp(call, reply, x.decided, visit.credential, faced="face" in x.flags)
        return reply

    async def answer(self, line: Line, call: Call, plan: Plan, x: Exchange) -> Reply:
        """The arm's answer, or that of our face, which then is one of the exchange's flags."""
        arm, x.reason, failed = plan.arm, plan.reason, None
        if arm.speaks_mcp:
            reply, verdict = await self._attempts.one(arm, call, plan, x)
            if reply is not None and verdict.delivers:
                x.arm, x.outcome = arm.name, "ok"
                if verdict.label == "business_no":
                    x.outcome = "business_no"
                if not isinstance(reply.body, bytes):
                    self._see_through(line, call, reply, x)
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
                x.arm, x.outcome = "none", "last_answer"
                return Reply(503, [(b"retry-after", b"%d" % RETRY_AFTER)])
        x.flags.append("face")
        return line.face.answer(call)

    def _see_through(self, line: Line, call: Call, reply: Reply, x: Exchange) -> None:
        """A stream of events that answers a request comes to its end."""
        if lasts(call):
            x.flags.append("lasting")
        assert not isinstance(reply.body, bytes)
        if call.rpc_id is not None and media_type(reply.headers) == EVENTS:
            rpc_id = call.rpc_id

            async def finish(_: Verdict) -> bytes:
                if line.face.knows(call):
                    return as_events(line.face.answer(call))
                message = render_error(rpc_id, INTERNAL_ERROR, "The server broke off.")
                return as_events(rpc_reply(call, message))

            reply.length = None  # There may be more to say.
            reply.body = Finale(
                reply.body, rpc_id, finish, start=self._start, resumable=call.era is _LEGACY
            )
