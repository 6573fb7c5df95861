from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.entry import Entry, Override, Scope
from proxy.core.fields import fields
from proxy.core.matchers import Fields
from proxy.core.model import Call, Decision, Head, Kind, Reason
from proxy.core.records import Records
from proxy.core.split import call_hash, in_share
from proxy.core.splitter import Splitter

NOW = 1_767_225_600_000
HOUR, SETTLED = 3_600_000, 500
HEAD = Head("POST", "/retell", "", {}, [], b"localhost", "127.0.0.1")
IDS = [f"call_{number}" for number in range(300)]
STAGING = Override({"agent_id": "agent_staging"}, to="mcp", test=True)
NO_BOOKING = Override({"tool": "book_appointment"}, to="webhook")


def call(
    call_id: str | None,
    start_ms: int | None = NOW,
    *,
    kind: Kind = Kind.FUNCTION,
    event: str | None = None,
    **fields: Any,
) -> Call:
    body = json.dumps(fields).encode()
    return Call(kind, HEAD, body, id=call_id, start_ms=start_ms, event=event)


def fields_of(call: Call) -> Fields:
    found: dict[str, object] = json.loads(call.body)
    return found


def splitter(
    percent: float = 50, *, at_ms: int = NOW - HOUR, records: Records | None = None, **terms: Any
) -> Splitter:
    entry = Entry("mcp", "webhook", percent=percent, salt="s", at_ms=at_ms, **terms)
    return Splitter(entry, fields_of=fields_of, records=records)


def arm_by_share(call_id: str, percent: float) -> str:
    return "mcp" if in_share(call_hash(call_id, "s"), percent) else "webhook"


# --- the order -------------------------------------------------------------------------------


def test_a_new_call_goes_by_the_share_and_then_by_its_record() -> None:
    half = splitter(50)
    for call_id in IDS:
        arm = arm_by_share(call_id, 50)
        assert half.decide(call(call_id), wall_ms=NOW) == Decision(arm, Reason.SHARE)
        assert half.decide(call(call_id), wall_ms=NOW) == Decision(arm, Reason.RECORDED)


@pytest.mark.parametrize("percent", [0.0, 100.0])
def test_a_request_without_a_call_id_goes_to_the_otherwise_arm(percent: float) -> None:
    which = splitter(percent, overrides=(STAGING,))
    nameless = call(None, agent_id="agent_staging")

    assert which.decide(nameless, wall_ms=NOW) == Decision("webhook", Reason.NO_CALL_ID)
    assert len(which.records) == 0


def test_force_outranks_cap_overrides_share_and_record() -> None:
    which = splitter(0, cap=0, overrides=(Override({"agent_id": "a"}, to="webhook"),))
    assert which.decide(call("c", agent_id="a"), wall_ms=NOW).arm == "webhook"

    forced = which.decide(call("c", agent_id="a"), wall_ms=NOW, forced="mcp")
    assert forced == Decision("mcp", Reason.FORCED)
    # The call has moved by express wish; requests without the header follow it.
    assert which.decide(call("c"), wall_ms=NOW) == Decision("mcp", Reason.RECORDED)
    assert which.decide(call(None), wall_ms=NOW, forced="mcp") == forced


def test_a_forced_arm_that_does_not_exist_is_no_wish() -> None:
    which = splitter(100)

    assert which.decide(call("c"), wall_ms=NOW, forced="nowhere").reason is Reason.SHARE
    assert which.decide(call("c"), wall_ms=NOW, forced="nowhere").reason is Reason.RECORDED
    assert which.decide(call(None), wall_ms=NOW, forced="nowhere").reason is Reason.NO_CALL_ID


def test_the_kill_switch_outranks_force() -> None:
    which = splitter(100, kill=True)

    for call_id in ("c", "c", None):
        decision = which.decide(call(call_id), wall_ms=NOW, forced="mcp")
        assert decision.arm == "webhook"
        assert decision.reason is (Reason.KILL_SWITCH if call_id else Reason.NO_CALL_ID)


def test_overrides_come_before_the_share_and_stand_for_the_whole_call() -> None:
    which = splitter(0, cap=0, overrides=(STAGING,))

    first = which.decide(call("c", agent_id="agent_staging"), wall_ms=NOW)
    assert first == Decision("mcp", Reason.OVERRIDE)
    assert which.decide(call("c"), wall_ms=NOW) == Decision("mcp", Reason.RECORDED)
    assert which.decide(call("d", agent_id="other"), wall_ms=NOW).arm == "webhook"


def test_an_inbound_request_makes_no_record() -> None:
    which = splitter(100)
    ringing = call("c", kind=Kind.INBOUND)

    assert which.decide(ringing, wall_ms=NOW) == Decision("mcp", Reason.SHARE)
    assert which.decide(ringing, wall_ms=NOW) == Decision("mcp", Reason.SHARE)
    assert len(which.records) == 0


# --- overrides by tool or header --------------------------------------------------------------


def test_an_override_by_tool_takes_one_request_away_and_not_the_call() -> None:
    which = splitter(100, overrides=(NO_BOOKING,))
    booking = call("c", tool="book_appointment")

    assert which.decide(booking, wall_ms=NOW) == Decision("webhook", Reason.OVERRIDE)
    assert which.decide(call("c", tool="get_slots"), wall_ms=NOW) == Decision(
        "mcp", Reason.RECORDED
    )
    assert which.decide(booking, wall_ms=NOW) == Decision("webhook", Reason.OVERRIDE)
    assert which.live("mcp", NOW) == 1


def test_it_leaves_calls_alone_that_go_there_anyway() -> None:
    which = splitter(0, overrides=(NO_BOOKING,))

    assert which.decide(call("c", tool="book_appointment"), wall_ms=NOW).reason is Reason.SHARE


def test_force_and_test_overrides_outrank_it() -> None:
    which = splitter(0, overrides=(NO_BOOKING, STAGING))
    booking = call("c", agent_id="agent_staging", tool="book_appointment")

    assert which.decide(booking, wall_ms=NOW) == Decision("mcp", Reason.OVERRIDE)
    assert which.decide(booking, wall_ms=NOW) == Decision("mcp", Reason.RECORDED)
    assert which.decide(booking, wall_ms=NOW, forced="mcp") == Decision("mcp", Reason.FORCED)
    assert which.decide(booking, wall_ms=NOW) == Decision("mcp", Reason.RECORDED)


def test_marked_test_it_outranks_test_overrides() -> None:
    which = splitter(0, overrides=(replace(NO_BOOKING, test=True), STAGING))
    booking = call("c", agent_id="agent_staging", tool="book_appointment")

    assert which.decide(booking, wall_ms=NOW) == Decision("webhook", Reason.OVERRIDE)


def test_a_later_request_is_judged_by_the_calls_frozen_fields() -> None:
    """The bare arguments of a function say nothing of its agent."""
    rule = Override({"agent_id": "a", "tool": "book_appointment"}, to="webhook")
    which = splitter(100, overrides=(rule,))
    which.decide(call("c", kind=Kind.EVENT, agent_id="a"), wall_ms=NOW)

    bare = call("c", kind=Kind.ARGS, tool="book_appointment")
    assert which.decide(bare, wall_ms=NOW) == Decision("webhook", Reason.OVERRIDE)


def test_fields_are_not_read_where_no_override_needs_them() -> None:
    def never(_: Call) -> Fields:
        raise AssertionError

    entry = Entry("mcp", "webhook", percent=100, at_ms=NOW - HOUR)
    which = Splitter(entry, fields_of=never)
    assert which.decide(call("c"), wall_ms=NOW).arm == "mcp"
    assert which.decide(call("c"), wall_ms=NOW).arm == "mcp"

    which.sync(replace(entry, at_ms=NOW, overrides=(STAGING,)))
    assert which.decide(call("c"), wall_ms=NOW + HOUR).arm == "mcp"


def test_real_bodies_are_matched() -> None:
    rule = Override({"metadata.company_id": {"in": [42]}}, to="mcp")
    entry = Entry("mcp", "webhook", overrides=(rule,), at_ms=NOW - HOUR)
    which = Splitter(entry, fields_of=fields)
    body = b'{"event":"call_started","call":{"call_id":"c","metadata":{"company_id":42}}}'

    started = Call(Kind.EVENT, HEAD, body, id="c", start_ms=NOW)
    assert which.decide(started, wall_ms=NOW) == Decision("mcp", Reason.OVERRIDE)


# --- a call never changes arm half way ---------------------------------------------------------

LIVES = st.lists(
    st.tuples(st.integers(0, 10_000), st.integers(0, 20_000)),  # number, start after NOW
    min_size=1,
    max_size=40,
    unique_by=lambda life: life[0],
)
MOMENTS = st.lists(st.integers(0, 60_000), min_size=4, max_size=4).map(sorted)


@given(LIVES, MOMENTS, st.booleans(), st.booleans())
def test_no_call_changes_arm_while_the_share_grows(
    lives: list[tuple[int, int]], moments: list[int], has_start: bool, forgetful: bool
) -> None:
    """With its own start not even where the record was lost or at another replica.

    Without one the record alone keeps it.  Nobody is ever moved back to the webhook.
    """
    which = splitter(10, records=Records(most=1) if forgetful and has_start else None)
    steps = list(zip(moments, (25, 50, 75, 100), strict=True))
    arms: dict[str, set[str]] = {}
    for after in sorted({*moments, *(start for _, start in lives), 61_000, 90_000}):
        for at, percent in steps:
            if at == after:
                which.change(wall_ms=NOW + at, who="ops", why="step", percent=percent)
        for number, start in lives:
            if start > after:
                continue
            request = call(f"call_{number}", NOW + start if has_start else None)
            decision = which.decide(request, wall_ms=NOW + after)
            arms.setdefault(f"call_{number}", set()).add(decision.arm)

    assert all(len(seen) == 1 for seen in arms.values())
    for call_id, seen in arms.items():
        if arm_by_share(call_id, 10) == "mcp":
            assert seen == {"mcp"}


@given(LIVES, MOMENTS)
def test_every_replica_agrees_without_asking(
    lives: list[tuple[int, int]], moments: list[int]
) -> None:
    one, other = splitter(10), splitter(10)
    for at, percent in zip(moments, (25, 50, 75, 100), strict=True):
        for replica, delay in ((one, 0), (other, 400)):  # one hears of it later
            late = [n for n, start in lives if at <= start <= at + delay]
            for number in late:  # meanwhile it decides by what it knows
                start = dict(lives)[number]
                replica.decide(call(f"call_{number}", NOW + start), wall_ms=NOW + start)
            replica.change(wall_ms=NOW + at, who="ops", why="step", percent=percent)
    wall = NOW + 100_000

    for number, start in lives:
        request = call(f"call_{number}", NOW + start)
        assert one.decide(request, wall_ms=wall).arm == other.decide(request, wall_ms=wall).arm


def test_a_call_without_start_or_record_gets_the_present_entry() -> None:
    which = splitter(0)
    which.change(wall_ms=NOW, who="ops", why="go", percent=100)

    assert which.decide(call("c", None), wall_ms=NOW + SETTLED - 1).arm == "webhook"
    assert which.decide(call("d", None), wall_ms=NOW + SETTLED).arm == "mcp"
    assert which.decide(call("c", None), wall_ms=NOW + HOUR).arm == "webhook"  # on record


def test_a_reload_in_the_middle_of_a_call_leaves_it_where_it_is() -> None:
    which = splitter(100)
    which.decide(call("c"), wall_ms=NOW)
    rules = Entry("mcp", "webhook", percent=0, salt="other", at_ms=NOW + 1)
    which.sync(replace(rules, overrides=(Override({"agent_id": "a"}, to="webhook"), NO_BOOKING)))
    later = call("c", agent_id="a", tool="book_appointment")

    assert which.decide(later, wall_ms=NOW + HOUR) == Decision("mcp", Reason.RECORDED)
    which.records.drop("c")
    assert which.decide(later, wall_ms=NOW + HOUR) == Decision("mcp", Reason.SHARE)


# --- the kill switch ---------------------------------------------------------------------------


@given(LIVES, st.booleans(), st.booleans())
def test_all_calls_move_when_the_kill_switch_is_turned_on_and_none_comes_back(
    lives: list[tuple[int, int]], has_start: bool, asked_meanwhile: bool
) -> None:
    which = splitter(100)
    requests = [call(f"call_{n}", NOW + start if has_start else None) for n, start in lives]
    wall = NOW + 20_000
    assert {which.decide(each, wall_ms=wall).arm for each in requests} == {"mcp"}

    which.change(wall_ms=wall, who="ops", why="fire", kill=True)
    if asked_meanwhile:
        decisions = {which.decide(each, wall_ms=wall) for each in requests}
        assert decisions == {Decision("webhook", Reason.KILL_SWITCH)}
        assert which.live("mcp", wall) == 0

    which.change(wall_ms=wall + 1_000, who="ops", why="fire is out", kill=False)
    later = {which.decide(each, wall_ms=wall + HOUR) for each in requests}
    assert later == {Decision("webhook", Reason.KILL_SWITCH)}
    new = call("call_new", wall + HOUR)
    assert which.decide(new, wall_ms=wall + HOUR) == Decision("mcp", Reason.SHARE)


def test_a_start_that_lies_ahead_does_not_bring_a_killed_call_back() -> None:
    which = splitter(100)
    liar = call("c", NOW + 10 * HOUR)
    assert which.decide(liar, wall_ms=NOW).arm == "mcp"
    which.change(wall_ms=NOW + 1, who="ops", why="fire", kill=True)
    which.change(wall_ms=NOW + 2, who="ops", why="out", kill=False)

    assert which.decide(liar, wall_ms=NOW + HOUR).arm == "webhook"


def test_an_entry_for_all_calls_judges_live_calls_by_their_frozen_fields() -> None:
    """Only the kill switch is one today; the history can carry others."""
    rule = Override({"agent_id": "a"}, to="mcp")
    which = splitter(0, overrides=(rule,))
    which.decide(call("c", agent_id="a"), wall_ms=NOW)
    which.decide(call("d", agent_id="b"), wall_ms=NOW)
    swept = replace(which.history.latest, at_ms=NOW + 1, scope=Scope.ALL_CALLS, percent=100)
    which.history.append(replace(swept, overrides=(replace(rule, to="webhook"),)))

    for call_id, arm, reason in (
        ("c", "webhook", Reason.OVERRIDE),
        ("d", "mcp", Reason.SHARE),
    ):
        silent = call(call_id)
        assert which.decide(silent, wall_ms=NOW + 2) == Decision(arm, reason)
        assert which.decide(silent, wall_ms=NOW + 2) == Decision(arm, Reason.RECORDED)


# --- changes -----------------------------------------------------------------------------------


def test_a_change_is_kept_with_who_and_why() -> None:
    which = splitter(10)
    entry = which.change(wall_ms=NOW, who="ops", why="looks good", percent=25, cap=50)

    assert entry is which.history.latest
    assert (entry.percent, entry.cap, entry.who, entry.why) == (25, 50, "ops", "looks good")
    assert which.change(wall_ms=NOW + 1, who="ops", why="again", percent=25) is None


def test_salt_and_overrides_can_be_changed() -> None:
    which = splitter(10)
    entry = which.change(wall_ms=NOW, who="ops", why="x", salt="t", overrides=(STAGING,))

    assert entry is not None
    assert (entry.salt, entry.overrides, entry.percent) == ("t", (STAGING,), 10)


def test_an_impossible_change_changes_nothing() -> None:
    which = splitter(10)
    with pytest.raises(ValueError, match="percentage"):
        which.change(wall_ms=NOW, who="ops", why="typo", percent=1000)

    assert which.history.latest.percent == 10


def test_present_tells_share_cap_and_kill_switch_of_new_calls() -> None:
    which = splitter(10)
    which.change(wall_ms=NOW, who="ops", why="x", percent=60, cap=40)
    assert which.present(NOW).share == 10
    assert which.present(NOW + SETTLED).share == 40

    which.change(wall_ms=NOW + HOUR, who="ops", why="fire", kill=True)
    assert which.present(NOW + HOUR).share == 0
    assert which.present(NOW).kill  # even by a clock that went back


RULES = Entry("mcp", "webhook", percent=10, salt="s", at_ms=NOW)


@pytest.mark.parametrize(
    ("by_hand", "edit", "expected"),
    [
        ({}, {}, None),
        ({"percent": 40}, {}, None),
        ({"percent": 40}, {"percent": 20.0}, {"percent": 20}),
        ({"percent": 20}, {"percent": 20.0}, None),
        ({"percent": 0, "cap": 0}, {"salt": "t"}, {"salt": "t", "percent": 0, "cap": 0}),
        ({"cap": 0}, {"cap": 50.0}, {"cap": 50, "percent": 10}),
        ({"kill": True}, {"percent": 20.0}, {"kill": True, "percent": 20}),
        ({"kill": True}, {"kill": False}, None),  # it was false in the file before, too
        ({}, {"kill": True}, {"kill": True, "scope": Scope.ALL_CALLS}),
        ({"percent": 40}, {"overrides": (STAGING,)}, {"overrides": (STAGING,), "percent": 40}),
    ],
)
def test_newly_loaded_rules_count_where_they_differ_from_those_before(
    by_hand: Mapping[str, Any], edit: Mapping[str, Any], expected: Mapping[str, Any] | None
) -> None:
    which = Splitter(RULES)
    if by_hand:
        which.change(wall_ms=NOW + 1, who="ops", why="by hand", **by_hand)
    before = which.history.latest
    entry = which.sync(replace(RULES, at_ms=NOW + HOUR, who="rules", why="reload", **edit))

    assert (entry is None) is (expected is None)
    if entry is not None and expected is not None:
        assert {key: getattr(entry, key) for key in expected} == expected
        assert (entry.who, entry.why, entry.at_ms) == ("rules", "reload", NOW + HOUR)
        assert entry.epoch == before.epoch + 1


def test_each_load_is_compared_with_the_one_before() -> None:
    which = Splitter(RULES)
    assert which.sync(replace(RULES, percent=20, at_ms=NOW + 1)) is not None
    which.change(wall_ms=NOW + 2, who="ops", why="by hand", percent=70)

    assert which.sync(replace(RULES, percent=20, at_ms=NOW + 3)) is None
    assert which.sync(replace(RULES, percent=10, at_ms=NOW + 4)) is not None
    assert which.history.latest.percent == 10


# --- arms that leave the rules -------------------------------------------------------------------


def test_a_live_call_stays_at_an_arm_that_left_the_split_but_not_the_rules() -> None:
    which = splitter(100)
    which.decide(call("c"), wall_ms=NOW)
    which.sync(
        Entry("tools", "webhook", percent=100, salt="s", at_ms=NOW + 1),
        arms=("mcp", "tools", "webhook"),
    )
    wall = NOW + HOUR

    assert which.decide(call("c"), wall_ms=wall).arm == "mcp"
    assert which.decide(call("d", wall), wall_ms=wall).arm == "tools"


@pytest.mark.parametrize(("percent", "heir"), [(100, "mcp2"), (0, "hook2")])
def test_a_call_whose_arm_is_gone_goes_to_the_one_in_its_place(percent: float, heir: str) -> None:
    which = splitter(percent)
    which.decide(call("c"), wall_ms=NOW)
    which.sync(Entry("mcp2", "hook2", percent=50, salt="s", at_ms=NOW + 1))

    assert which.decide(call("c"), wall_ms=NOW + 2) == Decision(heir, Reason.RECORDED)
    assert which.look(call("c"), wall_ms=NOW + 2).decision == Decision(heir, Reason.RECORDED)
    which.records.drop("c")
    assert which.decide(call("c"), wall_ms=NOW + 2) == Decision(heir, Reason.SHARE)
    assert which.decide(call(None), wall_ms=NOW + HOUR).arm == "hook2"


def test_no_request_is_sent_to_an_arm_that_is_gone_before_the_change_settles() -> None:
    which = splitter(0)
    which.sync(Entry("mcp2", "hook2", at_ms=NOW))

    assert which.decide(call(None), wall_ms=NOW + 1) == Decision("hook2", Reason.NO_CALL_ID)
    assert which.decide(call("c"), wall_ms=NOW + 1) == Decision("hook2", Reason.SHARE)


# --- the end of a call ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "recorded", "live"),
    [
        ("call_started", 1, 1),
        ("call_ended", 1, 0),
        ("chat_ended", 1, 0),
        ("call_analyzed", 0, 0),
        ("chat_analyzed", 0, 0),
    ],
)
def test_events_end_a_call(event: str, recorded: int, live: int) -> None:
    which = splitter(100)
    seen = call("c", kind=Kind.EVENT, event=event)
    which.decide(seen, wall_ms=NOW)
    which.observe(seen)

    assert len(which.records) == recorded
    assert which.live("mcp", NOW) == live


def test_what_has_no_call_id_or_event_ends_nothing() -> None:
    which = splitter(100)
    which.decide(call("c"), wall_ms=NOW)
    which.observe(call("c"))
    which.observe(call(None, event="call_analyzed"))

    assert which.live("mcp", NOW) == 1


# --- looking -------------------------------------------------------------------------------------

CALLS = st.builds(
    call,
    st.none() | st.sampled_from(IDS[:4]),
    st.none() | st.integers(NOW - 5_000, NOW + 70_000),
    kind=st.sampled_from([Kind.FUNCTION, Kind.INBOUND, Kind.EVENT]),
    agent_id=st.sampled_from(["agent_staging", "b", "c"]),
    tool=st.sampled_from(["book_appointment", "get_slots"]),
)
ACTIONS = st.one_of(
    st.tuples(st.just("ask"), CALLS, st.none() | st.sampled_from(["mcp", "webhook", "nowhere"])),
    st.tuples(st.just("share"), st.integers(0, 100), st.none()),
    st.tuples(st.just("kill"), st.booleans(), st.none()),
    st.tuples(st.just("reload"), st.sampled_from(["mcp", "mcp2"]), st.none()),
)


@given(st.lists(st.tuples(st.integers(0, 1_000), ACTIONS), max_size=25))
def test_looking_tells_what_deciding_does_and_leaves_no_trace(steps: list[Any]) -> None:
    overrides = (NO_BOOKING, STAGING, Override({"agent_id": "b"}, percent=50.0))
    which, wall = splitter(40, overrides=overrides), NOW
    for gap, (action, what, forced) in steps:
        wall += gap
        match action:
            case "ask":
                known = len(which.records)
                look = which.look(what, wall_ms=wall, forced=forced)
                assert len(which.records) == known
                assert look.decision == which.decide(what, wall_ms=wall, forced=forced)
                assert look.decision.arm in {"mcp", "mcp2", "webhook"}
            case "share":
                which.change(wall_ms=wall, who="ops", why="", percent=float(what))
            case "kill":
                which.change(wall_ms=wall, who="ops", why="", kill=what)
            case "reload":
                rules = Entry(what, "webhook", percent=40, salt="s", at_ms=wall)
                arms = tuple(
                    replace(each, to=what) if each.to == "mcp" else each for each in overrides
                )
                which.sync(replace(rules, overrides=arms))
