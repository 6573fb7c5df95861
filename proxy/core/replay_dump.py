"""How does what the guards know outlive the process?  As plain values, with times on the wall."""

from __future__ import annotations

from msgspec import Struct

from proxy.core.dialects.kept import Kept
from proxy.core.replay import ReplayGuard
from proxy.core.replay_events import EventGuard
from proxy.core.replay_values import Done, Run, RunState

VERSION = 3


class SavedRun(Struct, array_like=True, gc=False):
    """One run.  `success` is None if its outcome is unknown, as that of one in flight is."""

    key: bytes
    number: int
    scope: str
    tool: str
    replay_for: float
    at_ms: int
    ids: tuple[str, ...]
    last: bool  # of its key
    began: int
    ended: int
    newest: int  # when the last success of its scope began
    success: bool | None
    kept: Kept | None
    proved: bool


class Saved(Struct):
    """Both guards."""

    version: int
    runs: list[SavedRun]
    numbers: list[tuple[bytes, int]]
    events: list[tuple[int, int, bytes]]  # generations: when they began and ended, and their keys


def dump(guard: ReplayGuard, events: EventGuard, *, now: float, wall_ms: int) -> Saved:
    """What is known now."""

    def at_ms(then: float) -> int:
        return wall_ms - round((now - then) * 1000)

    return Saved(
        VERSION,
        [_saved(run, guard, at_ms(run.since)) for run in guard.store],
        list(guard.store.last.numbers()),
        [(at_ms(first), at_ms(last), keys) for first, last, keys in events.delivered.dump()],
    )


def load(saved: Saved, guard: ReplayGuard, events: EventGuard, *, now: float, wall_ms: int) -> None:
    """Take it over, before the first request; raises ValueError if it is of another version."""
    if saved.version != VERSION:
        raise ValueError(f"version {saved.version}, expected {VERSION}")

    def then(at_ms: int) -> float:
        return now - max(0, wall_ms - at_ms) / 1000  # never in the future: clocks are set back

    for key, number in saved.numbers:
        guard.store.last.remember(key, number, now)
    for each in sorted(saved.runs, key=_age):
        _restore(each, guard, then(each.at_ms), now)
    for first_ms, last_ms, keys in saved.events:
        events.delivered.load(then(first_ms), then(last_ms), keys)


def _saved(run: Run, guard: ReplayGuard, at_ms: int) -> SavedRun:
    store, done = guard.store, run.done
    return SavedRun(
        run.key,
        run.number,
        run.scope,
        run.tool,
        run.replay_for,
        at_ms,
        run.ids,
        store.last.known.get(run.key) is run,
        run.began,
        run.ended,
        store.newest.get(run.scope, 0),
        None if done is None else done.success,
        None if done is None else done.kept,
        done is not None and done.proved,
    )


def _restore(saved: SavedRun, guard: ReplayGuard, since: float, now: float) -> None:
    """One that was in flight reads unknown, for nobody is left who could tell."""
    run, store = _run(saved, since), guard.store
    store.steps = max(store.steps, run.began, run.ended, saved.newest)
    if now >= since + (guard.hold if run.done is None else run.replay_for):
        if saved.last:
            store.last.remember(run.key, run.number, now)
        return
    store.known += 1
    if saved.last:
        store.last.known[run.key] = run
    else:
        store.former.add(run)
    if run.done is None:
        store.hold(run, since)
    else:
        store.keep(run, run.done, since)
        store.succeeded(run.scope, saved.newest)


def _run(saved: SavedRun, since: float) -> Run:
    done = None if saved.success is None else Done(saved.kept, saved.success, saved.proved)
    return Run(
        saved.key,
        saved.number,
        saved.scope,
        saved.tool,
        saved.replay_for,
        since,
        ids=saved.ids,
        began=saved.began,
        ended=saved.ended,
        state=RunState.DONE if done is not None else RunState.UNKNOWN,
        done=done,
    )


def _age(run: SavedRun) -> tuple[int, int]:
    return run.at_ms, run.ended
