"""Which was the last run of a write, whatever else is known of it?"""

from __future__ import annotations

from collections.abc import Iterator

from proxy.core.replay_values import Run

MOST = 10_000
"""Numbers of forgotten runs that are remembered, at least; never more than twice as many."""


class LastRuns:
    """The last run of each key, and of those that are forgotten the number.

    A number stays for `keep` seconds at least: the next run counts on from it.
    """

    def __init__(self, *, keep: float, most: int = MOST) -> None:
        self.known: dict[bytes, Run] = {}
        self._keep = keep
        self._most = most
        # Two generations: one number less to look after for each that comes.
        self._young: dict[bytes, int] = {}
        self._old: dict[bytes, int] = {}
        self._since = self._last = 0.0  # when the first and the last of the young came
        self._old_last = 0.0

    def number(self, key: bytes) -> int:
        """Of the last run of a key, as far as that is forgotten; 0 if it has none."""
        number = self._young.get(key)
        return self._old.get(key, 0) if number is None else number

    def forget(self, run: Run, now: float) -> None:
        """Nothing stays of a run but its number, unless another has followed it."""
        if self.known.get(run.key) is run:
            del self.known[run.key]
            self.remember(run.key, run.number, now)

    def revive(self, run: Run) -> bool:
        """A forgotten run is known again, unless another followed or its number is forgotten."""
        if run.key in self.known or self.number(run.key) != run.number:
            return False
        self.known[run.key] = run
        return True

    def remember(self, key: bytes, number: int, now: float) -> None:
        """The last run of a key, of which nothing else is known, had this number."""
        young = self._young
        if not young:
            self._since = now
        elif len(young) >= self._most:
            self._age(now)
            young = self._young
        young[key] = number
        self._last = now

    def numbers(self) -> Iterator[tuple[bytes, int]]:
        """Key and number of every run that is forgotten, oldest first."""
        for numbers in (self._old, self._young):
            yield from (each for each in numbers.items() if each[0] not in self.known)

    def expire(self, now: float) -> None:
        """Forget numbers that have stayed for long enough."""
        if self._young and now >= self._since + self._keep:
            self._age(now)
        if self._old and now >= self._old_last + self._keep:
            self._old = {}

    def _age(self, now: float) -> None:
        self._old, self._old_last = self._young, self._last
        self._young, self._since = {}, now
