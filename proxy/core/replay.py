"""May this write run, or has it run already?

Twins wait for the run in flight; a finished answer serves repeats for a while; what may have run
is held until somebody knows, and never runs again meanwhile.

An answer always serves the tool calls that it once served.  Any other repeat it serves only
if it was a success and no other write of its call has begun since, and succeeded: who books,
cancels and books again means it.
"""

from __future__ import annotations

from collections.abc import Container
from itertools import islice
from typing import TypeAlias

from proxy.core.replay_store import RunStore
from proxy.core.replay_values import (
    MOST_IDS,
    Done,
    Full,
    Replay,
    ReplayRecord,
    Run,
    RunState,
    Wait,
)

MOST = 10_000
MOST_BYTES = 16 * 2**20
HOLD = 3 * 3600.0
"""Seconds for which an unknown outcome is held, and a count goes on."""

STEPS = 500

Step: TypeAlias = Run | Replay | Wait | Full

_IN_FLIGHT, _UNKNOWN = RunState.IN_FLIGHT, RunState.UNKNOWN  # Bound once: slow in Python 3.11.
_FULL = Full()


class ReplayGuard:
    """What became of each write.  Decides, never acts; `now` is seconds that never go back.

    At most `most` runs are known, with answers of `most_bytes` in all.
    """

    def __init__(
        self, *, most: int = MOST, most_bytes: int = MOST_BYTES, hold: float = HOLD
    ) -> None:
        self.hold = hold
        self.store = RunStore(most=most, most_bytes=most_bytes, hold=hold)

    def begin(
        self,
        key: bytes,
        scope: str,
        *,
        tool: str,
        replay_for: float,
        now: float,
        tool_call_id: str | None = None,
    ) -> Step:
        """What to do about a request for a write.

        A `Run` is leave to execute it, and must be settled by `finished`, `not_run` or `unknown`,
        however it ends.  Its answer will serve repeats for `replay_for` seconds.
        """
        known = self.recall(key, now, tool_call_id=tool_call_id)
        if known is not None:
            return known
        store = self.store
        last = store.last.known.get(key)
        number = store.last.number(key) + 1 if last is None else store.follow(last, now)
        ids = () if tool_call_id is None else (tool_call_id,)
        run = Run(key, number, scope, tool, replay_for, now, self.hold, ids)
        return run if store.add(run, now) else _FULL

    def recall(
        self, key: bytes, now: float, *, tool_call_id: str | None = None
    ) -> Replay | Wait | None:
        """What is known of a write that a request asks for; None: it may run."""
        store = self.store
        if tool_call_id is not None:
            former = store.former.done(key, tool_call_id, now)
            if former is not None:
                return Replay(former)
        last = store.last.known.get(key)
        return self._repeat(last, tool_call_id) if last is not None and last.holds(now) else None

    def finished(self, run: Run, done: Done, now: float) -> bool:
        """It ran, and this is how it ended.  False: that is known already, or of no use any more.

        It may come late, after the outcome was unknown.
        """
        store = self.store
        if not store.leave(run):
            return False
        if run.replay_for > 0:
            store.keep(run, done, now)
            return True
        if done.success:
            store.succeeded(run.scope, run.began)
        store.forget(run, now)
        return True

    def not_run(self, run: Run, now: float) -> bool:
        """It is certain that nothing ran: the next try is the same run again.  False: as above."""
        if not self.store.leave(run):
            return False
        self.store.undo(run, now)
        return True

    def unknown(self, run: Run, now: float) -> bool:
        """It may have run; whoever learns more may still tell.  False: as above."""
        if run.state is not _IN_FLIGHT:
            return False
        self.store.leave(run)
        self.store.hold(run, now)
        return True

    def release(self, key: bytes, now: float) -> RunState:
        """Let a write run again, by an operator's word; the state that it was in.

        What still comes to light of a run whose outcome was unknown counts, until the next begins.
        Raises KeyError if nothing is known of it, ValueError if it is running.
        """
        run = self.store.last.known.get(key)
        if run is None:
            raise KeyError(key)
        state = run.state
        if state is _IN_FLIGHT:
            raise ValueError("It is running; what becomes of it will show.")
        self.store.drop(run, now)
        return state

    def expire(self, now: float, steps: int = STEPS) -> int:
        """Forget up to `steps` runs that have been known long enough; how many.

        Nothing depends on it but memory.
        """
        return self.store.expire(now, steps)

    def records(
        self,
        now: float,
        *,
        states: Container[RunState],
        scope: str | None = None,
        most: int = 1000,
    ) -> list[ReplayRecord]:
        """Up to `most` runs in these states, for operators; the unknown ones come first.

        `scope`: only those of this call or session.
        """
        found = (run for run in self.store if run.state in states and scope in (None, run.scope))
        return [_record(run, now) for run in islice(found, most)]

    def _repeat(self, last: Run, tool_call_id: str | None) -> Replay | Wait | None:
        """What a repeat of a run hears, as long as that holds; None: it may run again."""
        if last.done is None:
            _serves(last, tool_call_id)
            return Wait(last.key, last.state is _UNKNOWN)
        is_last_word = last.done.success and self.store.is_latest(last)
        if tool_call_id in last.ids or is_last_word:
            _serves(last, tool_call_id)
            return Replay(last.done)
        return None


def _serves(run: Run, tool_call_id: str | None) -> None:
    """Remember that a run's answer is the answer to this tool call too."""
    if tool_call_id is not None and tool_call_id not in run.ids and len(run.ids) < MOST_IDS:
        run.ids += (tool_call_id,)


def _record(run: Run, now: float) -> ReplayRecord:
    age = max(0.0, now - run.since)
    return ReplayRecord(run.key.hex(), run.scope, run.tool, run.state, age, run.number)
