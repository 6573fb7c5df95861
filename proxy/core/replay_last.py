"""Which was the last run of a write, whatever else is known of it?"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from proxy.core.replay_values import Run, RunState

MOST = 50_000
"""Runs that are bare, at most."""

_BARE = (RunState.LOST, RunState.OVER)


class LastRuns:
    """The last run of each key.

    One that is known no longer stays bare for `keep` seconds: the next run counts on from it.
    """

    def __init__(self, *, keep: float, most: int = MOST) -> None:
        self.of: dict[bytes, Run] = {}
        self._keep = keep
        self._most = most
        self._bare: deque[Run] = deque()  # oldest first; others may have followed them

    def known(self, key: bytes) -> Run | None:
        """The last run of a key, unless it is bare."""
        run = self.of.get(key)
        return None if run is None or run.state in _BARE else run

    def lay_bare(self, run: Run, now: float) -> None:
        """A run is known no longer: it is lost, or over."""
        run.since, run.stay = now, 0.0
        self._bare.append(run)
        if len(self._bare) > self._most:
            self._drop_first()

    def remember(self, key: bytes, number: int, now: float) -> None:
        """The last run of a key, of which nothing else is known, had this number."""
        run = self.of[key] = Run(key, number, "", "", 0.0, state=RunState.OVER)
        self.lay_bare(run, now)

    def numbers(self) -> Iterator[tuple[bytes, int]]:
        """Key and number of every run that is bare, oldest first."""
        return ((run.key, run.number) for run in self._bare if self.of.get(run.key) is run)

    def expire(self, now: float, steps: int) -> None:
        """Forget up to `steps` runs that have been bare for long enough."""
        for _ in range(steps):
            if not self._bare or now < self._bare[0].since + self._keep:
                return
            self._drop_first()

    def _drop_first(self) -> None:
        run = self._bare.popleft()
        if run.state in _BARE and self.of.get(run.key) is run:
            del self.of[run.key]
