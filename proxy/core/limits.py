"""May this one ask again yet?  A rate limit per key (GCRA) that never forgets to forget."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Network

from proxy.core.addresses import parse

_TICKS = 1 << 20
"""Ticks from one admission to the next: whole numbers, so nothing drifts however long it runs."""


@dataclass(frozen=True, slots=True)
class Limit:
    """So many a minute, and so many minutes' worth of them at once."""

    per_minute: float
    burst: float = 1.0

    def __post_init__(self) -> None:
        if not (self.per_minute > 0 and self.burst > 0):
            raise ValueError("a limit's rate and burst are more than 0")

    @property
    def depth(self) -> int:
        """How many are admitted at once after a long silence."""
        return max(1, int(self.per_minute * self.burst))


class Gcra:
    """The generic cell rate algorithm: per key one number, the time when its bucket is full again.

    A key admits `limit.depth` hits at once, then one per 60 / `per_minute` seconds; there is no
    window, so no window's edge to burst across.

    Keys are kept in two generations.  One that was not admitted for as long as an empty bucket
    takes to fill is as good as new, and goes.  If more than `max_keys` are live all the same, those
    admitted longest ago go first and find a full bucket when they return: memory has a bound, and
    nobody is turned away for what others did.
    """

    __slots__ = (
        "_horizon",
        "_old",
        "_per_second",
        "_room",
        "_rotates_at",
        "_slack",
        "_young",
        "limit",
    )

    def __init__(self, limit: Limit, *, max_keys: int = 65_536) -> None:
        self.limit = limit
        self._per_second = _TICKS * limit.per_minute / 60.0
        self._slack = (limit.depth - 1) * _TICKS
        self._horizon = limit.depth * 60.0 / limit.per_minute
        self._room = max(1, max_keys // 2)
        self._young: dict[Hashable, int] = {}
        self._old: dict[Hashable, int] = {}
        self._rotates_at = float("-inf")

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def hit(self, key: Hashable, now: float) -> float:
        """Admit (0.0) and count, or return the seconds to wait, more than 0, and count nothing."""
        if now >= self._rotates_at:
            self._rotate(now)
        tick = int(now * self._per_second)
        full_at = self._young.get(key)
        if full_at is None:
            full_at = self._old.get(key, tick)
            if len(self._young) >= self._room:
                self._rotate(now)
        if full_at < tick:
            full_at = tick
        early = full_at - tick - self._slack
        if early > 1:  # One tick is within the rounding of the clock's own seconds.
            return early / self._per_second
        self._young[key] = full_at + _TICKS
        return 0.0

    def _rotate(self, now: float) -> None:
        idle = now >= self._rotates_at + self._horizon  # Nobody came for a whole horizon.
        self._old = {} if idle else self._young
        self._young = {}
        self._rotates_at = now + self._horizon


@lru_cache(maxsize=4096)
def neighbourhood(address: str) -> str:
    """Whose bucket an address shares: IPv4 its own, IPv6 its /64, which one subscriber holds."""
    parsed = parse(address)
    if parsed is None or parsed.version == 4:
        return address
    return str(IPv6Network((int(parsed) >> 64 << 64, 64)))
