"""Which entry of the split was in force when a call began?

A call is judged by its own start, so its arm does not depend on when, or at which replica,
its requests come in.  Times are wall clock, ms since 1970.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import replace

from proxy.core.entry import Entry, Scope

SETTLE_MS = 500
"""A change for new calls takes effect this long after its commit: every replica has it by then."""

SKEW_MS = 60_000
"""A start further ahead than this is no start."""

KEEP_MS = 24 * 3_600_000
KEEP_ENTRIES = 8


def usable_start(start_ms: int | None, wall_ms: int) -> int | None:
    """A call's start, or None if it is missing, no integer or too far ahead."""
    if type(start_ms) is not int or start_ms > wall_ms + SKEW_MS:
        return None
    return start_ms


class History:
    """The entries of the split, oldest first; never empty.

    What was in force during the last 24 hours is kept, and the newest few in any case.
    """

    def __init__(self, first: Entry) -> None:
        self._entries = [first]
        self._effects = [first.at_ms]  # ascending, beside _entries
        # Whoever starts with the switch on means what came before, too: MCP sessions outlive us.
        self.all_calls_ms = first.at_ms if first.kill else 0
        """When the last entry for all calls took effect; 0 if there was none."""
        self.all_calls_epoch = 0
        """Its epoch: what an older entry decided no longer stands."""

    @property
    def latest(self) -> Entry:
        """The last entry committed; it may not have taken effect yet."""
        return self._entries[-1]

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All entries kept, oldest first."""
        return tuple(self._entries)

    def commit(self, wished: Entry) -> Entry | None:
        """Append a change if it is one; only turning the kill switch on is for all calls."""
        latest = self.latest
        if wished.terms == latest.terms:
            return None
        kills = wished.kill and not latest.kill
        return self.append(replace(wished, scope=Scope.ALL_CALLS if kills else Scope.NEW_CALLS))

    def append(self, entry: Entry) -> Entry:
        """Put an entry at the end, whatever it says; returns it with its epoch.

        Entries take effect in the order of their commits, whatever the clock said: one for all
        calls takes those that still wait for their effect along, so none of them undoes it.
        """
        entry = replace(entry, epoch=self.latest.epoch + 1)
        at_once = entry.scope is Scope.ALL_CALLS
        effect = entry.at_ms if at_once else entry.at_ms + SETTLE_MS
        self._pull_back(entry.at_ms, effect)
        if at_once:
            self.all_calls_ms, self.all_calls_epoch = effect, entry.epoch
        self._entries.append(entry)
        self._effects.append(effect)
        self._forget(entry.at_ms - KEEP_MS)
        return entry

    def in_force(self, start_ms: int | None, wall_ms: int) -> Entry:
        """The entry for a call that began at `start_ms`; None: the present one."""
        if type(start_ms) is int and self._effects[-1] <= start_ms <= wall_ms:
            return self._entries[-1]  # what nearly every call gets, without another step
        return self.at(self.judged_ms(start_ms, wall_ms))

    def judged_ms(self, start_ms: int | None, wall_ms: int) -> int:
        """The moment by which a call is judged: its start, or the last entry for all calls."""
        start_ms = usable_start(start_ms, wall_ms)
        return max(wall_ms if start_ms is None else start_ms, self.all_calls_ms)

    def still_stands(self, start_ms: int, wall_ms: int) -> bool:
        """Whether there was no entry for all calls since something was decided at `start_ms`.

        A time too far ahead tells nothing: in truth it may lie before that entry.
        """
        return not self.all_calls_ms or self.all_calls_ms < start_ms <= wall_ms + SKEW_MS

    def at(self, ms: int) -> Entry:
        """The entry in force at that moment; before all of them, the oldest."""
        if ms >= self._effects[-1]:
            return self._entries[-1]
        return self._entries[max(bisect_right(self._effects, ms) - 1, 0)]

    def _pull_back(self, at_ms: int, effect: int) -> None:
        """Let no earlier entry outlast one committed at `at_ms` (the clock may have gone back)."""
        self._effects = [
            min(earlier, at_ms if entry.scope is Scope.ALL_CALLS else effect)
            for entry, earlier in zip(self._entries, self._effects, strict=True)
        ]
        self.all_calls_ms = min(self.all_calls_ms, at_ms)

    def _forget(self, before_ms: int) -> None:
        """Drop the entries whose successor was in force before `before_ms` already."""
        old = bisect_right(self._effects, before_ms) - 1
        drop = min(old, len(self._entries) - KEEP_ENTRIES)
        if drop > 0:
            del self._entries[:drop], self._effects[:drop]
