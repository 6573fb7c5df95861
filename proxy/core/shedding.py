"""Is there too much to do, and whose request gives way first?

Two signs: exchanges in flight, and a late event loop.  Whoever can come again gives way first
(prioritised shedding, as Envoy's overload manager sheds by scaled triggers): Retell sends an
event once more, but a caller hears what becomes of a function.
"""

from __future__ import annotations

from math import inf

from proxy.core.model import Kind

IN_FLIGHT, LAG = "in_flight", "lag"
CONNECTIONS = "connections"
"""A third one, that the listener sees: so many callers that some are turned away."""

PATIENT = frozenset({Kind.EVENT, Kind.ALERT, Kind.OTHER, Kind.PASSTHROUGH})
"""Kinds behind which nobody listens to silence."""

EARLY = 0.8
"""Patient kinds leave the rest of the room in flight to the others."""

TOO_MUCH = "Too much is under way; later, please."

RETRY_AFTER = 5
"""Seconds after which one that was shed may come again."""


class Shedder:
    """Bounds on exchanges in flight and on the loop's lag (seconds); None: no bound.

    Lag sheds in two stages, patient kinds from `max_lag` on, the others from twice that.  Each
    ends at half of the lag that began it, or the next request would begin it again.
    """

    __slots__ = ("_calm", "_early", "_most", "_stage", "_start")

    def __init__(self, *, in_flight: int | None = None, max_lag: float | None = None) -> None:
        self._most = inf if in_flight is None else in_flight
        self._early = inf if in_flight is None else max(1, int(in_flight * EARLY))
        self._start = inf if max_lag is None else max_lag
        self._calm = self._start / 2
        self._stage = 0

    def check(self, kind: Kind, inflight: int, lag: float) -> str | None:
        """Admit (None), or why not; `inflight` counts this one too."""
        if inflight > self._early and (inflight > self._most or kind in PATIENT):
            return IN_FLIGHT
        if lag > self._calm or self._stage:
            self._stage = stage = self._next(lag)
            if stage and (stage == 2 or kind in PATIENT):
                return LAG
        return None

    def _next(self, lag: float) -> int:
        """The stage that follows from this one."""
        start, stage = self._start, self._stage
        if lag > 2 * start:
            return 2
        if lag > start:
            return max(stage, 1)
        return 1 if stage and lag > self._calm else 0
