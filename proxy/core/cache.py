"""Which answers are kept, for how long, and when are they forgotten?

By arm, always: what one arm said is never heard in place of the other.  Pure: `now` is an argument.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from msgspec import Struct

from proxy.core.cache_key import CacheRule, Spot, Tenant
from proxy.core.dialects.kept import Kept
from proxy.core.verdict import SUCCESS

K = TypeVar("K")

MAX_BYTES = 16 * 2**20
MAX_COUNT = 10_000

_OVERHEAD = 600
"""Bytes that an entry takes beside its answer's own: key, tenant, four indexes.  Measured."""

Place: TypeAlias = tuple[str, bytes]
"""An arm and a spot's key."""


class Entry(Struct, frozen=True, gc=False):
    """A kept answer.  Times are clock seconds; `asked` is when the arm was asked for it."""

    kept: Kept
    spot: Spot
    asked: float
    fresh_until: float
    stale_until: float


@dataclass(eq=False, slots=True)
class Miss:
    """A request for an answer that is not kept, while it is under way.

    `leader` is the earlier one that it may wait for.  `overtaken`: a write has succeeded since it
    began, so what it brings may be from before.
    """

    arm: str
    spot: Spot
    asked: float
    leader: Miss | None = None
    overtaken: bool = False
    ended: bool = False


class Cache:
    """Answers by arm and key; the one longest not asked for is forgotten first."""

    def __init__(self, *, max_bytes: int = MAX_BYTES, max_count: int = MAX_COUNT) -> None:
        self.bytes = 0
        self._max_bytes = max_bytes
        self._max_count = max_count
        self._entries: OrderedDict[Place, Entry] = OrderedDict()
        self._by_tool: dict[str, set[Place]] = {}
        self._by_tenant: dict[tuple[str, int, str], set[Place]] = {}  # tool, which field, its value
        self._open: dict[str, set[Miss]] = {}  # by tool
        self._leaders: dict[Place, Miss] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def fresh(self, arm: str, spot: Spot, now: float) -> Entry | None:
        """The answer, while it may stand for a new one."""
        place = (arm, spot.key)
        entry = self._entries.get(place)
        if entry is None or now >= entry.fresh_until:
            return None
        self._entries.move_to_end(place)
        return entry

    def stale(self, arm: str, spot: Spot, now: float) -> Entry | None:
        """The answer, fresh or not, while it is better than none."""
        entry = self._entries.get((arm, spot.key))
        return entry if entry is not None and now < entry.stale_until else None

    def begin(self, arm: str, spot: Spot, now: float) -> Miss:
        """Somebody asks the arm; what comes of it is `put`, and in any case it must `end`."""
        leader = self._leaders.get((arm, spot.key))
        miss = Miss(arm, spot, now, leader)
        if leader is None:
            self._leaders[arm, spot.key] = miss
        self._open.setdefault(spot.tool, set()).add(miss)
        return miss

    def end(self, miss: Miss) -> None:
        """It has its answer, or will never have one; harmless a second time."""
        miss.ended, miss.leader = True, None
        self._abdicate(miss)
        still = self._open.get(miss.spot.tool)
        if still is not None:
            still.discard(miss)
            if not still:
                del self._open[miss.spot.tool]

    def put(self, miss: Miss, rule: CacheRule, kept: Kept, *, arm: str) -> bool:
        """Keep what `arm` answered, if it may be kept; whether it was.

        A business "no" is none of it, nor what a write has overtaken.  Its age counts from the
        question: nobody knows when in between it was true.
        """
        ttl = rule.ttl if kept.ttl is None else min(rule.ttl, kept.ttl)
        if miss.overtaken or ttl <= 0 or kept.business_no or not may_share(kept, rule):
            return False
        place, spot = (arm, miss.spot.key), miss.spot
        before = self._entries.get(place)
        if before is not None and before.asked > miss.asked:
            return False
        fresh_until = miss.asked + ttl
        entry = Entry(kept, spot, miss.asked, fresh_until, fresh_until + rule.stale_for)
        if size_of(entry) > self._max_bytes:
            return False
        self._forget(place)
        self._entries[place] = entry
        self.bytes += size_of(entry)
        self._by_tool.setdefault(spot.tool, set()).add(place)
        for field in enumerate(spot.tenant):
            self._by_tenant.setdefault((spot.tool, *field), set()).add(place)
        while self.bytes > self._max_bytes or len(self._entries) > self._max_count:
            self._forget(next(iter(self._entries)))
        return True

    def drop(self, tool: str, tenant: Tenant | None = None) -> None:
        """Forget a tool's answers on every arm; `tenant` spares those of others.

        Others differ in every field: which of the fields tells tenants apart (a company, say, and
        not its caller's language) nobody has told us.  A tenant without fields is everybody.
        """
        if tenant:
            groups = (self._by_tenant.get((tool, *field), ()) for field in enumerate(tenant))
            places: Collection[Place] = {place for group in groups for place in group}
        else:
            places = list(self._by_tool.get(tool, ()))
        for place in places:
            self._forget(place)
        for miss in self._open.get(tool, ()):
            if not tenant or any(map(str.__eq__, miss.spot.tenant, tenant)):
                miss.overtaken = True
                self._abdicate(miss)

    def drop_arm(self, arm: str) -> None:
        """Forget all that an arm said, and will say to those who asked it before."""
        for place in [place for place in self._entries if place[0] == arm]:
            self._forget(place)
        for miss in [miss for misses in self._open.values() for miss in misses]:
            miss.overtaken = True
            self._abdicate(miss)

    def _abdicate(self, miss: Miss) -> None:
        """Who comes now no longer waits for this one."""
        place = (miss.arm, miss.spot.key)
        if self._leaders.get(place) is miss:
            del self._leaders[place]

    def _forget(self, place: Place) -> None:
        entry = self._entries.pop(place, None)
        if entry is None:
            return
        spot = entry.spot
        self.bytes -= size_of(entry)
        _leave(self._by_tool, spot.tool, place)
        for field in enumerate(spot.tenant):
            _leave(self._by_tenant, (spot.tool, *field), place)


def may_share(kept: Kept, rule: CacheRule) -> bool:
    """Whether an answer is the tool's own, final, and one that those who ask now may hear too.

    `private` (MCP's cacheScope) speaks of one caller: it stays in its call.
    """
    if kept.asks_more or (kept.private and not rule.of_one_call):
        return False
    return kept.business_no or kept.label == SUCCESS.label


def size_of(entry: Entry) -> int:
    """Bytes that an entry takes, roughly."""
    return entry.kept.size + _OVERHEAD


def _leave(groups: dict[K, set[Place]], name: K, place: Place) -> None:
    group = groups[name]
    group.discard(place)
    if not group:
        del groups[name]
