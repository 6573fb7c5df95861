"""How does this process let another one follow?  Step by step, and back again if it fails.

1. The new one stands: rules loaded, sockets shared, arms wired; it says so.
2. The old one lets its deliveries end, accepts nobody more, and puts its outbox down.
3. It tells what has run and what is running.  From here on it asks before it runs anything.
4. The new one knows all that, and holds the state; the old one says go, and drains.

Connections wait in the shared queue between 2 and 4.  Whatever fails before `go` leaves the old one
as it was.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from structlog.typing import FilteringBoundLogger

from proxy.adapters.channel import (
    VERSION,
    Channel,
    Go,
    Hello,
    Lost,
    Message,
    No,
    Offer,
    Ready,
    State,
    Taken,
)
from proxy.adapters.rendezvous import Rendezvous
from proxy.adapters.replay_file import ReplayFile
from proxy.adapters.state_dir import StateDir, held
from proxy.doors import Doors, shares
from proxy.durable import Durable
from proxy.once import Once
from proxy.ports import Clock
from proxy.predecessor import Start
from proxy.successor import Successor

BEGINNING: Final = 30.0
"""Seconds for a new process to speak first: an interpreter's start, on a busy machine."""

STARTING: Final = 60.0
"""Seconds for it to load its rules and to be ready."""

TAKING: Final = 10.0
"""Seconds for it to learn what has run."""

LAST_WORDS: Final = 2.0
"""Seconds for it to hear how the last of what ran here has ended."""

DELIVERIES: Final = 10.0
"""Seconds for deliveries under way: an event may take 9."""

ENDED: Final = "the process before it has ended"


class Refusal(Exception):
    """It does not follow; the text says why."""


class Handover:
    """The old process's side.  `draining()` tells whether it is about to end anyway."""

    def __init__(
        self,
        doors: Doors,
        once: Once,
        durable: Durable,
        *,
        state: StateDir,
        replays: ReplayFile,
        draining: Callable[[], bool],
        clock: Clock,
        log: FilteringBoundLogger,
        start: Start,
    ) -> None:
        self.successor: Successor | None = None
        self.followed = asyncio.Event()
        self._doors = doors
        self._once = once
        self._durable = durable
        self._state = state
        self._replays = replays
        self._draining = draining
        self._clock = clock
        self._log = log
        self._start = start
        self._busy = asyncio.Lock()
        self._met: Channel | None = None  # to who would follow, while nothing is given up for it
        self._own: Channel | None = None  # the same, to one that this process has started
        self._over = False
        self._called_off = False
        self._rendezvous = Rendezvous(state.path, self._came)

    def open(self) -> None:
        """Let others find this process, beside the state that it holds."""
        if self._state.writable and not self._rendezvous.open():
            self._log.warning("handover_unavailable", why=self._rendezvous.why)

    async def close(self, grace: float = 0.0) -> None:
        """Nobody follows any more; but who takes over already may finish.

        Who is about to has `grace` seconds to get that far.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(grace), self._busy:
                pass
        self.hurry()
        async with self._busy:
            self._rendezvous.close()
        if self.successor is not None:
            await self.successor.finish(LAST_WORDS)

    def hurry(self) -> None:
        """Wait for nobody who does not take over already."""
        self._over = True
        if self._met is not None:
            self._met.send(No(ENDED))
            self._met.close()

    def call_off(self) -> None:
        """Let nobody follow whom this process has started: who ends it did not mean that."""
        self._called_off = True
        if self._own is not None:
            self._own.send(No(ENDED))
            self._own.close()

    async def offer(self, sock: socket.socket, *, own: bool) -> int:
        """Let the process at the other end follow; its ID.

        `own`: this process has started it.  Raises `Refusal`, and all is as it was.
        """
        channel = Channel(sock)
        try:
            if self._is_over(own):
                raise Refusal(ENDED)
            if self._busy.locked():
                raise Refusal("another process is about to follow already")
            async with self._busy:
                return await self._followed_by(channel, own=own)
        except Refusal as refusal:
            channel.send(No(str(refusal)))
            await channel.flush()
            channel.close()
            raise
        except (Lost, TimeoutError):
            channel.close()
            why = ENDED if self._is_over(own) else "it did not say that it was ready"
            raise Refusal(why) from None
        except OSError as error:
            channel.close()
            raise Refusal(f"this one could not let go: {error.strerror or error}") from error
        except BaseException:
            channel.close()
            raise

    def _is_over(self, own: bool) -> bool:
        return self._over or (own and self._called_off)

    async def _followed_by(self, channel: Channel, *, own: bool) -> int:
        self._met, self._own = channel, channel if own else None
        try:
            pid = await self._agreed(channel, own=own)
        finally:
            self._met = self._own = None
        await self._hand(channel, pid, own=own)
        return pid

    async def _agreed(self, channel: Channel, *, own: bool) -> int:
        """The ID of a process that is ready to follow."""
        hello = await _heard(channel, BEGINNING)
        if isinstance(hello, No):
            raise Refusal(hello.why)
        if not isinstance(hello, Hello) or hello.version != VERSION:
            raise Refusal("it is of another version, which cannot follow: stop this one first")
        if self.successor is not None:
            raise Refusal("another process has followed already")
        places = [(place, sock) for place, sock in self._doors.places() if sock.fileno() >= 0]
        if not (own or self._draining() or (hello.listener and shares(places, hello.listener))):
            raise Refusal(held(self._state.path, str(os.getpid())))
        number = self._state.number if self._state.writable else 0
        offer = Offer([place for place, _ in places], number)
        channel.send(offer, [sock.fileno() for _, sock in places])
        ready = await _heard(channel, STARTING)
        if not isinstance(ready, Ready):
            raise Refusal(ready.why if isinstance(ready, No) else "it made no sense")
        return hello.pid

    async def _hand(self, channel: Channel, pid: int, *, own: bool) -> None:
        began = self._clock.now()
        successor = Successor(channel, pid=pid, clock=self._clock)
        try:
            await self._durable.rest(DELIVERIES)
            shut = self._clock.now()
            await self._doors.shut()
            successor.hold()
            self._durable.heir = successor  # Events that nobody takes wait for it from here on.
            await self._durable.stop(0.0)
            self._once.heir = successor
            self._tell(channel)
            successor.release()
            taken = await _heard(channel, TAKING)
            if not isinstance(taken, Taken):
                raise Refusal(taken.why if isinstance(taken, No) else "it made no sense")
            if own and self._called_off:
                raise Refusal(ENDED)
        except BaseException:
            await self._take_back(successor)
            raise
        self._rendezvous.close()
        self._replays.close()
        self._state.close()
        self._doors.leave()
        self.successor = successor
        channel.send(Go())
        self._start(successor.listen(), "process that follows")
        self.followed.set()
        now = self._clock.now()
        self._log.info(
            "handed_over",
            pid=pid,
            rested_ms=round((shut - began) * 1000),
            shut_ms=round((now - shut) * 1000),
        )

    def _tell(self, channel: Channel) -> None:
        """All that is known, as of one moment: what comes after it is asked about."""
        text = self._replays.text(self._once.guard, self._once.events)
        runs, events = self._once.under_way()
        lock = self._state.lock
        channel.send(
            State(text, runs, events, lock is not None), [lock] if lock is not None else []
        )

    async def _take_back(self, successor: Successor) -> None:
        self._once.heir = self._durable.heir = None
        successor.lose()
        await self._durable.stop(0.0)  # What is shut already stays so: no step is taken twice.
        await self._doors.shut()
        if not self._draining():
            await self._durable.start()
            await self._doors.reopen()

    def _came(self, visitor: socket.socket) -> None:
        self._start(self._receive(visitor), "process that would follow")

    async def _receive(self, visitor: socket.socket) -> None:
        try:
            await self.offer(visitor, own=False)
        except Refusal as refusal:
            self._log.warning("handover_refused", why=str(refusal))


async def _heard(channel: Channel, patience: float) -> Message:
    async with asyncio.timeout(patience):
        message, _ = await channel.receive()
        return message
