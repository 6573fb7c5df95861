"""Who is told what becomes of events that wait?  Figures and the log; never what stands in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from prometheus_client import Gauge
from structlog.typing import FilteringBoundLogger

from proxy.adapters.tallies import Counters
from proxy.core.outbox import Entry, State
from proxy.core.outbox_lines import Lines
from proxy.ports import Clock

REMIND_SECONDS: Final = 60.0
"""The same trouble is logged this often at most; the metric counts each."""

REFUSALS: Final = ("full", "store")
OUTCOMES: Final = ("delivered", "failed", "dead")


class OutboxFigures:
    """The outbox's metric families, made by the two functions that it is handed."""

    def __init__(self, counters: Callable[..., Counters], gauge: Callable[..., Gauge]) -> None:
        self.taken = counters("outbox_taken", "Events that the outbox took because no arm did.")
        self.refused = counters(
            "outbox_refused", "Events that the outbox could not take; they got 503.", "reason"
        )
        self.deliveries = counters(
            "outbox_deliveries", "Tries to hand on what waits in the outbox, by how they ended.",
            "outcome")  # fmt: skip
        self.entries = gauge("outbox_entries", "Events in the outbox.", "state")
        self.oldest = gauge(
            "outbox_oldest_seconds", "Age of the oldest event that is to be delivered; 0: none is."
        )
        self.taken[()] += 0
        for reason in REFUSALS:
            self.refused[reason,] += 0
        for outcome in OUTCOMES:
            self.deliveries[outcome,] += 0
        for state in State:
            self.entries.labels(state).set(0)

    def show(self, lines: Lines, wall_ms: Callable[[], int]) -> None:
        """Read off `lines` whenever somebody asks."""

        def age() -> float:
            oldest = lines.oldest_ms
            return 0.0 if oldest is None else max(0.0, (wall_ms() - oldest) / 1000)

        self.entries.labels(State.QUEUED).set_function(lambda: lines.queued)
        self.entries.labels(State.DEAD).set_function(lambda: lines.dead)
        self.oldest.set_function(age)


class OutboxWatch:
    """Counts, and tells what an operator must know; never raises."""

    def __init__(self, figures: OutboxFigures, log: FilteringBoundLogger, clock: Clock) -> None:
        self._figures = figures
        self._log = log
        self._clock = clock
        self._told: dict[str, float] = {}
        self._away = False

    def taken(self, queued: int) -> None:
        """An event is safe; `queued` with it."""
        self._figures.taken[()] += 1
        if queued == 1:
            self._log.warning("outbox_filled")

    def refused(self, reason: str, detail: str = "") -> None:
        """An event could not be taken; `reason` is one of `REFUSALS`."""
        self._figures.refused[reason,] += 1
        now = self._clock.now()
        if now - self._told.get(reason, -REMIND_SECONDS) >= REMIND_SECONDS:
            self._told[reason] = now
            self._log.error("outbox_refused", reason=reason, detail=detail)

    def delivered(self, entry: Entry, arm: str, queued: int) -> None:
        """An arm took it; `queued` are left."""
        self._figures.deliveries["delivered",] += 1
        late_ms = self._clock.wall_ms() - entry.received_ms
        self._log.info("outbox_delivered", arm=arm, late_ms=late_ms, **_about(entry))
        if not queued:
            self._log.info("outbox_emptied")

    def failed(self) -> None:
        """An arm did not take it; it will be asked again."""
        self._figures.deliveries["failed",] += 1

    def died(self, entry: Entry) -> None:
        """It will not be tried again by itself."""
        self._figures.deliveries["dead",] += 1
        self._log.error("outbox_gave_up", reason=entry.reason, **_about(entry))

    def store_failed(self, why: str) -> None:
        """The store cannot be used."""
        if not self._away:
            self._away = True
            self._log.error("outbox_store_failed", why=why)

    def store_back(self, queued: int, dead: int) -> None:
        """The store can be used (again), and this is what it holds."""
        if self._away or queued or dead:
            self._away = False
            self._log.info("outbox_opened", queued=queued, dead=dead)


def _about(entry: Entry) -> dict[str, Any]:
    return {
        "id": entry.id,
        "call_id": entry.call_id,
        "call_event": entry.event,
        "tries": entry.tries,
    }
