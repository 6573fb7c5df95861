"""Which run came first, and which has stayed long enough?

There is a lane for each length of stay, so in every lane the first to come is the first to go.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from proxy.core.replay_values import Run


class Lanes:
    """Runs by their stay.  Lengths come from the rules, so there are few."""

    def __init__(self) -> None:
        self._lanes: dict[float, OrderedDict[Run, None]] = {}
        self.count = 0  # of all runs; to be read

    def __len__(self) -> int:
        return self.count

    def __iter__(self) -> Iterator[Run]:
        """Every run; those of one lane in the order in which they came."""
        for lane in self._lanes.values():
            yield from lane

    def put(self, run: Run, now: float, stay: float) -> None:
        """Let a run stay from now on."""
        run.since, run.stay = now, stay
        lane = self._lanes.get(stay)
        if lane is None:
            lane = self._lanes[stay] = OrderedDict()
        lane[run] = None
        self.count += 1

    def drop(self, run: Run) -> None:
        """Take out a run that is in."""
        lane = self._lanes[run.stay]
        del lane[run]
        self.count -= 1
        if not lane:
            del self._lanes[run.stay]

    def first(self) -> Run | None:
        """The one that came before all others; None if there is none."""
        first = None
        for lane in self._lanes.values():
            run = next(iter(lane))
            if first is None or run.since < first.since:
                first = run
        return first

    def due(self, now: float) -> Run | None:
        """One that has stayed long enough; None if there is none."""
        for lane in self._lanes.values():
            run = next(iter(lane))
            if not run.holds(now):
                return run
        return None
