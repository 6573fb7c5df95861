"""The replay guard against a model that keeps every run and looks through all of them.

The model is the design's text in words of lists.  Both hear the same requests and outcomes;
whenever the guard lets a write run, the model must have allowed it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from proxy.core.dialects.kept import Kept
from proxy.core.model import Kind
from proxy.core.replay import ReplayGuard, Step
from proxy.core.replay_dump import dump, load
from proxy.core.replay_events import EventGuard
from proxy.core.replay_store import OVERHEAD
from proxy.core.replay_values import Done, Full, Replay, Run, Wait

HOLD = 1000.0
REPLAY_FOR = {b"k0": 200.0, b"k1": 800.0, b"k2": 0.0, b"k3": 300.0}
SCOPES = {b"k0": "c0", b"k1": "c0", b"k2": "c0", b"k3": "c1"}
KEYS = st.sampled_from([b"k0", b"k0", b"k0", b"k1", b"k1", b"k2", b"k3"])
IDS = st.sampled_from([None, "a", "b", "c"])
PAUSES = st.sampled_from([0.0, 0.0, 1.0, 30.0, 120.0, 400.0, 600.0, 1100.0])
WALLS = st.integers(10**12, 2 * 10**12)
OUTCOMES = st.sampled_from(["success", "success", "no", "unknown", "not_run"])


SELDOM = st.integers(0, 5).map(lambda n: n == 0)


@dataclass(eq=False)
class Past:
    """One run, as the model remembers it."""

    key: bytes
    number: int
    at: float  # of the last change
    state: str = "in_flight"  # then unknown, lost, released, success, no, not_run
    order: int = 0  # of its end, among all beginnings and ends
    start: int = 0  # of its beginning, likewise
    succeeded: bool = False  # even if it was released since
    heard_by: set[str] = field(default_factory=set)
    done: Done | None = None

    @property
    def is_open(self) -> bool:
        return self.state in ("in_flight", "unknown")


@dataclass
class Model:
    """Everything that ever happened; nothing is thrown away."""

    runs: list[Past] = field(default_factory=list)
    steps: int = 0

    def of(self, key: bytes) -> list[Past]:
        return [run for run in self.runs if run.key == key and run.state != "not_run"]

    def holds(self, run: Past, now: float) -> bool:
        if run.is_open:
            return now < run.at + HOLD
        return run.done is not None and now < run.at + REPLAY_FOR[run.key]

    def unrivalled(self, run: Past) -> bool:
        """No other write of the call has begun since it succeeded, and succeeded too."""
        rivals = (r for r in self.runs if SCOPES[r.key] == SCOPES[run.key])
        later = (r for r in rivals if r.succeeded and r.start > run.order)
        return run.state == "success" and not any(later)

    def expected(self, key: bytes, tool_call_id: str | None, now: float) -> Past | None:
        """The run that answers this request, now or later; None: it may run."""
        runs = [run for run in self.of(key) if self.holds(run, now)]
        for run in reversed(runs):
            if run.done is not None and tool_call_id in run.heard_by:
                return run
        last = self.of(key)[-1:]
        if last and last[0] in runs and (last[0].is_open or self.unrivalled(last[0])):
            return last[0]
        return None

    def began(self, run: Run, tool_call_id: str | None, now: float) -> Past:
        for earlier in self.of(run.key):
            if earlier.is_open:
                earlier.state = "lost"
        self.steps += 1
        past = Past(run.key, run.number, now, start=self.steps)
        if tool_call_id is not None:
            past.heard_by.add(tool_call_id)
        self.runs.append(past)
        return past

    def may_settle(self, run: Past) -> bool:
        return run.is_open or (run.state == "lost" and self.of(run.key)[-1] is run)

    def settled(self, run: Past, outcome: str, done: Done, now: float) -> None:
        run.state, run.at = outcome, now
        run.done = done if outcome in ("success", "no") else None
        run.succeeded = outcome == "success"
        self.steps += 1
        run.order = self.steps


class Machine(RuleBasedStateMachine):
    """What both machines do; `guard` differs in its limits."""

    def __init__(self) -> None:
        super().__init__()
        self.guard = self.new_guard()
        self.model = Model()
        self.now = 5000.0
        self.began: list[tuple[Run, Past]] = []  # by this process

    def new_guard(self) -> ReplayGuard:
        raise NotImplementedError

    def asked(self, key: bytes, tool_call_id: str | None) -> None:
        raise NotImplementedError

    def told(self, run: Run, past: Past, outcome: str) -> None:
        raise NotImplementedError

    @rule(key=KEYS, tool_call_id=IDS)
    def ask(self, key: bytes, tool_call_id: str | None) -> None:
        self.asked(key, tool_call_id)

    @rule(key=KEYS, tool_call_id=IDS, outcome=OUTCOMES)
    def ask_and_tell(self, key: bytes, tool_call_id: str | None, outcome: str) -> None:
        known = len(self.began)
        self.asked(key, tool_call_id)
        for pair in self.began[known:]:
            self.told(*pair, outcome)

    @precondition(lambda self: self.began)
    @rule(back=st.integers(0, 20), outcome=OUTCOMES)
    def tell(self, back: int, outcome: str) -> None:
        self.told(*self.began[-1 - back % len(self.began)], outcome)

    def begin(self, key: bytes, tool_call_id: str | None) -> Step:
        return self.guard.begin(
            key,
            SCOPES[key],
            tool="t",
            replay_for=REPLAY_FOR[key],
            now=self.now,
            tool_call_id=tool_call_id,
        )

    def settle_one(self, run: Run, outcome: str) -> tuple[bool, Done]:
        kept = Kept(Kind.FUNCTION, 200, (), b"%d" % len(self.model.runs), outcome)
        done = Done(kept, outcome == "success")
        if outcome == "unknown":
            return self.guard.unknown(run, self.now), done
        if outcome == "not_run":
            return self.guard.not_run(run, self.now), done
        return self.guard.finished(run, done, self.now), done

    @rule(pause=PAUSES)
    def pass_time(self, pause: float) -> None:
        self.now += pause

    @rule()
    def expire(self) -> None:
        self.guard.expire(self.now)
        for run in self.model.runs:
            if run.is_open and not self.model.holds(run, self.now):
                run.state, run.at = "lost", self.now

    @rule(key=KEYS, seldom=SELDOM)
    def release(self, key: bytes, seldom: bool) -> None:
        last = self.guard.store.last.known.get(key)
        if not seldom or last is None or last.state == "in_flight":
            return
        self.guard.release(key, self.now)
        past = self.model.of(key)[-1]
        assert past.state != "in_flight"
        past.state = "lost" if past.state == "unknown" else "released"
        past.at, past.done = self.now, None

    @rule(started=st.sampled_from([10.0, 7000.0, 123_456.0]), wall_ms=WALLS, seldom=SELDOM)
    def restart(self, started: float, wall_ms: int, seldom: bool) -> None:
        """A new process; what was in flight is unknown there, and nobody can settle it."""
        if not seldom:
            return
        saved = dump(self.guard, EventGuard(), now=self.now, wall_ms=wall_ms)
        self.guard = self.new_guard()
        load(saved, self.guard, EventGuard(), now=started, wall_ms=wall_ms)
        for run in self.model.runs:
            run.at += started - self.now
            run.state = "unknown" if run.state == "in_flight" else run.state
        self.now, self.began = started, []

    @invariant()
    def bytes_are_counted(self) -> None:
        kept = [run.done.kept for run in self.guard.store if run.done is not None]
        assert self.guard.store.bytes == sum(len(each.body) + OVERHEAD for each in kept if each)


class Roomy(Machine):
    """Without limits in the way every answer of the guard can be foretold."""

    def new_guard(self) -> ReplayGuard:
        return ReplayGuard(hold=HOLD)

    def asked(self, key: bytes, tool_call_id: str | None) -> None:
        expected, earlier = self.model.expected(key, tool_call_id, self.now), self.model.of(key)
        step = self.begin(key, tool_call_id)
        if expected is None:
            assert isinstance(step, Run)
            assert step.number in self.numbers(earlier)
            self.began.append((step, self.model.began(step, tool_call_id, self.now)))
            return
        if expected.is_open:
            assert step == Wait(key, unknown=expected.state == "unknown")
        else:
            assert step == Replay(expected.done or Done(None, success=False))
        if tool_call_id is not None:
            expected.heard_by.add(tool_call_id)

    def numbers(self, earlier: list[Past]) -> set[int]:
        """Which numbers the next run may have: the count, or 1 if that can be forgotten."""
        if not earlier:
            return {1}
        forgotten = {1} if self.now >= earlier[-1].at + HOLD / 2 else set()
        return {earlier[-1].number + 1} | forgotten

    def told(self, run: Run, past: Past, outcome: str) -> None:
        may, forgettable = self.model.may_settle(past), self.now >= past.at + HOLD / 2
        heard, done = self.settle_one(run, outcome)
        if outcome == "unknown":
            assert heard is (past.state == "in_flight")
        elif past.state == "lost" and forgettable:
            assert heard <= may
        else:
            assert heard is may
        if heard:
            self.model.settled(past, outcome, done, self.now)

    @invariant()
    def everything_open_is_known(self) -> None:
        known = {(run.key, run.number) for run in self.guard.store if run.done is None}
        for past in self.model.runs:
            if past.is_open and self.model.holds(past, self.now):
                assert (past.key, past.number) in known


class Cramped(Machine):
    """With room for next to nothing: what was finished may be forgotten, what is open never."""

    def new_guard(self) -> ReplayGuard:
        return ReplayGuard(most=2, most_bytes=2 * OVERHEAD, hold=HOLD)

    def asked(self, key: bytes, tool_call_id: str | None) -> None:
        held = [run for run in self.model.of(key) if self.model.holds(run, self.now)]
        expected = self.model.expected(key, tool_call_id, self.now)
        step = self.begin(key, tool_call_id)
        if isinstance(step, Run):
            assert not any(run.is_open for run in held)
            self.began.append((step, self.model.began(step, tool_call_id, self.now)))
            return
        if isinstance(step, Full):
            assert all(run.done is None and run.holds(self.now) for run in self.guard.store)
            return
        assert expected is not None
        if isinstance(step, Wait):
            assert held[-1].is_open
        else:
            assert any(step.done.success is (run.state == "success") for run in held if run.done)
        if tool_call_id is not None:
            expected.heard_by.add(tool_call_id)

    def told(self, run: Run, past: Past, outcome: str) -> None:
        may, held = self.model.may_settle(past), self.model.holds(past, self.now)
        heard, done = self.settle_one(run, outcome)
        assert heard <= may
        assert heard or outcome == "unknown" or not past.is_open or not held
        if heard:
            self.model.settled(past, outcome, done, self.now)

    @invariant()
    def it_keeps_to_its_limits(self) -> None:
        assert len(self.guard.store) <= 2
        assert self.guard.store.bytes <= 2 * OVERHEAD


TestRoomy = Roomy.TestCase
TestRoomy.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestCramped = Cramped.TestCase
TestCramped.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
