"""How often did a write run whose record is gone?"""

from __future__ import annotations

from collections.abc import Iterator

MOST = 50_000


class RunNumbers:
    """Key -> number of its last run, for a while.

    Two generations, of which the elder is dropped as a whole: a number stays for half of `keep`
    seconds at least (unless more than `most` come in that time), and for `keep` at most.
    """

    def __init__(self, *, keep: float, most: int = MOST) -> None:
        self._half = keep / 2
        self._most = most // 2
        self._young: dict[bytes, int] = {}
        self._old: dict[bytes, int] = {}
        self._turn_at = 0.0

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def last(self, key: bytes) -> int:
        """The number of its last run; 0 if it never ran, as far as anybody remembers."""
        number = self._young.get(key)
        return self._old.get(key, 0) if number is None else number

    def note(self, key: bytes, number: int, now: float) -> None:
        """Remember this as the last run's number."""
        if now >= self._turn_at:
            self.turn(now)
        elif len(self._young) >= self._most:
            self._drop_old(now)
        self._young[key] = number

    def turn(self, now: float) -> None:
        """Forget what is too old."""
        if now < self._turn_at:
            return
        if now >= self._turn_at + self._half:  # nobody came for so long: all of it is
            self._young = {}
        self._drop_old(now)

    def items(self) -> Iterator[tuple[bytes, int]]:
        """Every key and its number, oldest first."""
        for key, number in self._old.items():
            if key not in self._young:
                yield key, number
        yield from self._young.items()

    def _drop_old(self, now: float) -> None:
        self._old, self._young = self._young, {}
        self._turn_at = now + self._half
