"""When does an event that waits go out?  One task looks what is due, a few others hand it on.

One at a time of a call, several calls at a time.  While an arm's breaker is open nobody knocks
there; when it closes, nobody waits any longer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, Protocol

from proxy.adapters.outbox import EventOutbox, Start
from proxy.adapters.outbox_watch import OutboxWatch
from proxy.core.outbox import Entry, Letter, State
from proxy.core.outbox_retry import Tried, after, unreadable
from proxy.errors import StoreFailed
from proxy.ports import Clock

LOOK_AGAIN: Final = 1.0
"""Seconds until an arm that is not to be asked, or a store that cannot be read, is looked at again.
"""

LOOKS: Final = 256
"""Entries looked at in one go while their arm is not to be asked: they may be thousands."""

MOST_REST: Final = 5.0
"""Seconds after which it looks in any case."""


class Post(Protocol):
    """Who hands an event to an arm."""

    def shut(self, entry: Entry) -> Tried | None:
        """Why the entry's arm is not to be asked now; None: it is."""

    async def hand(self, entry: Entry, letter: Letter) -> Tried:
        """Ask it, and tell how that ended; raises only what is a bug."""


class Courier:
    """Delivers what waits in `box`, while its store lets this process lead."""

    def __init__(
        self,
        box: EventOutbox,
        post: Post,
        *,
        clock: Clock,
        watch: OutboxWatch,
        start: Start,
        jitter: Callable[[], float],
    ) -> None:
        self._box = box
        self._post = post
        self._clock = clock
        self._watch = watch
        self._start = start
        self._jitter = jitter
        self._under_way: set[asyncio.Task[Any]] = set()
        self._rests_until = 0.0
        self._stopping = False

    @property
    def under_way(self) -> int:
        """Deliveries at the moment."""
        return len(self._under_way)

    async def run(self) -> None:
        """Look, hand on, rest; until cancelled."""
        while not self._stopping:
            self._box.changes.clear()
            while (entry := self._next()) is not None:
                task = self._start(self._deliver(entry), "outbox delivery")
                self._under_way.add(task)
                task.add_done_callback(self._ended)
            await self._rest()

    def hasten(self) -> None:
        """An arm is well again: whatever waits for its time is due now."""
        self._rests_until = 0.0
        self._box.lines.hasten(self._clock.now())
        self._box.changes.set()

    async def stop(self, grace: float) -> None:
        """Begin nothing more, and let what is under way end within `grace` seconds.

        What is cut then stays where it is, and is delivered by who comes next.
        """
        self._stopping = True
        self._box.changes.set()
        if self._under_way:
            await asyncio.wait(self._under_way, timeout=grace)
        self.cut()
        if self._under_way:
            await asyncio.wait(self._under_way)

    def cut(self) -> None:
        """End what is under way now."""
        for task in self._under_way:
            task.cancel()

    def _next(self) -> Entry | None:
        """The next one to hand on; None: nothing is due, or nothing may go out now."""
        box, now = self._box, self._clock.now()
        if self._stopping or not box.store.leading or now < self._rests_until:
            return None
        if self.under_way >= box.terms.parallel:
            return None
        for _ in range(LOOKS):
            entry = box.lines.take(now)
            if entry is None or self._is_over(entry) or self._post.shut(entry) is None:
                return entry
            box.lines.put(entry, now + LOOK_AGAIN)
        self._rests_until = now + LOOK_AGAIN
        return None

    def _is_over(self, entry: Entry) -> bool:
        age_ms = self._clock.wall_ms() - entry.since_ms
        return age_ms >= self._box.terms.patience.give_up * 1000

    async def _deliver(self, entry: Entry) -> None:
        """Hand one entry on, and settle what has become of it."""
        box = self._box
        try:
            tried = self._post.shut(entry)
            if tried is None:
                letter = await box.letter(entry.id)
                if letter is None:
                    await self._bury(entry, unreadable(entry))
                    return
                tried = await self._post.hand(entry, letter)
            await self._settle(entry, tried)
        except StoreFailed as error:  # It could not be read: everybody rests.
            self._rests_until = self._clock.now() + LOOK_AGAIN
            self._watch.store_failed(str(error))
        finally:
            if box.lines.is_out(entry.id):  # Not settled, for whatever reason.
                box.lines.put(entry, self._clock.now() + LOOK_AGAIN)

    async def _settle(self, entry: Entry, tried: Tried) -> None:
        box = self._box
        wall_ms, patience = self._clock.wall_ms(), box.terms.patience
        became = after(entry, tried, wall_ms=wall_ms, patience=patience, jitter=self._jitter())
        if became is None:
            await box.become(entry, None)
            self._watch.delivered(entry, tried.arm, box.lines.queued)
        elif became.state is State.DEAD:
            await self._bury(entry, became)
        elif tried.began:
            self._watch.failed()
            await box.become(entry, became)
        else:
            self._rests_until = self._clock.now() + LOOK_AGAIN

    async def _bury(self, entry: Entry, dead: Entry) -> None:
        await self._box.become(entry, dead)
        self._watch.died(dead)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._under_way.discard(task)
        self._box.changes.set()

    async def _rest(self) -> None:
        """Until something is due, comes back or changes."""
        box, now, wait = self._box, self._clock.now(), MOST_REST
        if self.under_way < box.terms.parallel and box.store.leading:
            due = box.lines.next_due()
            if due is not None:
                wait = min(wait, max(due, self._rests_until) - now)
        try:
            async with asyncio.timeout(max(wait, 0.0)):
                await box.changes.wait()
        except TimeoutError:
            pass
