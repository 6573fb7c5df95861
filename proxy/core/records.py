"""Which calls have been seen, and what was decided for each?

The first decision of a call stands.  Memory is bounded: the least recently seen call goes first,
found by a clock hand (second chance) instead of a list that every request would reorder.
"""

from __future__ import annotations

from collections import defaultdict, deque
from typing import TypeAlias

import msgspec

from proxy.core.entry import Ruling

MOST = 200_000
KEEP_MS = 3 * 3_600_000
LIVE_MS = 600_000
"""A call is live if it was seen this recently and has not ended."""

TICK_MS = 10_000  # grain of "seen": requests within one tick touch nothing
MAX_ID = 512
"""Longer call IDs are not recorded (Retell's have some 30 characters)."""
_LOOKS = 64  # how far the hand goes for one eviction
_STEPS = 4  # and for one new call, while most of what it passes is gone


_Counts: TypeAlias = defaultdict[str, defaultdict[int, int]]
"""Arm -> tick -> calls last seen then that have not ended."""


class Record(msgspec.Struct, gc=False):
    """What is remembered of one call.

    Refers to nothing that refers back, so the garbage collector need not know it: 100,000 of
    them cost its full runs nothing.
    """

    call_id: str
    start_ms: int | None  # the call's own start
    ruling: Ruling
    frozen: tuple[object, ...]  # values of the entry's `paths` when it was decided
    tick: int  # last seen, wall_ms // TICK_MS
    ended: bool = False
    touched: bool = False  # seen since the hand passed
    gone: bool = False  # no longer on record; the hand will drop it

    @property
    def seen_ms(self) -> int:
        """When the call was last seen, rounded down to 10 s."""
        return self.tick * TICK_MS


class Records:
    """Call ID -> record, bounded in number and age."""

    def __init__(self, *, most: int = MOST, keep_ms: int = KEEP_MS) -> None:
        self._most = most
        self._keep_ticks = keep_ms // TICK_MS
        self._by_id: dict[str, Record] = {}
        self._ring: deque[Record] = deque()
        self._counts: _Counts = defaultdict(lambda: defaultdict(int))

    def __len__(self) -> int:
        return len(self._by_id)

    def find(self, call_id: str, wall_ms: int) -> Record | None:
        """The record of a call, which is seen by this."""
        record = self._by_id.get(call_id)
        if record is None:
            return None
        tick = wall_ms // TICK_MS
        if tick != record.tick:
            if self._expired(record, tick):
                self._remove(record)
                return None
            self._count(record, -1)
            record.tick = tick
            self._count(record, 1)
        record.touched = True
        return record

    def peek(self, call_id: str, wall_ms: int) -> Record | None:
        """The record of a call, without touching it."""
        record = self._by_id.get(call_id)
        if record is None or self._expired(record, wall_ms // TICK_MS):
            return None
        return record

    def add(
        self,
        call_id: str,
        ruling: Ruling,
        *,
        start_ms: int | None,
        frozen: tuple[object, ...],
        wall_ms: int,
    ) -> None:
        """Record the first decision of a call that is not on record."""
        if len(call_id) > MAX_ID:
            return
        tick = wall_ms // TICK_MS
        ring, by_id = self._ring, self._by_id
        if self._untidy(tick) or len(by_id) >= self._most:
            self._make_room(tick)
        record = Record(call_id, start_ms, ruling, frozen, tick)
        by_id[call_id] = record
        ring.append(record)
        self._counts[ruling.decision.arm][tick] += 1

    def revise(self, record: Record, ruling: Ruling, frozen: tuple[object, ...]) -> None:
        """Put another decision in the place of the first."""
        self._count(record, -1)
        record.ruling, record.frozen = ruling, frozen
        self._count(record, 1)

    def end(self, call_id: str) -> None:
        """The call is over; events about it may still come."""
        record = self._by_id.get(call_id)
        if record is not None:
            self._count(record, -1)
            record.ended = True

    def drop(self, call_id: str) -> None:
        """Nothing more is to come of this call."""
        record = self._by_id.get(call_id)
        if record is not None:
            self._remove(record)

    def live(self, arm: str, wall_ms: int) -> int:
        """Calls on an arm that were seen in the last 10 minutes (to 10 s) and have not ended.

        May be asked from another thread, while calls come and go.
        """
        oldest, ticks = (wall_ms - LIVE_MS) // TICK_MS, self._counts.get(arm)
        if ticks is None:
            return 0
        return sum(n for tick, n in ticks.copy().items() if tick >= oldest)

    def _expired(self, record: Record, tick: int) -> bool:
        return tick - record.tick > self._keep_ticks

    def _untidy(self, tick: int) -> bool:
        """True if the next record has expired, or most are gone: only the hand lets go of them."""
        ring = self._ring
        if not ring:
            return False
        return tick - ring[0].tick > self._keep_ticks or len(ring) > 2 * len(self._by_id)

    def _make_room(self, tick: int) -> None:
        """Move the hand on before one more comes in: tidy a little, then make sure of a place."""
        for _ in range(_STEPS):
            if self._untidy(tick):
                self._turn(tick)
        looks = 0
        while len(self._by_id) >= self._most:
            looks += 1
            self._turn(tick, evict=looks > _LOOKS or not self._ring[0].touched)

    def _turn(self, tick: int, *, evict: bool = False) -> None:
        """Move the hand past one record."""
        record = self._ring.popleft()
        if record.gone:
            return
        if evict or tick - record.tick > self._keep_ticks:
            self._remove(record)
            return
        record.touched = False
        self._ring.append(record)

    def _remove(self, record: Record) -> None:
        self._count(record, -1)
        record.gone = True
        self._by_id.pop(record.call_id, None)

    def _count(self, record: Record, by: int) -> None:
        if record.ended:
            return
        ticks = self._counts[record.ruling.decision.arm]
        ticks[record.tick] += by
        if not ticks[record.tick]:
            del ticks[record.tick]
