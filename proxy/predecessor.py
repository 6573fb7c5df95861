"""How does a new process follow one that serves?  It asks, takes over, and hears what comes late.

What the old process still has under way is unknown here until it tells how it ended; what callers
ask of it yet, it asks here first.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeAlias

from proxy.adapters import sockets
from proxy.adapters.channel import (
    VERSION,
    Answer,
    Begin,
    BeginEvent,
    Channel,
    Ended,
    EventEnded,
    Go,
    Hello,
    Lost,
    Message,
    No,
    Offer,
    Post,
    Ready,
    State,
    Taken,
)
from proxy.adapters.state_dir import StateDir, StateHeld
from proxy.core.model import Ran
from proxy.core.replay_values import Done, Replay, Wait
from proxy.durable import Durable
from proxy.errors import SettingsError
from proxy.once import Elsewhere, Heard, Once, Ticket
from proxy.ports import Clock

OFFERING: Final = 5.0
"""Seconds for the old process to say what it has to offer."""

HANDING: Final = 30.0
"""Seconds for it to let go: its deliveries under way have 10 of them."""

GOING: Final = 15.0
"""Seconds for its last word."""

TWIN: Final = 4.0
"""Seconds in which a write that runs here may end, so that its twin there hears how."""

Start: TypeAlias = Callable[[Coroutine[Any, Any, Any], str], "asyncio.Task[Any]"]


class Predecessor:
    """The process that serves until this one does."""

    def __init__(self, channel: Channel, offer: Offer, found: list[socket.socket]) -> None:
        self.offered = list(zip(offer.places, found, strict=True))
        self._given = {place.name for place in offer.places if place.given}
        self._state_dir = offer.state_dir
        self._channel = channel
        self._early: list[Message] = []
        self._tickets: dict[tuple[bytes, int], Ticket] = {}
        self._events: dict[int, Ticket] = {}
        self._serving: asyncio.Task[Any] | None = None

    @classmethod
    async def meet(cls, channel: Channel, *, pid: int, listener: int = 0) -> Predecessor:
        """Ask the process at the other end to be followed.

        `listener`: `sockets.inode` of a socket for callers that this process was given.  Raises
        `SettingsError`, with its reason, if that will not.
        """
        channel.send(Hello(VERSION, pid, listener))
        try:
            async with asyncio.timeout(OFFERING):
                message, fds = await channel.receive()
        except (Lost, TimeoutError):
            raise SettingsError("the process before this one does not answer") from None
        if not isinstance(message, Offer) or len(message.places) != len(fds):
            for fd in fds:
                os.close(fd)
            raise SettingsError(message.why if isinstance(message, No) else "it offers nothing")
        return cls(channel, message, [socket.socket(fileno=fd) for fd in fds])

    def state(self, path: str) -> StateDir:
        """The state directory of this process: the old one's to come, or another."""
        try:
            return StateDir.open(path)
        except StateHeld:
            state = StateDir.awaited(path)
            if not self._state_dir or state.number != self._state_dir:
                raise
            return state

    def claim(self, name: str, address: str) -> list[socket.socket]:
        """Its sockets of that name, if they serve: those it was given, or those at `address`."""
        fitting = [
            (place, sock) for place, sock in self.offered
            if place.name == name and (place.given or place.address == address)
        ]  # fmt: skip
        for one in fitting:
            self.offered.remove(one)
        return [sock for _, sock in fitting]

    def given(self, name: str) -> bool:
        """Whether a service manager gave it the sockets of that name."""
        return name in self._given

    def refuse(self) -> None:
        """Keep none of the sockets that nobody claimed."""
        sockets.close(sock for _, sock in self.offered)
        self.offered.clear()

    async def take(self, state: StateDir) -> State:
        """Everything stands: have the old process stop, and learn what it knows.

        `state` is this process's directory from here on.  Raises `SettingsError`.
        """
        self._channel.send(Ready())
        told, fds = await self._next(HANDING)
        if not isinstance(told, State):
            raise SettingsError(told.why if isinstance(told, No) else "it does not let go")
        for fd in fds:
            if state.writable or not state.readable:
                os.close(fd)  # Of a directory that is not this process's.
            else:
                state.adopt(fd)
        if state.readable and not state.writable:
            raise SettingsError(f"the process before this one keeps {state.path} for itself")
        return told

    async def go(self, once: Once, told: State) -> None:
        """All is known here: wait for the last word.  Raises `SettingsError`."""
        for ticket in once.adopt(told.runs, told.events):
            self._hold(ticket)
        self._channel.send(Taken())
        while True:
            message, _ = await self._next(GOING)
            if isinstance(message, Go):
                return
            self._early.append(message)  # It asks already, for callers of its own.

    def serve(self, once: Once, durable: Durable, *, clock: Clock, start: Start) -> None:
        """Answer it from now on, beside everything else, until it ends."""
        self._serving = start(
            self._serve(once, durable, clock=clock, start=start), "process before this one"
        )

    async def ended(self, timeout: float) -> None:
        """Until it is gone, or `timeout` seconds have passed."""
        if self._serving is not None:
            await asyncio.wait({self._serving}, timeout=timeout)

    async def fail(self, why: str) -> None:
        """This comes to nothing: let the old process know why."""
        self._channel.send(No(why))
        await self._channel.flush()
        self.close()

    def close(self) -> None:
        """Let go of it."""
        self.refuse()
        self._channel.close()

    async def _serve(self, once: Once, durable: Durable, *, clock: Clock, start: Start) -> None:
        try:
            for message in self._early:
                self._hear(message, once, durable, clock=clock, start=start)
            while True:
                message, _ = await self._channel.receive()
                self._hear(message, once, durable, clock=clock, start=start)
        except Lost:
            pass
        finally:
            self._abandon(once)
            self._channel.close()

    def _hear(
        self, message: Message, once: Once, durable: Durable, *, clock: Clock, start: Start
    ) -> None:
        match message:
            case Ended(key=key, number=number, done=done, ran=ran):
                ticket = self._tickets.pop((key, number), None)
                if ticket is not None:
                    once.conclude(ticket, done if done or ran else Ran.NO)
            case EventEnded(key=event, taken=taken):
                ticket = self._events.pop(event, None)
                if ticket is not None:
                    once.conclude(ticket, None, taken=taken)
            case Begin() | BeginEvent():
                start(self._begin(message, once, clock), "write of the process before this one")
            case Post():
                start(self._keep(message, durable, clock), "event of the process before this one")
            case _:
                pass

    async def _begin(self, asked: Begin | BeginEvent, once: Once, clock: Clock) -> None:
        about = _about(asked)
        step = once.take_up(about, clock.now()) if once.heir is None else await once.ask(about)
        if isinstance(step, Wait):  # A twin of it may end in time.
            outcome = await once.outcome(step, clock.now() + TWIN)
            step = Replay(outcome) if isinstance(outcome, Done) else step
        if self._channel.lost:  # Nobody hears it, and nobody would tell how it ended.
            if isinstance(step, Ticket):
                once.abandon(step)
            return
        if isinstance(step, Ticket):
            step.asked = True
            self._hold(step)
            run = step.run.number if step.run is not None else 0
            answer = Answer(asked.id, run=run, yes=True)
        elif isinstance(step, Heard):
            answer = Answer(asked.id, wait=not step.delivered)
        elif isinstance(step, Replay):
            answer = Answer(asked.id, done=step.done)
        else:
            answer = Answer(asked.id, wait=isinstance(step, Wait))
        self._channel.send(answer)

    async def _keep(self, post: Post, durable: Durable, clock: Clock) -> None:
        until = clock.now() + post.patience
        kept = await durable.keep(post.entry, post.letter, until=until)
        self._channel.send(Answer(post.id, yes=kept))

    def _hold(self, ticket: Ticket) -> None:
        if ticket.run is None:
            self._events[ticket.event] = ticket
        else:
            self._tickets[ticket.run.key, ticket.run.number] = ticket

    def _abandon(self, once: Once) -> None:
        """Nobody tells any more how these ended."""
        for ticket in [*self._tickets.values(), *self._events.values()]:
            once.abandon(ticket)
        self._tickets.clear()
        self._events.clear()

    async def _next(self, patience: float) -> tuple[Message, list[int]]:
        try:
            async with asyncio.timeout(patience):
                return await self._channel.receive()
        except (Lost, TimeoutError):
            raise SettingsError("the process before this one did not let go") from None


def _about(asked: Begin | BeginEvent) -> Elsewhere:
    if isinstance(asked, BeginEvent):
        return Elsewhere(event=asked.key)
    return Elsewhere(asked.key, asked.scope, asked.tool, asked.replay_for, asked.tool_call_id)
