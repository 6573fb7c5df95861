"""Asked through `Splitter`, as the path does."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.entry import Entry, Override
from proxy.core.fields import fields
from proxy.core.model import Call, Decision, Head, Kind, Reason, Session
from proxy.core.records import LIVE_MS
from proxy.core.split import call_hash, in_share
from proxy.core.splitter import Splitter

NOW = 1_767_225_600_000
HOUR, DAY = 3_600_000, 24 * 3_600_000
HEAD = Head("POST", "/mcp", "", {b"x-canary": b"no"}, [], b"localhost", "127.0.0.1")
NO_BOOKING = Override({"tool": "book"}, to="webhook")
NO_CANARY = Override({"header.x-canary": "no"}, to="webhook")
IDS = [f"{number:032x}" for number in range(1, 201)]


def session(arm: str = "mcp", issued_ms: int = NOW, id: str = IDS[0]) -> Session:
    return Session(id, arm, "2025-06-18", issued_ms)


def call(of: Session | None, call_id: str | None = None, tool: str | None = None) -> Call:
    method = "tools/list" if tool is None else "tools/call"
    return Call(Kind.MCP, HEAD, id=call_id, tool=tool, rpc_id=b"1", rpc_method=method, session=of)


def splitter(percent: float = 50, *, at_ms: int = NOW - HOUR, **terms: Any) -> Splitter:
    entry = Entry("mcp", "webhook", percent=percent, salt="s", at_ms=at_ms, **terms)
    return Splitter(entry, fields_of=fields)


def decide(which: Splitter, asked: Call, wall_ms: int, forced: str | None = None) -> Decision:
    """What is decided, and that looking tells the same and leaves no trace."""
    known = len(which.records)
    look = which.look(asked, wall_ms=wall_ms, forced=forced)
    assert len(which.records) == known
    assert look.decision == which.decide(asked, wall_ms=wall_ms, forced=forced)
    return look.decision


# --- a session that has its arm ----------------------------------------------------------------


@pytest.mark.parametrize("forced", [None, "mcp", "webhook", "nowhere"])
@pytest.mark.parametrize("call_id", [None, "call_1"])
@pytest.mark.parametrize("percent", [0.0, 100.0])
@pytest.mark.parametrize("arm", ["mcp", "webhook"])
def test_its_arm_outranks_share_cap_call_and_force(
    arm: str, percent: float, call_id: str | None, forced: str | None
) -> None:
    which = splitter(percent, cap=percent)

    decision = decide(which, call(session(arm), call_id), NOW, forced)
    assert decision == Decision(arm, Reason.RECORDED)
    assert len(which.records) == 0


def test_it_outranks_what_is_on_record_and_leaves_that_alone() -> None:
    which = splitter(0)
    assert decide(which, call(None, "call_1"), NOW).arm == "webhook"

    assert decide(which, call(session("mcp"), "call_1"), NOW).arm == "mcp"
    assert decide(which, call(None, "call_1"), NOW) == Decision("webhook", Reason.RECORDED)


def test_its_requests_keep_its_call_alive() -> None:
    """An operator who waits for the last call on an arm must see it."""
    which = splitter(100)
    opening = call(session("", NOW), "call_1")
    assert decide(which, opening, NOW) == Decision("mcp", Reason.SHARE)
    later = NOW + LIVE_MS + 60_000
    assert which.live("mcp", later) == 0

    decide(which, call(session("mcp"), "call_1"), later)
    assert which.live("mcp", later) == 1


def test_an_override_by_tool_takes_a_tool_call_away_and_not_the_session() -> None:
    which = splitter(100, overrides=(NO_BOOKING,))

    booking = call(session("mcp"), tool="book")
    assert decide(which, booking, NOW) == Decision("webhook", Reason.OVERRIDE)
    assert decide(which, call(session("mcp"), tool="slots"), NOW).arm == "mcp"
    assert decide(which, booking, NOW, "mcp") == Decision("mcp", Reason.RECORDED)
    assert decide(which, booking, NOW, "webhook").arm == "webhook"


def test_an_override_by_header_leaves_alone_what_runs_no_tool() -> None:
    """Pings, answers and the end of a session mean nothing to an arm that does not know it."""
    which = splitter(100, overrides=(NO_CANARY,))

    assert decide(which, call(session("mcp"), tool="slots"), NOW).arm == "webhook"
    assert decide(which, call(session("mcp")), NOW) == Decision("mcp", Reason.RECORDED)


def test_a_tool_call_is_judged_by_the_frozen_fields_of_its_call() -> None:
    rule = Override({"agent_id": "a", "tool": "book"}, to="webhook")
    which = splitter(100, overrides=(rule,))
    body = b'{"event":"call_started","call":{"call_id":"call_1","agent_id":"a"}}'
    started = Call(Kind.EVENT, HEAD, body, id="call_1", start_ms=NOW)
    which.decide(started, wall_ms=NOW)

    assert decide(which, call(session("mcp"), "call_1", "book"), NOW).arm == "webhook"
    assert decide(which, call(session("mcp"), "call_2", "book"), NOW).arm == "mcp"


@pytest.mark.parametrize(("arm", "heir"), [("mcp", "mcp2"), ("webhook", "hook2")])
def test_a_session_whose_arm_is_gone_goes_to_the_one_in_its_place(arm: str, heir: str) -> None:
    which = splitter(50)
    which.sync(Entry("mcp2", "hook2", percent=50, salt="s", at_ms=NOW + 1))

    asked = call(session(arm))
    assert decide(which, asked, NOW + HOUR) == Decision(heir, Reason.RECORDED)


def test_it_stays_at_an_arm_that_left_the_split_but_not_the_rules() -> None:
    which = splitter(50)
    mcp2 = Entry("mcp2", "webhook", percent=50, salt="s", at_ms=NOW + 1)
    which.sync(mcp2, arms=("mcp", "mcp2", "webhook"))

    assert decide(which, call(session("mcp")), NOW + HOUR).arm == "mcp"


SHARES = st.tuples(st.just("percent"), st.integers(0, 100))
CAPS = st.tuples(st.just("cap"), st.integers(0, 100))
SALTS = st.tuples(st.just("salt"), st.sampled_from(["s", "t", "u"]))
STEPS = st.lists(st.tuples(st.integers(0, HOUR), SHARES | CAPS | SALTS), max_size=12)


@given(st.sampled_from(IDS), STEPS, st.none() | st.just("call_1"), st.booleans())
def test_a_session_never_changes_arm_while_shares_go_up_and_down(
    id: str, steps: list[tuple[int, tuple[str, Any]]], call_id: str | None, elsewhere: bool
) -> None:
    """Here, and at a replica that has never heard of it or of its call."""
    which, wall = splitter(50), NOW
    draft = session("", NOW, id)
    opened = decide(which, call(draft, call_id), NOW)
    assert opened.reason is Reason.SHARE
    mine = session(opened.arm, NOW, id)
    for gap, (name, value) in steps:
        wall += gap
        which.change(wall_ms=wall, who="ops", why="", **{name: value})
        asked = splitter(7, at_ms=NOW) if elsewhere else which
        assert decide(asked, call(mine, call_id), wall) == Decision(opened.arm, Reason.RECORDED)


# --- the kill switch ---------------------------------------------------------------------------

AGES = st.lists(st.integers(-HOUR, 20_000), min_size=1, max_size=20, unique=True)
AFTERWARDS = st.lists(st.tuples(st.integers(0, HOUR), st.integers(0, 100)), max_size=10)


@given(AGES, AFTERWARDS, st.booleans(), st.none() | st.just("call_1"))
def test_the_kill_switch_takes_all_older_sessions_and_nothing_brings_them_back(
    ages: list[int], afterwards: list[tuple[int, int]], restarted: bool, call_id: str | None
) -> None:
    wall = NOW + 20_000
    older = [session("mcp", NOW + age, f"{n:032x}") for n, age in enumerate(ages)]
    if restarted:  # and its rules say so from the start
        which = splitter(100, kill=True, at_ms=wall)
    else:
        which = splitter(100)
        assert {decide(which, call(each), wall).arm for each in older} == {"mcp"}
        which.change(wall_ms=wall, who="ops", why="fire", kill=True)
    killed = Decision("webhook", Reason.KILL_SWITCH)
    assert {decide(which, call(each, call_id, "book"), wall) for each in older} == {killed}

    which.records.drop("call_1")  # begun anew below, at whichever arm
    which.change(wall_ms=wall + 1_000, who="ops", why="fire is out", kill=False)
    ends, after = NOW - HOUR + DAY, wall + 2_000
    assert decide(which, call(None, "call_1"), after) == Decision("mcp", Reason.SHARE)
    for gap, percent in [*afterwards, (0, 100)]:
        after += gap
        which.change(wall_ms=after, who="ops", why="", percent=percent)
        alive = [each for each in older if after <= min(ends, each.issued_ms + DAY)]
        for forced in (None, "mcp"):
            assert {decide(which, call(each, call_id), after, forced) for each in alive} <= {killed}


def test_a_session_that_began_after_it_is_left_alone() -> None:
    which = splitter(100)
    which.change(wall_ms=NOW, who="ops", why="fire", kill=True)
    draft = call(session("", NOW + 1))
    assert decide(which, draft, NOW + 1) == Decision("webhook", Reason.KILL_SWITCH)
    mine = call(session("webhook", NOW + 1))
    assert decide(which, mine, NOW + 2) == Decision("webhook", Reason.RECORDED)

    which.change(wall_ms=NOW + HOUR, who="ops", why="out", kill=False)
    assert decide(which, mine, NOW + 2 * HOUR) == Decision("webhook", Reason.RECORDED)
    new = call(session("mcp", NOW + 2 * HOUR))
    assert decide(which, new, NOW + 2 * HOUR) == Decision("mcp", Reason.RECORDED)


def test_one_of_the_same_moment_counts_as_older() -> None:
    which = splitter(100)
    which.change(wall_ms=NOW, who="ops", why="fire", kill=True)

    assert decide(which, call(session("mcp", NOW)), NOW).arm == "webhook"


def test_one_that_began_in_the_future_cannot_escape() -> None:
    """A clock that was wrong for a while must not keep a session on an arm that is on fire."""
    which = splitter(100)
    ahead = call(session("mcp", NOW + 10 * HOUR))
    assert decide(which, ahead, NOW).arm == "mcp"
    which.change(wall_ms=NOW + 1, who="ops", why="fire", kill=True)
    assert decide(which, ahead, NOW + 1) == Decision("webhook", Reason.KILL_SWITCH)
    which.change(wall_ms=NOW + 2, who="ops", why="out", kill=False)

    assert decide(which, ahead, NOW + HOUR) == Decision("webhook", Reason.KILL_SWITCH)


# --- a session that has no arm yet -------------------------------------------------------------


def test_without_a_call_id_it_is_split_by_its_own_id_and_not_recorded() -> None:
    which = splitter(50)
    for id in IDS:
        arm = "mcp" if in_share(call_hash(id, "s"), 50) else "webhook"
        assert decide(which, call(session("", NOW, id)), NOW) == Decision(arm, Reason.SHARE)
    assert len(which.records) == 0


def test_by_the_present_entry_like_a_call_without_a_start() -> None:
    which = splitter(0)
    which.change(wall_ms=NOW, who="ops", why="go", percent=100)

    assert decide(which, call(session("", NOW)), NOW + 499).arm == "webhook"
    assert decide(which, call(session("", NOW)), NOW + 500).arm == "mcp"


def test_with_a_call_id_it_is_split_and_recorded_like_any_request_of_the_call() -> None:
    which = splitter(50)
    arm = "mcp" if in_share(call_hash("call_1", "s"), 50) else "webhook"

    opening = call(session(""), "call_1")
    assert decide(which, opening, NOW) == Decision(arm, Reason.SHARE)
    assert decide(which, opening, NOW) == Decision(arm, Reason.RECORDED)


@pytest.mark.parametrize(
    ("terms", "forced", "decision"),
    [
        ({"percent": 100, "cap": 0}, None, Decision("webhook", Reason.CAP)),
        ({"percent": 0}, "mcp", Decision("mcp", Reason.FORCED)),
        ({"percent": 0}, "nowhere", Decision("webhook", Reason.SHARE)),
        ({"kill": True}, "mcp", Decision("webhook", Reason.KILL_SWITCH)),
        ({"percent": 100, "overrides": (NO_CANARY,)}, None, Decision("webhook", Reason.OVERRIDE)),
    ],
)
def test_it_is_decided_in_the_usual_order(
    terms: dict[str, Any], forced: str | None, decision: Decision
) -> None:
    assert decide(splitter(**terms), call(session("")), NOW, forced) == decision


def test_a_request_without_call_or_session_is_nobodys() -> None:
    which = splitter(100)

    assert decide(which, call(None), NOW) == Decision("webhook", Reason.NO_CALL_ID)
