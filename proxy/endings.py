"""How does an exchange end that no arm has answered, or not to the end?"""

from __future__ import annotations

from functools import partial

from proxy.attempt import Plan
from proxy.core.dialects.answers import EVENTS
from proxy.core.dialects.headers import media_type
from proxy.core.dialects.last_answer import language_of, last_answer
from proxy.core.exchange import Exchange
from proxy.core.model import TOOL_KINDS, Call, Era, Ran, Reason, Reply, Verdict
from proxy.core.rescue import SLACK, says_pending
from proxy.finale import Finale, as_events
from proxy.hedged import Start
from proxy.hedging import Hedging
from proxy.line import Line
from proxy.ports import Clock, Watch

_LEGACY = Era.LEGACY  # Bound once: reading a member of an enumeration is slow in Python 3.11.


class Endings:
    """The last word of every exchange that needs one: a sentence that the agent can speak."""

    def __init__(self, hedging: Hedging, *, clock: Clock, watch: Watch, start: Start) -> None:
        self._hedging = hedging
        self._clock = clock
        self._watch = watch
        self._start = start

    def last_answer(self, line: Line, call: Call, x: Exchange, ran: Ran) -> Reply:
        """What the caller hears if no arm could answer; `ran`: what is known of all attempts."""
        tool = line.tools.get(call.tool)
        pending = says_pending(ran, line.tools.terms(call).effect)
        x.reason, x.outcome = Reason.LAST_ANSWER, "last_answer"
        if call.kind in TOOL_KINDS:
            x.flags.append("say_pending" if pending else "say")
        self._watch.last_answered(call.kind)
        language = language_of(call, tool)
        return last_answer(call, ran=ran if pending else Ran.NO, tool=tool, language=language)

    def see_through(self, line: Line, call: Call, plan: Plan, reply: Reply, x: Exchange) -> None:
        """Let an MCP tool's stream of events come to its answer, whatever becomes of its arm."""
        body = reply.body
        if call.rpc_id is None or isinstance(body, bytes) or media_type(reply.headers) != EVENTS:
            return
        arm, now = line.arms.get(x.arm, plan.arm), self._clock.now()
        first = now + arm.timeout
        if arm is plan.arm and plan.other is not None:  # so early that a rescue can follow
            early = plan.budget_ends - plan.min_attempt - SLACK
            first = max(min(first, early), now + plan.min_attempt)
        reply.length = None  # There may be more to say.
        reply.body = Finale(
            body,
            call.rpc_id,
            partial(self._last_word, line, call, plan, x),
            start=self._start,
            first=first,
            patience=arm.timeout,
            linger=plan.terms.linger,
            resumable=call.era is _LEGACY,
        )

    async def _last_word(
        self, line: Line, call: Call, plan: Plan, x: Exchange, failed: Verdict
    ) -> bytes:
        """The other arm's answer where that can do no harm, or else what can be said."""
        reply = None
        if x.arm == plan.arm.name:
            reply = await self._hedging.after(failed, call, plan, x)
        return as_events(reply or self.last_answer(line, call, x, failed.ran))


def nobody_hears() -> Reply:
    """What stands in the log for an answer whose caller has hung up; 499 as nginx has it."""
    return Reply(499, close=True)
