"""Which runs are known, and which of them must go to make room?"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from proxy.core.replay_lanes import Lanes
from proxy.core.replay_numbers import RunNumbers
from proxy.core.replay_values import Done, Run, RunState

OVERHEAD = 512
"""Bytes that a kept answer takes beside its body, roughly."""

# Bound once: reading a member of an enumeration is slow in Python 3.11.
_IN_FLIGHT, _UNKNOWN, _DONE = RunState.IN_FLIGHT, RunState.UNKNOWN, RunState.DONE
_LOST, _OVER = RunState.LOST, RunState.OVER


class RunStore:
    """Runs by key and by state, bounded in number, in bytes and in time.

    Room is made of finished runs alone, oldest first.  Of a run that is known no longer its number
    stays for a while: the next one of its key counts on from there.
    """

    def __init__(self, *, most: int, most_bytes: int, hold: float) -> None:
        self.bytes = 0  # of kept answers, roughly
        self.evicted = 0  # finished runs that had to go before their time
        self.stripped = 0  # answers that had to; that the run is done is still known
        self.numbers = RunNumbers(keep=hold)
        self._most = most
        self._most_bytes = most_bytes
        self._hold = hold
        self._runs: dict[bytes, Run] = {}  # the last one of each key
        self._former: dict[tuple[bytes, str], Run] = {}  # earlier ones, by tool calls they answer
        self._latest: dict[str, Run] = {}  # the last success of each scope
        self._in_flight, self._unknown, self._finished = Lanes(), Lanes(), Lanes()
        self._answers: deque[Run] = deque()  # those with an answer, oldest first; stale ones too

    def __len__(self) -> int:
        return self._in_flight.count + self._unknown.count + self._finished.count

    def __iter__(self) -> Iterator[Run]:
        """Every known run: unknown, in flight, finished."""
        for lanes in (self._unknown, self._in_flight, self._finished):
            yield from lanes

    @property
    def in_flight(self) -> int:
        """Runs that are going on."""
        return len(self._in_flight)

    @property
    def unknown(self) -> int:
        """Runs whose outcome is unknown."""
        return len(self._unknown)

    @property
    def finished(self) -> int:
        """Runs whose end is known."""
        return len(self._finished)

    def last(self, key: bytes) -> Run | None:
        """The last run of a key; it may have been known for too long already."""
        return self._runs.get(key)

    def former(self, key: bytes, tool_call_id: str | None, now: float) -> Done | None:
        """How an earlier run of a key ended, if its answer is the one to this tool call."""
        if tool_call_id is None or not self._former:
            return None
        run = self._former.get((key, tool_call_id))
        return run.done if run is not None and run.holds(now) else None

    def is_latest(self, run: Run) -> bool:
        """Whether no other write of its scope has succeeded since this one did."""
        return self._latest.get(run.scope) is run

    def follow(self, last: Run | None, key: bytes, now: float) -> int:
        """Make way for a key's next run; its number.

        The answer of the one before still serves the tool calls that it served.
        """
        if last is None:
            return self.numbers.last(key) + 1
        if last.done is not None and last.ids and last.holds(now):
            self._former.update({(key, each): last for each in last.ids})
        else:
            self.drop(last, now)
        return last.number + 1

    def has_room(self, now: float) -> bool:
        """Whether one more can be known, after something finished had to go if need be."""
        if self._in_flight.count + self._unknown.count + self._finished.count < self._most:
            return True
        oldest = self._finished.first()
        if oldest is None:
            return self.expire(now, 1) > 0
        if oldest.holds(now):
            self.evicted += 1
        self.drop(oldest, now)
        return True

    def add(self, run: Run, now: float) -> None:
        """A new run begins."""
        self._runs[run.key] = run
        self._in_flight.put(run, now, self._hold)

    def hold(self, run: Run, now: float) -> None:
        """The outcome of a run is unknown from now on."""
        run.state = _UNKNOWN
        self._unknown.put(run, now, self._hold)

    def leave(self, run: Run) -> bool:
        """Take a run out of waiting for its outcome; False: it does not wait for any.

        One that was given up counts again, unless another has begun or it has been forgotten.
        """
        if run.state is _IN_FLIGHT or run.state is _UNKNOWN:
            self._lanes_of(run).drop(run)
            return True
        if run.state is not _LOST or run.key in self._runs or len(self) >= self._most:
            return False
        if self.numbers.last(run.key) != run.number:
            return False
        self._runs[run.key] = run
        return True

    def keep(self, run: Run, done: Done, now: float) -> None:
        """Let a finished run stay, with its answer if there is room for that."""
        size = 0 if done.kept is None else len(done.kept.body) + OVERHEAD
        if size > self._most_bytes:
            done, size = Done(None, done.success), 0
        run.state, run.done = _DONE, done
        self._finished.put(run, now, run.replay_for)
        if size:
            run.size = size
            self.bytes += size
            answers = self._answers
            answers.append(run)
            if self.bytes > self._most_bytes or not answers[0].size:
                self._fit()
            elif len(answers) > 2 * self._finished.count + 64:
                self._answers = deque(each for each in answers if each.size)

    def succeeded(self, run: Run) -> None:
        """This is the last success of its scope; if it is not kept, none that is known is."""
        if run.done is None:
            self._latest.pop(run.scope, None)
        else:
            self._latest[run.scope] = run

    def drop(self, run: Run, now: float) -> None:
        """A known run is known no longer."""
        self._lanes_of(run).drop(run)
        self.forget(run, now, run.number, _OVER if run.state is _DONE else _LOST)

    def forget(self, run: Run, now: float, number: int, state: RunState = _OVER) -> None:
        """Of a run that is in no state any more, nothing stays but its key's last `number`."""
        self.bytes -= run.size
        run.state, run.done, run.size = state, None, 0
        if self._runs.get(run.key) is run:
            del self._runs[run.key]
            self.numbers.note(run.key, number, now)
        else:
            self._forget_former(run)
        if self._latest.get(run.scope) is run:
            del self._latest[run.scope]

    def expire(self, now: float, steps: int) -> int:
        """Drop up to `steps` runs that have been known long enough; how many."""
        self.numbers.turn(now)
        for done in range(steps):
            run = self._in_flight.due(now) or self._unknown.due(now) or self._finished.due(now)
            if run is None:
                return done
            self.drop(run, now)
        return steps

    def restore(self, run: Run, *, last: bool, latest: bool, now: float) -> None:
        """Take over a run that another process knew, before the first one begins here.

        They must come by `since`, oldest first.  One that was in flight reads unknown.
        """
        done = run.done
        if now >= run.since + (self._hold if done is None else run.replay_for):
            self.numbers.note(run.key, run.number, now)
            return
        if last:
            self._runs[run.key] = run
        else:
            self._former.update({(run.key, each): run for each in run.ids})
        if done is None:
            self.hold(run, run.since)
            return
        self.keep(run, done, run.since)
        if latest:
            self.succeeded(run)

    def _forget_former(self, run: Run) -> None:
        for each in run.ids:
            if self._former.get((run.key, each)) is run:
                del self._former[run.key, each]

    def _lanes_of(self, run: Run) -> Lanes:
        if run.state is _DONE:
            return self._finished
        return self._unknown if run.state is _UNKNOWN else self._in_flight

    def _fit(self) -> None:
        """Keep to the limit of bytes: of the oldest only the fact stays that they are done."""
        answers = self._answers
        while self.bytes > self._most_bytes or not answers[0].size:
            self._strip(answers.popleft())

    def _strip(self, run: Run) -> None:
        if run.done is not None and run.size:
            self.bytes -= run.size
            run.done, run.size = Done(None, run.done.success), 0
            self.stripped += 1
