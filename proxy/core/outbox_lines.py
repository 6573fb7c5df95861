"""Who is next?  Every entry by its line, and what there is of them altogether.

One call is one line: within it only the first is delivered, the others wait for it.  Lines do not
wait for each other.  What belongs to no call is a line of its own.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable, Iterator
from heapq import heapify, heappop, heappush
from typing import TypeAlias

from proxy.core.outbox import Entry, State

Line: TypeAlias = str | int


class Lines:
    """The index of an outbox, without the letters.

    `now` and `due` are clock seconds, because the wall's clock may jump.  The figures (`queued`,
    `dead`, `size`, `oldest_ms`) may be read from another thread.
    """

    def __init__(self) -> None:
        self.queued = 0
        self.dead = 0
        self.size = 0  # bytes of all entries, and of those that are on their way in
        self.oldest_ms: int | None = None  # arrival of the oldest that is queued
        self._entries: dict[int, Entry] = {}
        self._lines: dict[Line, list[int]] = {}  # of the queued; never empty
        self._due: dict[int, float] = {}  # of the queued
        self._heads: list[tuple[float, int]] = []  # (due, id) of lines' heads; may be out of date
        self._ages: list[tuple[int, int]] = []  # (received_ms, id); may be out of date
        self._out: dict[Line, int] = {}  # being delivered: one of a line
        self._arriving: dict[str, int] = {}  # by call: on their way in
        self._coming = 0  # entries on their way in

    def __len__(self) -> int:
        return len(self._entries) + self._coming

    def __iter__(self) -> Iterator[Entry]:
        return iter([self._entries[each] for each in sorted(self._entries)])

    @property
    def out(self) -> int:
        """How many are being delivered."""
        return len(self._out)

    def is_out(self, id: int) -> bool:
        """Whether this one is being delivered."""
        return id in self._out.values()

    def find(self, id: int) -> Entry | None:
        """The entry of that number."""
        return self._entries.get(id)

    def has(self, call_id: str) -> bool:
        """Whether entries of this call are queued, or about to be."""
        return call_id in self._lines or call_id in self._arriving

    # -- Coming in.

    def expect(self, entry: Entry) -> None:
        """Keep a place for an entry that is on its way in, until `came`."""
        self._coming += 1
        self.size += entry.size
        if entry.call_id is not None:
            self._arriving[entry.call_id] = self._arriving.get(entry.call_id, 0) + 1

    def came(self, entry: Entry) -> None:
        """An entry that was expected is no longer: it is here, or does not come."""
        self._coming -= 1
        self.size -= entry.size
        if entry.call_id is not None:
            left = self._arriving.pop(entry.call_id) - 1
            if left:
                self._arriving[entry.call_id] = left

    # -- What waits.

    def hear(self, entry: Entry, due: float) -> None:
        """Take in what somebody else says of an entry; if it is being delivered, it still is."""
        out = self.is_out(entry.id)
        self.put(entry, due)
        if out and entry.state is State.QUEUED:
            self._out[entry.line] = entry.id

    def put(self, entry: Entry, due: float) -> None:
        """Take an entry in, or what it has become: it is not being delivered."""
        self.drop(entry.id)
        self._entries[entry.id] = entry
        self.size += entry.size
        if entry.state is State.DEAD:
            self.dead += 1
            return
        self.queued += 1
        self._due[entry.id] = due
        line = self._lines.setdefault(entry.line, [])
        insort(line, entry.id)
        if line[0] == entry.id:
            self._call_up(entry.line)
        heappush(self._ages, (entry.received_ms, entry.id))
        self._look_for_the_oldest()

    def drop(self, id: int) -> Entry | None:
        """Let go of an entry; the next one of its line moves up."""
        entry = self._entries.pop(id, None)
        if entry is None:
            return None
        self.size -= entry.size
        if entry.state is State.DEAD:
            self.dead -= 1
            return entry
        self.queued -= 1
        del self._due[id]
        line = self._lines[entry.line]
        line.remove(id)
        if not line:
            del self._lines[entry.line]
        self._came_back(entry)
        self._look_for_the_oldest()
        return entry

    def replace_all(self, entries: Iterable[tuple[Entry, float]]) -> None:
        """Hold these, each with when it is due, and no others; who is out stays out."""
        out = {*self._out.values()}
        for id in tuple(self._entries):
            self.drop(id)
        self._heads, self._ages = [], []
        for entry, due in entries:
            self.put(entry, due)
            if entry.id in out and entry.state is State.QUEUED:
                self._out[entry.line] = entry.id

    # -- Going out.

    def take(self, now: float) -> Entry | None:
        """The next one to deliver, whose line then waits for `put` or `drop`."""
        if (head := self._first()) is None or head[0] > now:
            return None
        heappop(self._heads)
        entry = self._entries[head[1]]
        self._out[entry.line] = entry.id
        return entry

    def next_due(self) -> float | None:
        """When `take` is worth the next call; None: not before something comes in or back."""
        head = self._first()
        return head[0] if head is not None else None

    def hasten(self, now: float) -> None:
        """Whatever waits for its time is due now."""
        for id, due in self._due.items():
            self._due[id] = min(due, now)
        self._heads = [(self._due[line[0]], line[0]) for line in self._lines.values()]
        heapify(self._heads)

    def _first(self) -> tuple[float, int] | None:
        """The head of a line that is due first; clears away what is out of date."""
        while self._heads:
            due, id = self._heads[0]
            if self._due.get(id) == due and self._is_next(self._entries[id]):
                return due, id
            heappop(self._heads)
        return None

    def _is_next(self, entry: Entry) -> bool:
        return entry.line not in self._out and self._lines[entry.line][0] == entry.id

    def _came_back(self, entry: Entry) -> None:
        if self._out.get(entry.line) == entry.id:
            del self._out[entry.line]
        self._call_up(entry.line)

    def _call_up(self, line: Line) -> None:
        """Let the head of a line be found."""
        if (ids := self._lines.get(line)) is not None:
            heappush(self._heads, (self._due[ids[0]], ids[0]))

    def _look_for_the_oldest(self) -> None:
        while self._ages and self._ages[0][1] not in self._due:
            heappop(self._ages)
        self.oldest_ms = self._ages[0][0] if self._ages else None
