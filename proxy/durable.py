"""What of a sidecar outlives it, wired: the outbox, of rules, a place and a way to the arms."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Protocol

from structlog.typing import FilteringBoundLogger

from proxy.adapters.courier import Courier
from proxy.adapters.outbox import EventOutbox, OutboxTerms, taken
from proxy.adapters.outbox_store import SqliteOutbox
from proxy.adapters.outbox_watch import OutboxFigures, OutboxWatch
from proxy.adapters.state_dir import StateDir
from proxy.adapters.tasks import Tasks
from proxy.core.model import Call, Reply
from proxy.core.outbox import Entry, Letter, entry_of, letter_of
from proxy.core.outbox_retry import Patience
from proxy.core.rules import Outbox as OutboxRules
from proxy.core.rules import Rules, SecretRef
from proxy.core.rules.outbox import SQLITE
from proxy.errors import StoreFailed
from proxy.ports import Clock, OutboxStore
from proxy.redelivery import Redelivery

FILE: Final = "outbox.db"

OPENING: Final = 2.0
"""Seconds that a start waits for the store: who is already in a queue must be known before calls
come; but a store that is away must not keep them away.
"""


class Heir(Protocol):
    """The process that follows this one, and delivers."""

    async def post(self, entry: Entry, letter: Letter, *, until: float) -> bool:
        """Whether it has kept an event; an outage reads as no."""


class Durable:
    """The outbox of one process, on a running loop; fits `proxy.ports.Outbox`.

    `secret` resolves a reference to bytes, None if it may be absent and is.
    """

    def __init__(
        self,
        state: StateDir,
        redelivery: Redelivery,
        *,
        secret: Callable[[SecretRef], bytes | None],
        clock: Clock,
        figures: OutboxFigures,
        log: FilteringBoundLogger,
        tasks: Tasks,
    ) -> None:
        self.box: EventOutbox | None = None  # None: nothing is kept, and nothing waits
        self.why_not = "it has not started yet"
        self.heir: Heir | None = None  # the process that has followed this one
        self._state = state
        self._redelivery = redelivery
        self._secret = secret
        self._clock = clock
        self._figures = figures
        self._log = log
        self._watch = OutboxWatch(figures, log, clock)
        self._tasks = tasks
        self._rules: Rules | None = None
        self._courier: Courier | None = None
        self._ending: Courier | None = None
        self._hurried = False
        self._running: list[asyncio.Task[Any]] = []
        self._started = False

    def has_queue(self, call_id: str | None) -> bool:
        """Events of this call wait here."""
        return self.box is not None and self.box.has_queue(call_id)

    async def take(self, call: Call, arm: str, *, until: float) -> Reply | None:
        """Keep an event, if there is where."""
        if self.heir is not None:
            entry = entry_of(call, arm, self._clock.wall_ms())
            return taken() if await self.heir.post(entry, letter_of(call), until=until) else None
        return await self.box.take(call, arm, until=until) if self.box is not None else None

    async def keep(self, entry: Entry, letter: Letter, *, until: float) -> bool:
        """Keep an event for the process that this one follows; whether it is safe."""
        if self.heir is not None:
            return await self.heir.post(entry, letter, until=until)
        return self.box is not None and await self.box.keep(entry, letter, until=until)

    def use(self, rules: Rules) -> None:
        """Go on under these rules; a store that was chosen at start stays."""
        self._rules = rules
        if self.box is not None:
            self.box.terms = terms(rules.outbox)
            self.box.changes.set()
        elif self._started:
            self._begin(rules)

    async def start(self) -> None:
        """Open the store, and deliver what waits there."""
        assert self._rules is not None
        self._started = True
        self._begin(self._rules)
        if self.box is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(OPENING):
                    await self.box.told.wait()

    async def rest(self, grace: float) -> None:
        """Deliver nothing more, while events are kept still; `start` or `stop` follows.

        What is under way may end within `grace` seconds; what is cut then is delivered by who
        comes next.
        """
        if self._courier is not None:
            await self._courier.stop(grace)

    def breaker_changed(self, arm: str) -> None:
        """When an arm is well again, nobody waits for his time."""
        if self._courier is not None and self._redelivery.passes(arm):
            self._courier.hasten()

    def hurry(self) -> None:
        """Cut `stop` short, whether it runs or is still to come."""
        self._hurried = True
        if self._ending is not None:
            self._ending.cut()

    async def stop(self, grace: float) -> None:
        """Let deliveries end within `grace` seconds, and let go; harmless a second time."""
        self._started = False  # Rules that change after this begin nothing.
        box, courier, running = self.box, self._courier, self._running
        if box is None or courier is None:
            return
        self.box, self._courier, self._running, self._ending = None, None, [], courier
        self.why_not = "it has stopped"
        await courier.stop(0.0 if self._hurried else grace)
        await box.tell_rest()
        for task in running:
            task.cancel()
        await asyncio.wait(running)
        await box.store.aclose()

    def _begin(self, rules: Rules) -> None:
        store = self._store(rules.outbox)
        if store is None:
            return
        clock, watch, start = self._clock, self._watch, self._tasks.start
        self.box = EventOutbox(
            store, terms(rules.outbox), clock=clock, watch=watch, start=start, jitter=random.random
        )
        self._courier = Courier(
            self.box,
            self._redelivery,
            clock=clock,
            watch=watch,
            start=start,
            jitter=random.random,
        )
        self._figures.show(self.box.lines, self._clock.wall_ms)
        self._running = [
            self._tasks.start(store.run(self.box), "outbox store"),
            self._tasks.start(self._courier.run(), "outbox courier"),
        ]

    def _store(self, said: OutboxRules) -> OutboxStore | None:
        """Where it is kept; None: nowhere, and `why_not` tells why."""
        url = said.store
        if isinstance(url, SecretRef):
            found = self._secret(url)
            url = found.decode() if found is not None else SQLITE
        if url != SQLITE:
            return self._redis(url) if said.enabled else self._none("outbox.enabled is false")
        state = self._state
        if not state.writable:
            return self._none(f"state_dir {state.path} cannot be used: {state.why}", said.enabled)
        path = self._state.file(FILE)
        if not said.enabled and not path.exists():
            return self._none("outbox.enabled is false")
        return SqliteOutbox(path, wall_ms=self._clock.wall_ms, log=self._log)

    def _redis(self, url: str) -> OutboxStore | None:
        try:
            from proxy.adapters.outbox_redis import RedisOutbox, connect  # 7 MB, if only imported

            return RedisOutbox(connect(url), clock=self._clock)
        except StoreFailed as error:
            return self._none(f"outbox.store: {error}", loud=True)

    def _none(self, why: str, loud: bool = False) -> OutboxStore | None:
        self.why_not = why
        if loud:
            self._log.error("outbox_unavailable", why=why)
        return None


def terms(said: OutboxRules) -> OutboxTerms:
    """What the rules say, as the outbox reads it."""
    return OutboxTerms(
        enabled=said.enabled,
        patience=Patience(said.retry_first, said.retry_max, said.give_up),
        most=said.limit.entries,
        most_bytes=said.limit.size,
        parallel=said.parallel,
    )
