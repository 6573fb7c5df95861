"""What has run does not run again: the replay guard on the path of a request.

`begin` says what a request may do: go on unguarded, run under a `Ticket`, or hear what the first
of its kind hears.  Every ticket ends, in `settle`, or in `abandon` where nobody came so far.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from typing import Protocol, TypeAlias

from msgspec import Struct

from proxy.core.dialects.answers import EVENTS, JSON
from proxy.core.dialects.ear import Ear
from proxy.core.dialects.headers import media_type
from proxy.core.dialects.kept import LIMIT, keep
from proxy.core.model import Call, Kind, Ran, Reply, Verdict
from proxy.core.replay import ReplayGuard
from proxy.core.replay_events import EventGuard, EventStep, event_key
from proxy.core.replay_key import replay_key, scope_of
from proxy.core.replay_values import Done, Full, Replay, Run, RunState, Wait
from proxy.core.tool_call_id import tool_call_id
from proxy.core.tool_table import Terms
from proxy.errors import UpstreamFailed
from proxy.flights import Flights
from proxy.ports import Clock, Watch
from proxy.relay import Settled

Outcome: TypeAlias = Done | Ran
"""What a repeat hears: an answer, or whether it may have run."""

TIDY_SECONDS = 0.5

_SUCCESS = "success"
# Bound once: reading a member of an enumeration is slow in Python 3.11.
_EVENT, _DELIVER, _DELIVERED = Kind.EVENT, EventStep.DELIVER, EventStep.DELIVERED
_MCP, _ARGS = Kind.MCP, Kind.ARGS
_NOT_RUN, _UNKNOWN = Ran.NO, Ran.UNKNOWN
_IN_FLIGHT = RunState.IN_FLIGHT


class Heard(Struct, frozen=True, gc=False):
    """An event that was delivered, or is being delivered."""

    key: int
    delivered: bool


class Ticket(Struct, eq=False, gc=False):
    """Leave to run a write, or to deliver an event, once."""

    run: Run | None
    event: int = 0
    asked: bool = False  # an arm may have heard of it
    left: bool = False  # its caller has been answered, it goes on
    open: bool = True  # not settled, and nobody is bound to settle it
    proved: bool = False  # its request came with a credential that held
    far: bool = False  # the guard of the process that follows this one has it


class Elsewhere(Struct, frozen=True, gc=False):
    """Another process has followed this one and knows: it is to be asked (`Once.ask`).

    About a write, or about an event.
    """

    key: bytes = b""
    scope: str = ""
    tool: str = ""
    replay_for: float = 0.0
    tool_call_id: str | None = None
    proved: bool = False
    event: int = 0


class Heir(Protocol):
    """The process that follows this one; an outage reads as None: it cannot be asked."""

    async def begin(self, asked: Elsewhere) -> Run | Replay | Wait | Full | None:
        """What to do about a write."""

    async def begin_event(self, key: int) -> EventStep | None:
        """What to do about an event."""

    def ended(self, run: Run, outcome: Outcome) -> None:
        """This has become of a run that it knows."""

    def event_ended(self, key: int, *, taken: bool) -> None:
        """This has become of an event."""


Step: TypeAlias = Ticket | Replay | Wait | Full | Heard | Elsewhere


class Once:
    """Lets each write run once, and each event be taken once; the guards remember, this waits."""

    def __init__(
        self, guard: ReplayGuard, events: EventGuard, *, clock: Clock, watch: Watch
    ) -> None:
        self.guard = guard
        self.events = events
        self.heir: Heir | None = None  # the process that has followed this one
        self._clock = clock
        self._watch = watch
        self._runs: Flights[bytes, Outcome] = Flights(clock)
        self._deliveries: Flights[int, bool] = Flights(clock)
        self._lingering: set[bytes] = set()  # unknown, but an answer may still come

    def begin(self, call: Call, terms: Terms, now: float, *, proved: bool = False) -> Step | None:
        """What to do about a request; None: nothing about it is guarded.

        `proved`: it came with a credential that held.  What such a request was told is not for one
        without.
        """
        if call.kind is _EVENT:
            return self._begin_event(call, now)
        if terms.replay_for is None or call.tool is None:
            return None
        scope = scope_of(call)
        if scope is None:
            return None
        tool = call.tool
        if call.kind is _ARGS and call.head.method != "POST":
            tool = f"{call.head.method} {tool}"  # One path, and yet another thing to do.
        key, known_as = replay_key(scope, tool, call.arguments, call.body), tool_call_id(call)
        if self.heir is not None:
            return Elsewhere(key, scope, call.tool, terms.replay_for, known_as, proved)
        step = self.guard.begin(
            key,
            scope,
            tool=call.tool,
            replay_for=terms.replay_for,
            now=now,
            tool_call_id=known_as,
        )
        return Ticket(step, proved=proved) if isinstance(step, Run) else step

    async def ask(self, asked: Elsewhere) -> Step:
        """What to do about a request, as the process says that has followed this one.

        Where that cannot be asked nothing runs, and what has run elsewhere is unknown; but if it
        never came to be, this one decides.
        """
        heir, now = self.heir, self._clock.now()
        if heir is None:
            return self.take_up(asked, now)
        if asked.event:
            event = await heir.begin_event(asked.event)
            if event is None:
                return self.take_up(asked, now)  # In doubt it is delivered.
            if event is _DELIVER:
                return Ticket(None, asked.event, far=True)
            return Heard(asked.event, event is _DELIVERED)
        step = await heir.begin(asked)
        if step is None:
            return self.take_up(asked, now) if self.heir is None else self._recall(asked)
        if not isinstance(step, Run):
            return step
        self._lingering.add(step.key)  # Its twins on this side wait for it.
        return Ticket(step, proved=asked.proved, far=True)

    def _recall(self, asked: Elsewhere) -> Replay | Wait:
        known = self.guard.recall(asked.key, self._clock.now(), tool_call_id=asked.tool_call_id)
        return known or Wait(asked.key, unknown=True)

    def take_up(self, asked: Elsewhere, now: float) -> Ticket | Replay | Wait | Full | Heard:
        """What to do about a request that another process has asked about."""
        if asked.event:
            step = self.events.begin(asked.event, now)
            if step is _DELIVER:
                return Ticket(None, asked.event)
            return Heard(asked.event, step is _DELIVERED)
        begun = self.guard.begin(
            asked.key,
            asked.scope,
            tool=asked.tool,
            replay_for=asked.replay_for,
            now=now,
            tool_call_id=asked.tool_call_id,
        )
        return Ticket(begun, proved=asked.proved) if isinstance(begun, Run) else begun

    def under_way(self) -> tuple[list[tuple[bytes, int]], list[int]]:
        """Runs (keys and numbers) and events that somebody here may still learn the end of."""
        waited = self._lingering
        runs = [
            (run.key, run.number)
            for run in self.guard.store
            if run.state is _IN_FLIGHT or (run.done is None and run.key in waited)
        ]
        return runs, self.events.keys_under_way()

    def adopt(self, runs: Iterable[tuple[bytes, int]], events: Iterable[int]) -> Iterator[Ticket]:
        """Tickets for what is under way in the process before this one; `conclude` ends them."""
        known, now = self.guard.store.last.known, self._clock.now()
        for key, number in runs:
            run = known.get(key)
            if run is not None and run.number == number and run.done is None:
                self._lingering.add(key)
                yield Ticket(run, asked=True, left=True)
        for event in events:
            self.events.begin(event, now)
            yield Ticket(None, event)

    def conclude(self, ticket: Ticket, outcome: Outcome | None, *, taken: bool = False) -> None:
        """Another process tells how it ended: a run by `outcome`, an event by `taken`."""
        if ticket.event:
            self._end_event(ticket, taken=taken)
        else:
            self._end(ticket, _UNKNOWN if outcome is None else outcome)

    async def outcome(self, step: Replay | Wait, until: float) -> Outcome:
        """What a repeat hears, by `until` (clock seconds) at the latest."""
        if type(step) is Replay:
            self._watch.replayed("write")
            return step.done
        assert type(step) is Wait
        if step.unknown and step.key not in self._lingering:
            return _UNKNOWN  # nobody is left who could learn more
        told = await self._runs.wait(step.key, until)
        if told is None:
            return _UNKNOWN
        self._watch.replayed("twin")
        return told

    async def taken(self, step: Heard, until: float) -> bool | None:
        """Whether the event was taken; False: no, deliver this one; None: not known by `until`."""
        if step.delivered:
            self._watch.replayed("event")
            return True
        taken = await self._deliveries.wait(step.key, until)
        if taken:
            self._watch.replayed("twin")
        return taken

    def doubt(self, ticket: Ticket) -> None:
        """A write is late: whatever comes of it, for now it may have run."""
        assert ticket.run is not None
        ticket.left = True
        self._lingering.add(ticket.run.key)
        if not ticket.far:
            self.guard.unknown(ticket.run, self._clock.now())

    def settle(
        self, ticket: Ticket, call: Call, reply: Reply | None, verdict: Verdict, ran: Ran
    ) -> None:
        """Remember how it ended: `reply` is the caller's answer, None if no arm gave one.

        `verdict` is that on `reply`; `ran` is what is known of all attempts together.
        """
        if ticket.event:
            self._end_event(ticket, taken=reply is not None and 200 <= reply.status < 300)
            return
        if reply is None or verdict.ran is _NOT_RUN:
            self._end(ticket, ran if reply is None else _NOT_RUN)
            return
        if isinstance(reply.body, bytes):
            self._end(ticket, _outcome(ticket, call, reply, verdict))
        elif ticket.left:  # a late answer that begins well and is too large to be kept
            self._end(ticket, Done(None, verdict.label == _SUCCESS))
        else:
            ticket.open = False
            reply.body = self._followed(ticket, call, reply, success=verdict.label == _SUCCESS)

    def abandon(self, ticket: Ticket) -> None:
        """Whoever held this ticket has come to no end with it."""
        if not ticket.open:
            return
        if ticket.event:
            self._end_event(ticket, taken=False)
        else:
            self._end(ticket, _UNKNOWN if ticket.asked else _NOT_RUN)

    async def tidy(self) -> None:
        """Forget, from time to time, what has been known long enough; runs until cancelled."""
        while True:
            await asyncio.sleep(TIDY_SECONDS)
            self.guard.expire(self._clock.now())

    def _begin_event(self, call: Call, now: float) -> Ticket | Heard | Elsewhere | None:
        key = event_key(call)
        if key is None:
            return None
        if self.heir is not None:
            return Elsewhere(event=key)
        step = self.events.begin(key, now)
        return Ticket(None, key) if step is _DELIVER else Heard(key, step is _DELIVERED)

    def _end_event(self, ticket: Ticket, *, taken: bool) -> None:
        ticket.open = False
        if self.heir is not None:
            self.heir.event_ended(ticket.event, taken=taken)
        self.events.ended(ticket.event, self._clock.now(), delivered=taken)
        self._deliveries.land(ticket.event, taken)

    def _followed(
        self, ticket: Ticket, call: Call, reply: Reply, *, success: bool
    ) -> AsyncIterator[bytes]:
        """An answer that streams: known to be done once it has come whole.

        A stream of MCP's events begins well whatever becomes of the tool: what it says counts.
        """
        assert not isinstance(reply.body, bytes)
        ear = None
        if call.rpc_id is not None and media_type(reply.headers) == EVENTS:
            ear = Ear(call.rpc_id)

        def ended(failure: UpstreamFailed | None, whole: bool) -> None:
            if ear is not None:
                self._end(ticket, _heard(ticket, call, ear))
            else:
                self._end(ticket, Done(None, success) if whole else _UNKNOWN)

        return Settled(reply.body, ended, hear=ear.feed if ear is not None else None)

    def _end(self, ticket: Ticket, outcome: Outcome) -> None:
        """Tell the guard, and whoever waits."""
        run, now = ticket.run, self._clock.now()
        assert run is not None
        ticket.open = False
        if ticket.left or ticket.far:
            self._lingering.discard(run.key)
        if self.heir is not None:
            self.heir.ended(run, outcome)
        if ticket.far:
            pass  # What this process knew, it knows no more.
        elif isinstance(outcome, Done):
            self.guard.finished(run, outcome, now)
        elif outcome is _NOT_RUN:
            self.guard.not_run(run, now)
        else:
            self.guard.unknown(run, now)
        self._runs.land(run.key, outcome)


def wants_input(message: bytes) -> bool:
    """The tool has not run yet: it asks for more first (MCP 2026-07-28, `input_required`)."""
    return b'"input_required"' in message


def _outcome(ticket: Ticket, call: Call, reply: Reply, verdict: Verdict) -> Outcome:
    """What a whole answer says of the run."""
    kept, success = keep(call, reply, verdict=verdict), verdict.label == _SUCCESS
    if kept is None:
        assert isinstance(reply.body, bytes)
        if success and len(reply.body) <= LIMIT:
            return _UNKNOWN  # compressed in a way that nobody here can read: it may be a no
    elif kept.asks_more and wants_input(kept.body):
        return _NOT_RUN
    return Done(kept, success, ticket.proved)


def _heard(ticket: Ticket, call: Call, ear: Ear) -> Outcome:
    """What a stream of events came to."""
    if ear.message is None or not ear.verdict.delivers:
        return ear.verdict.ran
    reply = Reply(200, [(b"content-type", JSON)], ear.message)
    return _outcome(ticket, call, reply, ear.verdict)
