"""Was this seen before?  For very many keys of 64 bits each, in the least memory.

A key takes 20 bytes or so, where a set of Python's would take 75.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable

GENERATIONS = 4


class Fingerprints:
    """Remembers each key for `keep` seconds, and for a third more at most.

    Keys are positive and below 2**64.  Of more than `most` keys the oldest go first, a
    generation (a quarter) at a time.
    """

    def __init__(self, *, keep: float, most: int) -> None:
        self._keep = keep
        self._span = keep / (GENERATIONS - 1)
        self._most = max(1, most // GENERATIONS)
        self._generations: deque[_Generation] = deque(maxlen=GENERATIONS)  # the youngest is first

    def __len__(self) -> int:
        return sum(each.count for each in self._generations.copy())

    def seen(self, key: int, now: float) -> bool:
        """Whether it was added lately."""
        oldest = now - self._keep
        return any(each.last > oldest and each.has(key) for each in self._generations)

    def add(self, key: int, now: float) -> None:
        """See it now."""
        self._young(now).add(key, now)

    def dump(self) -> list[tuple[float, float, bytes]]:
        """Each generation's first and last moment, and its keys, 8 bytes each; oldest first."""
        return [(each.first, each.last, each.keys()) for each in reversed(self._generations)]

    def load(self, first: float, last: float, keys: bytes) -> None:
        """Take over a dumped generation, oldest first; raises ValueError if it is none."""
        if len(keys) % 8:
            raise ValueError("no such generation")
        loaded = _Generation(max(self._most, len(keys) // 8), first)
        self._generations.appendleft(loaded)
        for (key,) in struct.iter_unpack("<Q", keys):
            if key:
                loaded.add(key, last)

    def _young(self, now: float) -> _Generation:
        generations = self._generations
        while generations and generations[-1].last <= now - self._keep:
            generations.pop()
        young = generations[0] if generations else None
        if young is None or young.count >= self._most or now >= young.first + self._span:
            young = _Generation(self._most, now)
            generations.appendleft(young)
        return young


class _Generation:
    """A table of open addresses, never more than half full; 0 marks a free place."""

    def __init__(self, most: int, first: float) -> None:
        places = 1 << (2 * most - 1).bit_length()
        self._table = memoryview(bytearray(8 * places)).cast("Q")
        self._mask = places - 1
        self.count = 0
        self.first = self.last = first

    def has(self, key: int) -> bool:
        return self._table[self._place(key)] != 0

    def add(self, key: int, now: float) -> None:
        place = self._place(key)
        if not self._table[place]:
            self._table[place] = key
            self.count += 1
        self.last = now

    def keys(self) -> bytes:
        found: Iterable[int] = filter(None, self._table)
        return struct.pack(f"<{self.count}Q", *found)

    def _place(self, key: int) -> int:
        """Where it stands, or would."""
        table, mask = self._table, self._mask
        place = key & mask
        while (there := table[place]) and there != key:
            place = (place + 1) & mask
        return place
