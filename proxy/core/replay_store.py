"""Which runs are known, and which of them must go to make room?"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from itertools import islice, takewhile

from proxy.core.replay_former import FormerRuns
from proxy.core.replay_last import LastRuns
from proxy.core.replay_values import Done, Run, RunState

OVERHEAD = 512
"""Bytes that a kept answer takes beside its body, roughly."""

SEARCH = 30.0
"""Seconds between searches for what stands behind a run that stays longer, and is due."""

SLACK = 64
"""Runs that may at least go out of turn before the queues are made anew."""

# Bound once: reading a member of an enumeration is slow in Python 3.11.
_IN_FLIGHT, _UNKNOWN, _DONE = RunState.IN_FLIGHT, RunState.UNKNOWN, RunState.DONE
_LOST, _OVER = RunState.LOST, RunState.OVER


class RunStore:
    """Runs by key and by state, bounded in number, in bytes and in time.

    Room is made of finished runs alone, oldest first.
    """

    def __init__(self, *, most: int, most_bytes: int, hold: float) -> None:
        self.last = LastRuns(keep=hold)
        self.known = 0  # runs; see the states
        self.former = FormerRuns()
        self.newest: dict[str, int] = {}  # scope -> when the last of its successes began
        self.steps = 0  # beginnings and ends so far: what stands for when
        self.bytes = 0  # of kept answers, roughly
        self.evicted = 0  # finished runs that had to go before their time
        self.stripped = 0  # answers that had to; that the run is done is still known
        self._most = most
        self._most_bytes = most_bytes
        self._most_scopes = 2 * most + SLACK
        self._hold = hold
        self._unknown: dict[Run, None] = {}
        # Finished runs, oldest first.  One that goes out of turn is passed over when that comes.
        self._stripped: deque[Run] = deque()  # without answers, older than all others
        self._queue: deque[Run] = deque()
        self._gone = 0  # those in the queues that went out of turn
        self._search_at = 0.0

    def __len__(self) -> int:
        return self.known

    def __iter__(self) -> Iterator[Run]:
        """Every known run: unknown, in flight, finished."""
        yield from self._unknown
        yield from (run for run in self.last.known.values() if run.state is _IN_FLIGHT)
        yield from _done(self._stripped)
        yield from _done(self._queue)

    @property
    def in_flight(self) -> int:
        """Runs that are going on."""
        return self.known - self.finished - self.unknown

    @property
    def finished(self) -> int:
        """Runs whose end is known."""
        return len(self._stripped) + len(self._queue) - self._gone

    @property
    def unknown(self) -> int:
        """Runs whose outcome is unknown."""
        return len(self._unknown)

    def is_latest(self, run: Run) -> bool:
        """Whether no write of its scope that began after this one's end has succeeded.

        What had begun before was no answer to it, however late it came to light.
        """
        return self.newest.get(run.scope, 0) < run.ended

    def follow(self, last: Run, now: float) -> int:
        """Make way for the next run of a key; its number.

        The answer of the one before still serves the tool calls that it served.
        """
        if last.done is not None and last.ids and last.holds(now):
            self.former.add(last)
        else:
            self.drop(last, now)
        return last.number + 1

    def add(self, run: Run, now: float) -> bool:
        """A run begins; False: there is no room for it, and nothing finished that could go."""
        if self.known >= self._most and not self._make_room(now):
            return False
        self.known += 1
        self.last.known[run.key] = run
        self.steps += 1
        run.began = self.steps
        return True

    def hold(self, run: Run, now: float) -> None:
        """The outcome of a run is unknown from now on."""
        run.state, run.since, run.stay = _UNKNOWN, now, self._hold
        self._unknown[run] = None

    def leave(self, run: Run) -> bool:
        """Take a run out of waiting for its outcome; False: it does not wait for any.

        One that was given up counts again, unless another has begun or it has been forgotten.
        """
        state = run.state
        if state is _IN_FLIGHT:
            return True
        if state is _UNKNOWN:
            del self._unknown[run]
            return True
        if state is not _LOST or self.known >= self._most or not self.last.revive(run):
            return False
        self.known += 1
        return True

    def keep(self, run: Run, done: Done, now: float) -> None:
        """Let a run that has left stay as a finished one, with its answer if there is room."""
        size = 0 if done.kept is None else len(done.kept.body) + OVERHEAD
        if size > self._most_bytes:
            done, size = Done(None, done.success), 0
        run.state, run.done, run.size = _DONE, done, size
        run.since, run.stay = now, run.replay_for
        self._queue.append(run)
        if not run.ended:
            self.steps += 1
            run.ended = self.steps
        if done.success:
            self.succeeded(run.scope, run.began)
        self.bytes += size
        while self.bytes > self._most_bytes:
            self._strip()

    def succeeded(self, scope: str, began: int) -> None:
        """A write of this scope that began then was a success, whether it is kept or not."""
        newest = self.newest
        if began > newest.get(scope, 0):
            newest[scope] = began
            if len(newest) > self._most_scopes:
                scopes = {run.scope for run in self}
                self.newest = {each: at for each, at in newest.items() if each in scopes}

    def drop(self, run: Run, now: float) -> None:
        """A known run is known no longer."""
        if run.state is not _DONE:
            self.leave(run)
            self.known -= 1
            run.state = _LOST
            self.last.forget(run, now)
            return
        oldest = self._stripped or self._queue
        if oldest[0] is run:
            oldest.popleft()
            self._forget_oldest(run, now)
            return
        self.forget(run, now)
        self._gone += 1
        if self._gone > self.finished + SLACK:
            self._gone = 0
            self._stripped, self._queue = deque(_done(self._stripped)), deque(_done(self._queue))

    def forget(self, run: Run, now: float) -> None:
        """Of a run that has left or is finished, nothing stays but its number."""
        self.known -= 1
        self.bytes -= run.size
        if run.ids:
            self.former.forget(run)
        run.state, run.done, run.size = _OVER, None, 0
        self.last.forget(run, now)

    def undo(self, run: Run, now: float) -> None:
        """A run that has left did not happen: the next one of its key has its number."""
        self.known -= 1
        run.state = _OVER
        del self.last.known[run.key]
        if self.last.number(run.key) != run.number - 1:
            self.last.remember(run.key, run.number - 1, now)

    def expire(self, now: float, steps: int) -> int:
        """Drop up to `steps` runs that have been known long enough; how many."""
        self.last.expire(now)
        due = list(islice(self._due(now), steps))
        for run in due:
            self.drop(run, now)
        return len(due)

    def _make_room(self, now: float) -> bool:
        """Let the oldest finished run go, or else one that is due."""
        for queue in (self._stripped, self._queue):
            while queue:
                run = queue.popleft()
                if run.state is not _DONE:
                    self._gone -= 1
                else:
                    self.evicted += run.holds(now)
                    self._forget_oldest(run, now)
                    return True
        return self.expire(now, 1) > 0

    def _forget_oldest(self, run: Run, now: float) -> None:
        """Whatever of its scope is finished and known has ended after this run."""
        if self.newest.get(run.scope) == run.began:
            del self.newest[run.scope]
        self.forget(run, now)

    def _due(self, now: float) -> Iterator[Run]:
        """Those that have stayed long enough, as far as they are the first to come.

        Now and then all are searched: finished runs do not all stay equally long, and those in
        flight stand in no queue.
        """

        def is_due(run: Run) -> bool:
            return not run.holds(now)

        if now >= self._search_at:
            yield from filter(is_due, self)
            self._search_at = now + SEARCH  # Whoever takes only some of them will search again.
            return
        for runs in (self._unknown, _done(self._stripped), _done(self._queue)):
            yield from takewhile(is_due, runs)

    def _strip(self) -> None:
        """Of the oldest answer only the fact stays that it is done."""
        run = self._queue.popleft()
        if run.done is None:
            self._gone -= 1
            return  # It went out of turn.
        self._stripped.append(run)
        if run.size:
            self.bytes -= run.size
            run.done, run.size = Done(None, run.done.success), 0
            self.stripped += 1


def _done(queue: deque[Run]) -> Iterator[Run]:
    return (run for run in queue if run.state is _DONE)
