"""One arm, its tools, and who of them hears what."""

from __future__ import annotations

import pytest

from proxy.core.arm_breaker import ArmBreaker, Both
from proxy.core.breaker import BreakerConfig, Permit, Role, State, Transition
from proxy.core.model import Counts, Ran, Verdict
from proxy.core.verdict import (
    BREAKER_OPEN,
    BUSINESS_NO,
    BUSY,
    CUT,
    FAILED_BODY,
    FAILED_STATUS,
    REDIRECT,
    REFUSED,
    SUCCESS,
    judge_failure,
    judge_status,
)
from proxy.errors import UpstreamFailed

TIMEOUT = judge_failure(UpstreamFailed("timeout", "late", sent=True), dispatched=True)
RESET = judge_failure(UpstreamFailed("reset", "cut", sent=True), dispatched=True)
GARBAGE = judge_failure(UpstreamFailed("body", "no answer", sent=True), dispatched=True)
CONNECT = judge_failure(UpstreamFailed("connect", "refused", sent=False), dispatched=False)
HANDSHAKE = judge_failure(UpstreamFailed("timeout", "late", sent=True), dispatched=False)
GREETING = judge_failure(UpstreamFailed("body", "no answer", sent=True), dispatched=False)
LISTED = judge_status(500, [], not_executed=frozenset({500}))
FULL = judge_failure(UpstreamFailed("full", "no room", sent=False), dispatched=False)
LATER = Verdict("busy", Ran.UNKNOWN, Counts.FAILURE, "status", retry_after=300.0)


def arm(**config: float) -> ArmBreaker:
    rules = BreakerConfig(**{"failures": 3, "half_open": 2, **config})  # type: ignore[arg-type]
    return ArmBreaker(rules, tools=("slots", "book"))


def attempt(
    it: ArmBreaker,
    verdict: Verdict,
    tool: str | None = "slots",
    *,
    now: float = 0.0,
    seconds: float = 0.0,
    safe: bool = True,
    covered: bool = True,
) -> Transition | None:
    permit = it.admit(now, tool, safe=safe, covered=covered)
    assert permit is not None
    return it.settle(permit, verdict, now, seconds)


def admits(it: ArmBreaker, tool: str | None, now: float = 0.0) -> bool:
    permit = it.admit(now, tool, safe=True, covered=True)
    if permit is not None:
        it.settle(permit, CUT, now)
    return permit is not None


def failures(it: ArmBreaker, now: float = 0.0) -> tuple[int, int]:
    """In a row: the arm's, the tool's."""
    return it.snapshot(now).failures, it.tools["slots"].snapshot(now).failures


def broken(now: float = 0.0, **config: float) -> ArmBreaker:
    """Its tool `slots` is open, the arm is not."""
    it = arm(**config)
    for _ in range(3):
        attempt(it, FAILED_BODY, now=now)
    assert it.tools["slots"].state is State.OPEN
    return it


def half_open(**config: float) -> ArmBreaker:
    """Its tool `slots` was probed at 60 s, the arm is closed."""
    it = broken(**config)
    slots = it.tools["slots"]
    assert slots.tick(60.0)
    probe = slots.probe_due(60.0)
    assert probe
    slots.probe_ended(probe, True, 60.0)
    return it


# Who hears what.


@pytest.mark.parametrize(
    ("verdict", "heard"),
    [
        (CONNECT, (1, 0)),
        (HANDSHAKE, (1, 0)),
        (GREETING, (1, 0)),
        (TIMEOUT, (1, 1)),
        (RESET, (1, 1)),
        (BUSY, (1, 1)),
        (FAILED_STATUS, (0, 1)),
        (FAILED_BODY, (0, 1)),
        (GARBAGE, (0, 1)),
        (LISTED, (0, 1)),
        (FULL, (0, 0)),
        (REFUSED, (0, 0)),
        (REDIRECT, (0, 0)),
        (CUT, (0, 0)),
        (BREAKER_OPEN, (0, 0)),
    ],
)
def test_a_tools_own_failures_are_its_own(verdict: Verdict, heard: tuple[int, int]) -> None:
    it = arm()
    attempt(it, verdict)

    assert failures(it) == heard
    assert it.tools["book"].snapshot(0.0).failures == 0


@pytest.mark.parametrize("verdict", [SUCCESS, BUSINESS_NO])
def test_both_hear_that_it_went_well(verdict: Verdict) -> None:
    it = arm()
    attempt(it, TIMEOUT)
    attempt(it, verdict)

    assert failures(it) == (0, 0)


def test_a_tool_without_a_breaker_speaks_for_the_arm() -> None:
    it = arm()
    attempt(it, FAILED_BODY, "unheard_of")
    attempt(it, FAILED_BODY, None)

    assert failures(it) == (2, 0)


def test_a_tool_that_is_broken_closes_off_nothing_else() -> None:
    it = arm()
    changes = [attempt(it, FAILED_BODY) for _ in range(3)]

    change = Transition(State.CLOSED, State.OPEN, "failures", 0.0, "slots")
    assert changes == [None, None, change]
    assert not admits(it, "slots")
    assert admits(it, "book")
    assert admits(it, None)
    assert it.state is State.CLOSED


def test_a_broken_arm_closes_off_every_tool() -> None:
    it = arm()
    changes = [attempt(it, CONNECT, tool) for tool in ("slots", "book", None)]

    assert changes[-1] == Transition(State.CLOSED, State.OPEN, "failures", 0.0)
    assert not any(admits(it, tool) for tool in ("slots", "book", None))


def test_what_opens_the_arm_says_nothing_of_the_tool() -> None:
    it = arm()
    for _ in range(3):
        change = attempt(it, TIMEOUT)

    assert change == Transition(State.CLOSED, State.OPEN, "failures", 0.0)
    assert failures(it) == (3, 2)
    assert it.tools["slots"].state is State.CLOSED


def test_other_tools_successes_keep_an_arm_closed_whose_one_tool_hangs() -> None:
    it = arm()
    for _ in range(2):
        attempt(it, TIMEOUT)
        attempt(it, SUCCESS, "book")
    change = attempt(it, TIMEOUT)

    assert change is not None
    assert change.tool == "slots"
    assert it.state is State.CLOSED


def test_a_slow_tool_is_slow_alone() -> None:
    it = arm(slow=1.0, slow_rate=50.0, min_volume=2)
    attempt(it, SUCCESS, seconds=2.0)
    change = attempt(it, SUCCESS, seconds=2.0)

    assert change is not None
    assert (change.why, change.tool) == ("slow_rate", "slots")
    assert it.state is State.CLOSED
    for _ in range(2):
        change = attempt(it, SUCCESS, "unheard_of", seconds=2.0)
    assert change == Transition(State.CLOSED, State.OPEN, "slow_rate", 0.0)


def test_each_keeps_to_the_rest_that_was_asked_for() -> None:
    it = arm(failures=1)
    attempt(it, LATER, "book")

    assert it.probe_at() == 300.0


# Permits.


def test_while_both_pass_nothing_is_allocated_per_attempt() -> None:
    it = arm()
    one = it.admit(0.0, "slots", safe=True, covered=True)

    assert isinstance(one, Both)
    assert it.admit(1.0, "slots", safe=False, covered=False) is one
    assert it.admit(1.0, "book", safe=True, covered=True) is not one
    assert it.admit(1.0, None, safe=True, covered=True) is it.admit(
        2.0, "unheard_of", safe=True, covered=True
    )


def test_a_permit_of_an_earlier_era_is_not_given_again() -> None:
    it = arm()
    early = it.admit(0.0, "slots", safe=True, covered=True)
    it.reset(1.0)
    later = it.admit(2.0, "slots", safe=True, covered=True)
    assert early is not None
    assert later is not early

    it.settle(early, TIMEOUT, 3.0)
    assert failures(it) == (0, 1), "the arm has begun anew, the tool has not"


def test_what_the_arm_refuses_gives_the_tools_slot_back() -> None:
    it = half_open()
    it.force(State.FORCED_OPEN, 61.0)
    assert it.admit(61.0, "slots", safe=True, covered=True) is None
    it.reset(62.0)

    assert admits(it, "slots", 62.0)


def test_what_the_tool_refuses_takes_no_slot_of_the_arm() -> None:
    it = half_open()
    it.trip(60.0)
    it.tick(120.0)
    probe = it.probe_due(120.0)
    assert probe
    it.probe_ended(probe, True, 120.0)
    it.tools["slots"].force(State.FORCED_OPEN, 120.0)

    assert not admits(it, "slots", 121.0)
    trial = it.admit(121.0, "book", safe=True, covered=True)
    assert isinstance(trial, Both)
    assert trial.role is Role.TRIAL


def test_a_trial_of_both_closes_both_the_arm_first() -> None:
    it = half_open()
    it.trip(60.0)
    it.tick(120.0)
    probe = it.probe_due(120.0)
    assert probe
    it.probe_ended(probe, True, 120.0)

    changes = [attempt(it, SUCCESS, now=121.0) for _ in range(3)]

    assert [change and (change.tool, change.why) for change in changes] == [
        None,
        ("", "trials_passed"),
        ("slots", "trials_passed"),
    ]


def test_a_failed_trial_of_a_tool_opens_the_tool_again_for_longer() -> None:
    it = half_open()
    change = attempt(it, FAILED_BODY, now=61.0)

    assert change == Transition(State.HALF_OPEN, State.OPEN, "trial_failed", 61.0, "slots")
    assert it.tools["slots"].snapshot(61.0).reopens_in == 120.0


def test_a_trial_that_could_not_be_sent_says_nothing_of_the_tool() -> None:
    it = half_open()
    attempt(it, CONNECT, now=61.0)

    assert it.tools["slots"].state is State.HALF_OPEN
    assert admits(it, "slots", 62.0)


def test_where_nobody_else_could_answer_a_tool_has_its_last_resort() -> None:
    it = broken(last_resort=1)
    held = it.admit(0.0, "slots", safe=False, covered=False)
    assert held is not None

    assert it.admit(0.0, "slots", safe=False, covered=False) is None
    it.settle(held, SUCCESS, 1.0)
    change = attempt(it, SUCCESS, now=2.0, covered=False)
    assert change == Transition(State.OPEN, State.CLOSED, "last_resort", 2.0, "slots")


# Time and probes.


def test_no_tool_is_looked_at_while_its_arm_is_not_asked() -> None:
    """Its time would pass, and its half-open fail, for what the arm has to answer for."""
    it = broken()
    assert list(it.awaiting()) == list(it.each())
    it.trip(0.0)

    assert list(it.awaiting()) == [it]


def test_an_arm_that_is_tried_again_lets_its_tools_be_tried_in_the_same_look() -> None:
    it = broken()
    it.trip(0.0)
    changes = [change for each in it.awaiting() if (change := each.tick(60.0))]

    assert [change.tool for change in changes] == ["", "slots"]


def test_the_next_look_is_at_whoever_is_due_first() -> None:
    it = arm()
    assert it.look_at() is None
    for _ in range(3):
        attempt(it, FAILED_BODY, now=10.0)
    assert it.look_at() == 70.0
    it.trip(0.0)
    assert it.look_at() == 60.0


# Reloads.


def test_a_reload_keeps_the_breakers_of_tools_that_stay() -> None:
    it = broken()
    it.name_tools(["slots", "cancel"])

    assert set(it.tools) == {"slots", "cancel"}
    assert it.tools["slots"].state is State.OPEN
    assert admits(it, "cancel")


def test_without_tools_of_its_own_an_arm_is_one_breaker() -> None:
    it = broken()
    it.name_tools([])

    assert admits(it, "slots")
    assert it.each() == (it,)
    attempt(it, FAILED_BODY)
    assert it.snapshot(0.0).failures == 1


def test_nobody_hears_of_a_tool_that_has_gone() -> None:
    it = arm(failures=1)
    permit = it.admit(0.0, "slots", safe=True, covered=True)
    assert permit
    it.name_tools([])

    assert it.settle(permit, FAILED_BODY, 1.0) is None


def test_operators_see_every_tool() -> None:
    seen = broken().tool_snapshots(10.0)

    assert {name: one.state for name, one in seen.items()} == {
        "slots": State.OPEN,
        "book": State.CLOSED,
    }
    assert seen["slots"].reopens_in == 50.0


def test_a_permit_of_the_arm_alone_settles_as_ever() -> None:
    it = ArmBreaker(BreakerConfig(failures=1))
    permit = it.admit(0.0, safe=True, covered=True)
    assert type(permit) is Permit

    assert it.settle(permit, FAILED_BODY, 1.0) == Transition(
        State.CLOSED, State.OPEN, "failures", 1.0
    )
