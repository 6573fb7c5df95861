"""An arm and its tools against models that know nothing of each other but what the table says."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    consumes,
    invariant,
    rule,
)

from proxy.core.arm_breaker import ArmBreaker
from proxy.core.breaker import BreakerConfig, Permit, State, Transition
from proxy.core.model import Counts, Verdict
from proxy.core.verdict import BUSINESS_NO, BUSY, CUT, FAILED_BODY, FAILED_STATUS, REFUSED, SUCCESS
from tests.core.breaker_model import Leave, Model
from tests.core.test_arm_breaker import CONNECT, GARBAGE, GREETING, HANDSHAKE, RESET, TIMEOUT

CONFIG = BreakerConfig(
    failures=2, half_open=2, last_resort=2, window=40.0, min_volume=3, failure_rate=50.0, slow=1.0,
    slow_rate=60.0,
)  # fmt: skip
GOOD, BAD, NIL = Counts.SUCCESS, Counts.FAILURE, Counts.NOTHING
TABLE: dict[str, tuple[Verdict, Counts, Counts]] = {  # what the arm hears, what the tool hears
    "success": (SUCCESS, GOOD, GOOD),
    "business no": (BUSINESS_NO, GOOD, GOOD),
    "connect": (CONNECT, BAD, NIL),
    "handshake late": (HANDSHAKE, BAD, NIL),
    "handshake garbled": (GREETING, BAD, NIL),
    "timeout": (TIMEOUT, BAD, BAD),
    "reset": (RESET, BAD, BAD),
    "busy": (BUSY, BAD, BAD),
    "5xx": (FAILED_STATUS, NIL, BAD),
    "body": (FAILED_BODY, NIL, BAD),
    "garbage": (GARBAGE, NIL, BAD),
    "refused": (REFUSED, NIL, NIL),
    "cut": (CUT, NIL, NIL),
}
TOOLS = ("slots", "book")
ASKED = st.sampled_from([*TOOLS, *TOOLS, "unnamed", None])
VERDICTS = st.sampled_from(["success"] * 8 + [*TABLE])
COVERED = st.sampled_from([True, True, True, False])
SECONDS = st.sampled_from([0.1, 0.1, 2.0])


@dataclass
class Both:
    """The leave of both, or of the arm alone."""

    arm: Leave
    tool: str | None = None
    own: Leave | None = None


class ArmAgainstModels(RuleBasedStateMachine):
    permits: Bundle[tuple[Permit | None, Both | None]] = Bundle("permits")

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.breaker = ArmBreaker(CONFIG, tools=TOOLS)
        self.arm = Model(CONFIG)
        self.tools = {tool: Model(CONFIG) for tool in TOOLS}

    @rule(seconds=st.sampled_from([0.5, 10.0, 60.0, 200.0]))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(target=permits, tool=ASKED, safe=st.booleans(), covered=COVERED)
    def admit(
        self, tool: str | None, safe: bool, covered: bool
    ) -> tuple[Permit | None, Both | None]:
        given = self.model_admits(tool, safe=safe, covered=covered)
        permit = self.breaker.admit(self.now, tool, safe=safe, covered=covered)
        assert (permit is None) is (given is None)
        return permit, given

    def model_admits(self, tool: str | None, *, safe: bool, covered: bool) -> Both | None:
        own = None
        if tool in self.tools:
            own = self.tools[tool].admit(self.now, safe=safe, covered=covered)
            if own is None:
                return None
        arm = self.arm.admit(self.now, safe=safe, covered=covered)
        if arm is not None:
            return Both(arm, tool, own)
        if own is not None and tool is not None:
            self.tools[tool].take_back(own, NIL, self.now, None, 0.0)
        return None

    @rule(given=consumes(permits), name=VERDICTS, seconds=SECONDS)
    def settle(self, given: tuple[Permit | None, Both | None], name: str, seconds: float) -> None:
        permit, both = given
        if permit is None or both is None:
            return
        verdict, for_arm, for_tool = TABLE[name]
        before = self.states()
        if both.own is None or both.tool is None:
            why = self.arm.take_back(both.arm, verdict.counts, self.now, None, seconds)
            whose = ""
        else:
            why, whose = self.arm.take_back(both.arm, for_arm, self.now, None, 0.0), ""
            counts = for_tool if why is None else NIL
            its = self.tools[both.tool].take_back(both.own, counts, self.now, None, seconds)
            if why is None and its is not None:
                why, whose = its, both.tool
        self.expect(before, why, whose, self.breaker.settle(permit, verdict, self.now, seconds))

    @rule(tool=ASKED, covered=COVERED, name=VERDICTS, seconds=SECONDS, many=st.integers(1, 4))
    def exchanges(
        self, tool: str | None, covered: bool, name: str, seconds: float, many: int
    ) -> None:
        for _ in range(many):
            self.settle(self.admit(tool, True, covered), name, seconds)

    @rule(ok=st.booleans(), until_due=st.booleans())
    def a_prober_looks(self, ok: bool, until_due: bool) -> None:
        """As the real one does: tick all that wait, one probe for all, the arm before its tools."""
        due = self.breaker.look_at()
        if until_due and due is not None:
            self.now = max(self.now, due)
        assert due == self.model_look_at()
        for each in self.breaker.awaiting():
            before = self.states()
            self.expect(
                before, self.model(each.tool).tick(self.now), each.tool, each.tick(self.now)
            )
        asked = self.arm.state not in (State.OPEN, State.FORCED_OPEN)
        assert {each.tool for each in self.breaker.awaiting()} == {"", *(TOOLS if asked else ())}
        leased = []
        for each in self.breaker.awaiting():
            number, permit = self.model(each.tool).lease(self.now), each.probe_due(self.now)
            assert (number is None) is (permit is None)
            if number is not None and permit is not None:
                leased.append((each, permit, self.model(each.tool).era, number))
        for each, permit, era, number in leased:
            model, before = self.model(each.tool), self.states()
            if each is not self.breaker and not self.breaker.is_asked:
                model.probe_cut(era, number, self.now)
                each.probe_cut(permit, self.now)
                continue
            why = model.probe_ended(era, number, ok, self.now)
            self.expect(before, why, each.tool, each.probe_ended(permit, ok, self.now))

    @rule(wants=st.sampled_from([None] * 8 + [*sorted(State)]), tool=st.sampled_from(["", *TOOLS]))
    def an_operator_acts(self, wants: State | None, tool: str) -> None:
        """Seldom, or little else would be seen; on one breaker, or on all."""
        if wants is None or wants in (State.OPEN, State.HALF_OPEN):
            return
        for each in [self.breaker.tools[tool]] if tool else self.breaker.each():
            before = self.states()
            state = None if wants is State.CLOSED else wants
            why = self.model(each.tool).operate(state, self.now)
            change = each.reset(self.now) if state is None else each.force(state, self.now)
            self.expect(before, why, each.tool, change)

    def model(self, tool: str) -> Model:
        return self.tools[tool] if tool else self.arm

    def model_look_at(self) -> float | None:
        waiting = [self.arm]
        if self.arm.state not in (State.OPEN, State.FORCED_OPEN):
            waiting += self.tools.values()
        times = [each.reopens for each in waiting if each.state is State.OPEN]
        times += [
            each.probes[-1] if each.probes else each.since
            for each in waiting
            if each.state is State.HALF_OPEN and each.passed_at is None
        ]
        return min(times) if times else None

    def states(self) -> dict[str, State]:
        return {"": self.arm.state} | {tool: model.state for tool, model in self.tools.items()}

    def expect(
        self, before: dict[str, State], why: str | None, whose: str, change: Transition | None
    ) -> None:
        if why is None:
            assert change is None
            return
        after = self.model(whose).state
        assert change == Transition(before[whose], after, why, self.now, whose)  # type: ignore[arg-type]

    @invariant()
    def they_agree(self) -> None:
        for each in self.breaker.each():
            model, seen = self.model(each.tool), each.snapshot(self.now)
            assert seen.state is model.state
            assert seen.era == model.era
            assert seen.setbacks == model.setbacks
            assert seen.last_resort == len(model.resorts)
            assert seen.window is not None
            assert seen.window.volume == len(model.held(self.now))

    def teardown(self) -> None:
        """A healthy arm gets its traffic back, and so does each of its tools."""
        now = self.now
        for each in self.breaker.each():
            if each.state is State.FORCED_OPEN:
                each.reset(now)
        for _ in range(12):
            now = max(now, self.breaker.look_at() or now + 60.0)
            for each in self.breaker.awaiting():
                each.tick(now)
                if probe := each.probe_due(now):
                    each.probe_ended(probe, True, now)
            for tool in (*TOOLS, None):
                if permit := self.breaker.admit(now, tool, safe=True, covered=True):
                    self.breaker.settle(permit, SUCCESS, now)
            now += 60.0
        assert all(each.is_passing for each in self.breaker.each())


TestArmAgainstModels = ArmAgainstModels.TestCase
TestArmAgainstModels.settings = settings(max_examples=250, stateful_step_count=25, deadline=None)
