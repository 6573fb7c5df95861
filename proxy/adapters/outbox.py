"""Where does an event go that no arm takes?  It is kept, and then its caller may forget it.

The index is in memory, the letters are in a store.  What is told to the store and to the index is
told in that order: what was never safe never waits, and what was delivered is forgotten before the
next one of its call goes out.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from msgspec.structs import replace

from proxy.adapters.outbox_watch import OutboxWatch
from proxy.core.model import Call, Headers, Reply
from proxy.core.outbox import Entry, Letter, entry_of, letter_of, name_of
from proxy.core.outbox_lines import Lines
from proxy.core.outbox_retry import Patience, again, pause
from proxy.errors import StoreFailed
from proxy.ports import Clock, OutboxStore

LEAST: Final = 0.8
"""Seconds that a store has in any case: Retell waits 10 s, the arms have had 9 of them at most."""

GONE: Final = 1000
"""Entries of which it is remembered that another replica forgot them."""

MEND_FIRST, MEND_MOST = 1.0, 15.0
"""Seconds until a change that a store did not take is told to it again: doubling."""

_JSON: Final[Headers] = [(b"content-type", b"application/json")]
_QUEUED: Final = b'{"success":true,"status":"queued"}'


def taken() -> Reply:
    """What the sender of an event hears once it is safe."""
    return Reply(200, list(_JSON), _QUEUED)


Start: TypeAlias = Callable[[Coroutine[Any, Any, Any], str], "asyncio.Task[Any]"]


@dataclass(frozen=True, slots=True)
class OutboxTerms:
    """What the rules say of an outbox."""

    enabled: bool
    patience: Patience
    most: int  # entries
    most_bytes: int
    parallel: int  # deliveries at a time


class EventOutbox:
    """Takes events, and knows what waits; fits `proxy.ports.Outbox` and `OutboxEar`.

    `start(coroutine, name)` starts a task that somebody holds; `jitter()` draws from 0 to 1.
    """

    def __init__(
        self,
        store: OutboxStore,
        terms: OutboxTerms,
        *,
        clock: Clock,
        watch: OutboxWatch,
        start: Start,
        jitter: Callable[[], float],
    ) -> None:
        self.store = store
        self.terms = terms  # replaced as a whole by a reload
        self.lines = Lines()
        self.usable = False
        self.why = "it is not open yet"  # why it is not usable
        self.changes = asyncio.Event()  # something may be due, or due earlier
        self.told = asyncio.Event()  # what the store holds, or that it cannot be used
        self._clock = clock
        self._watch = watch
        self._start = start
        self._jitter = jitter
        self._gone: deque[int] = deque(maxlen=GONE)  # of late, by others
        self._untold: dict[int, Entry | None] = {}  # changes that the store has not taken
        self._mending: asyncio.Task[None] | None = None

    # -- What the path asks.

    def has_queue(self, call_id: str | None) -> bool:
        """Events of this call wait here: a later one joins them."""
        name = name_of(call_id)
        return name is not None and self.terms.enabled and self.lines.has(name)

    async def take(self, call: Call, arm: str, *, until: float) -> Reply | None:
        """Keep an event; its answer once it is safe, None if it could not be kept in time."""
        entry = entry_of(call, arm, self._clock.wall_ms())
        return taken() if await self.keep(entry, letter_of(call), until=until) else None

    async def keep(self, entry: Entry, letter: Letter, *, until: float) -> bool:
        """Keep an event that nobody has taken; whether it is safe."""
        if not self.terms.enabled:
            return False
        entry = self._scheduled(entry)
        if not self._has_room(entry):
            self._watch.refused("full", f"{len(self.lines)} events, {self.lines.size} bytes")
            return False
        self.lines.expect(entry)
        keeping = self._start(self._keep(entry, letter), "outbox keep")
        await asyncio.wait({keeping}, timeout=max(LEAST, until - self._clock.now()))
        why = keeping.result() if keeping.done() and not keeping.cancelled() else "too slow"
        if why is not None:
            self._watch.refused("store", why)
        return why is None

    def _scheduled(self, entry: Entry) -> Entry:
        """Due at once behind others of its call; else no arm has just taken it."""
        if self.has_queue(entry.call_id):
            return entry
        wait = pause(1, self.terms.patience, self._jitter())
        return replace(entry, next_ms=self._clock.wall_ms() + round(wait * 1000))

    def _has_room(self, entry: Entry) -> bool:
        lines, terms = self.lines, self.terms
        return len(lines) < terms.most and lines.size + entry.size <= terms.most_bytes

    async def _keep(self, entry: Entry, letter: Letter) -> str | None:
        """Why it could not be kept; goes on whether or not anybody still waits for it."""
        try:
            kept = await self.store.put(entry, letter)
        except StoreFailed as error:
            return str(error)
        finally:
            self.lines.came(entry)
        # Another replica may have delivered it already, and said so before the store could.
        if kept.id not in self._gone and self.lines.find(kept.id) is None:
            self.lines.put(kept, self._due(kept))
        self.changes.set()
        self._watch.taken(self.lines.queued)
        return None

    # -- What the store tells.

    def replaced(self, entries: Sequence[Entry]) -> None:
        """These are all there are, but for what the store has not been told yet."""
        known = [self._untold.get(entry.id, entry) for entry in entries]
        self.lines.replace_all((entry, self._due(entry)) for entry in known if entry is not None)
        self.usable, self.why = True, ""
        self._watch.store_back(self.lines.queued, self.lines.dead)
        self.told.set()
        self.changes.set()

    def changed(self, id: int, entry: Entry | None) -> None:
        """Another replica added or changed an entry; None: it is gone."""
        if entry is None:
            self.lines.drop(id)
            self._gone.append(id)
        else:
            self.lines.hear(entry, self._due(entry))
        self.changes.set()

    def failed(self, why: str) -> None:
        """The store cannot be used; it goes on trying."""
        self.usable, self.why = False, why
        self._watch.store_failed(why)
        self.told.set()

    # -- What its courier does.

    async def become(self, entry: Entry, after: Entry | None) -> None:
        """An entry that was out has become `after`; None: it was delivered.

        What was dropped while it was out does not come back.
        """
        if after is None or self.lines.is_out(entry.id):
            await self._tell(entry.id, after)
        if after is None:
            self.lines.drop(entry.id)
        elif self.lines.is_out(entry.id):
            self.lines.put(after, self._due(after))
        self.changes.set()

    async def tell_rest(self) -> None:
        """Tell the store once more what it has not taken; the last chance before the end."""
        with suppress(StoreFailed):
            for id, entry in tuple(self._untold.items()):
                await self._tell_once(id, entry)
                if self._untold.get(id, entry) is entry:
                    self._untold.pop(id, None)

    # -- What an operator does.

    async def letter(self, id: int) -> Letter | None:
        """The letter of that entry.  Raises `StoreFailed`."""
        return await self.store.letter(id)

    async def retry(self, entry: Entry) -> bool:
        """Have it delivered now; False: it is being delivered.  Raises `StoreFailed`."""
        if self.lines.is_out(entry.id):
            return False
        fresh = again(entry, self._clock.wall_ms())
        await self.store.update(fresh)
        if self.lines.find(entry.id) is not None and not self.lines.is_out(entry.id):
            self.lines.put(fresh, self._clock.now())
        self.changes.set()
        return True

    async def drop(self, id: int) -> None:
        """Forget an entry, delivered or not.  Raises `StoreFailed`."""
        await self.store.remove(id)
        self._untold.pop(id, None)
        self.lines.drop(id)
        self.changes.set()

    # -- Within.

    def _due(self, entry: Entry) -> float:
        """Clock seconds; the wall's clock may have jumped since `next_ms` was written."""
        wait = (entry.next_ms - self._clock.wall_ms()) / 1000
        return self._clock.now() + min(max(wait, 0.0), self.terms.patience.most)

    async def _tell(self, id: int, entry: Entry | None) -> None:
        """Tell the store what has become of an entry; it must not hold up who comes next."""
        try:
            await self._tell_once(id, entry)
        except StoreFailed as error:
            self._watch.store_failed(str(error))
            self._untold[id] = entry
            if self._mending is None or self._mending.done():
                self._mending = self._start(self._mend(), "outbox mend")

    async def _tell_once(self, id: int, entry: Entry | None) -> None:
        if entry is None:
            await self.store.remove(id)
        else:
            await self.store.update(entry)

    async def _mend(self) -> None:
        """Tell the store what it has not taken, until it has."""
        wait = MEND_FIRST
        while self._untold:
            await asyncio.sleep(wait)
            wait = min(wait * 2, MEND_MOST)
            await self.tell_rest()
        self._watch.store_back(self.lines.queued, self.lines.dead)
