from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.entry import Entry, Override
from proxy.core.explain import STEPS, Explanation, explain
from proxy.core.matchers import Fields
from proxy.core.model import Call, Head, Kind, Session
from proxy.core.split import RANGE, call_hash, in_share
from proxy.core.splitter import Splitter

NOW = 1_767_225_600_000
HOUR = 3_600_000
HEAD = Head("POST", "/retell", "", {}, [], b"localhost", "127.0.0.1")
TENANT = Override({"metadata.company_id": 42}, percent=80.0)
BOOKING = Override({"tool": "book"}, to="webhook")
INSIDE = next(f"call_{n}" for n in range(1000) if call_hash(f"call_{n}", "s") < RANGE // 20)
OUTSIDE = next(f"call_{n}" for n in range(1000) if call_hash(f"call_{n}", "s") > RANGE * 19 // 20)


def fields_of(call: Call) -> Fields:
    found: dict[str, object] = json.loads(call.body)
    return found


def splitter(percent: float = 10, **terms: Any) -> Splitter:
    entry = Entry(
        "mcp", "webhook", percent=percent, salt="s", at_ms=NOW - HOUR, who="rules", **terms
    )
    return Splitter(entry, fields_of=fields_of)


def call(call_id: str | None, start_ms: int | None = NOW, **fields: Any) -> Call:
    return Call(Kind.FUNCTION, HEAD, json.dumps(fields).encode(), id=call_id, start_ms=start_ms)


def told(which: Splitter, asked: Call, *, forced: str | None = None) -> Explanation:
    return explain(which, asked, NOW, forced=forced)


def test_the_share_is_explained_by_hash_threshold_and_percentage() -> None:
    inside, outside = told(splitter(), call(INSIDE)), told(splitter(), call(OUTSIDE))

    assert (inside.arm, inside.reason) == ("mcp", "share")
    assert inside.hashed == call_hash(INSIDE, "s")
    assert inside.threshold == round(RANGE / 10)
    assert inside.fraction is not None
    assert f"lies at {inside.fraction * 100:.4f} %, within the 10 % of the share" in inside.because
    assert (outside.arm, outside.percent) == ("webhook", 10)
    assert "beyond the 10 % of the share" in outside.because


@given(st.integers(0, 5_000))
def test_the_smallest_share_that_contains_a_call_is_exact(number: int) -> None:
    explained = told(splitter(), call(f"call_{number}"))

    assert explained.hashed is not None
    assert explained.joins_at is not None
    assert in_share(explained.hashed, explained.joins_at)
    assert not in_share(explained.hashed, explained.joins_at - 0.01)


def test_the_cap_is_explained() -> None:
    capped = told(splitter(100, cap=50), call(OUTSIDE))
    assert (capped.arm, capped.reason, capped.percent) == ("webhook", "cap", 50)
    assert "within the share (100 %) but beyond the cap of 50 %" in capped.because

    tenant = told(
        splitter(0, cap=50, overrides=(TENANT, Override({"agent_id": "a"}, to="mcp"))),
        call(OUTSIDE, agent_id="a"),
    )
    assert "within override 2 (100 %) but beyond the cap" in tenant.because


def test_an_override_is_explained_with_its_number() -> None:
    which = splitter(0, overrides=(BOOKING, TENANT))
    explained = told(which, call(INSIDE, **{"metadata.company_id": 42}))

    assert (explained.arm, explained.reason) == ("mcp", "override")
    assert "within the 80 % of override 2" in explained.because
    assert [trace.used for trace in explained.overrides] == [False, True]


def test_an_override_by_tool_is_explained_as_one_of_this_request() -> None:
    explained = told(splitter(100, overrides=(BOOKING,)), call(INSIDE, tool="book"))

    assert (explained.arm, explained.because) == ("webhook", "override 1 speaks of this request")


def test_the_kill_switch_and_force_are_explained() -> None:
    killed = told(splitter(100, kill=True), call(INSIDE), forced="mcp")
    assert (killed.arm, killed.reason, killed.percent) == ("webhook", "kill_switch", 0)
    assert "kill switch is on" in killed.because

    forced = told(splitter(0), call(OUTSIDE), forced="mcp")
    assert (forced.arm, forced.reason) == ("mcp", "forced")
    assert "force token" in forced.because


def test_a_call_without_an_id_is_explained() -> None:
    explained = told(splitter(100), call(None))

    assert (explained.arm, explained.reason) == ("webhook", "no_call_id")
    assert explained.because == "the request carries no usable call ID (a placeholder is none)"
    assert (explained.hashed, explained.percent, explained.threshold, explained.joins_at) == (
        None, None, None, None,
    )  # fmt: skip
    assert (explained.steps, explained.judged_by, explained.judged_ms) == ((), "now", NOW)


def test_the_record_is_shown_and_stands() -> None:
    which = splitter(10)
    which.decide(call(INSIDE), wall_ms=NOW)
    which.change(wall_ms=NOW - HOUR // 2, who="ops", why="too slow", percent=0)
    explained = told(which, call(INSIDE))

    assert (explained.arm, explained.reason) == ("mcp", "recorded")
    assert explained.because == "decided before, by share, and on record"
    assert (explained.judged_by, explained.judged_ms) == ("the call's record", None)
    record = explained.record
    assert record is not None
    assert (record.arm, record.reason, record.start_ms, record.ended) == (
        "mcp",
        "share",
        NOW,
        False,
    )
    assert (explained.entry.percent, explained.entry.who) == (10, "rules")


def test_explaining_leaves_no_record() -> None:
    which = splitter()
    told(which, call(INSIDE))

    assert len(which.records) == 0
    assert told(which, call(INSIDE)).record is None


@pytest.mark.parametrize(
    ("start_ms", "percent", "judged_by", "judged_ms"),
    [
        (NOW - HOUR // 2 - 1, 10, "the call's own start", NOW - HOUR // 2 - 1),
        (NOW - 1, 20, "the call's own start", NOW - 1),
        (None, 20, "now", NOW),
        (NOW + HOUR, 20, "now", NOW),
    ],
)
def test_the_entry_used_is_shown_with_who_why_and_the_moment(
    start_ms: int | None, percent: float, judged_by: str, judged_ms: int
) -> None:
    which = splitter(10)
    which.change(wall_ms=NOW - HOUR // 2, who="ops", why="looks good", percent=20)
    explained = told(which, call("call_x", start_ms))

    assert explained.entry.percent == percent
    assert (explained.entry.who, explained.entry.why) == (
        ("ops", "looks good") if percent == 20 else ("rules", "")
    )
    assert (explained.judged_by, explained.judged_ms) == (judged_by, judged_ms)


@pytest.mark.parametrize("recorded", [True, False])
def test_a_call_that_the_kill_switch_found_is_judged_by_that_moment(recorded: bool) -> None:
    which = splitter(100)
    if recorded:
        which.decide(call(INSIDE, NOW - HOUR), wall_ms=NOW - HOUR)
    which.change(wall_ms=NOW - 2000, who="ops", why="fire", kill=True)
    which.change(wall_ms=NOW - 1000, who="ops", why="out", kill=False)
    explained = told(which, call(INSIDE, NOW - HOUR))

    assert (explained.arm, explained.reason) == ("webhook", "kill_switch")
    assert explained.judged_by == "the last change for all calls"
    assert explained.judged_ms == NOW - 2000
    assert explained.entry.why == "fire"


@given(
    st.integers(0, 500), st.sampled_from([0.0, 10.0, 50.0, 100.0]), st.sampled_from([30.0, 100.0])
)
def test_the_steps_tell_where_a_new_call_would_go(number: int, percent: float, cap: float) -> None:
    call_id = f"call_{number}"
    steps = told(splitter(percent, cap=cap), call(call_id)).steps
    arm = "mcp" if in_share(call_hash(call_id, "s"), min(percent, cap)) else "webhook"

    assert [step.percent for step in steps] == list(STEPS)
    for step in steps:
        inside = in_share(call_hash(call_id, "s"), min(step.percent, cap))
        assert step.arm == ("mcp" if inside else "webhook")
        assert step.changes is (step.arm != arm)


def test_steps_respect_the_overrides() -> None:
    which = splitter(10, overrides=(Override({"agent_id": "a"}, to="webhook"),))

    assert {step.arm for step in told(which, call(INSIDE, agent_id="a")).steps} == {"webhook"}


def test_an_explanation_becomes_plain_values_without_the_salt() -> None:
    which = Splitter(Entry("mcp", "webhook", salt="hush", overrides=(TENANT,)), fields_of=fields_of)
    which.decide(call("c"), wall_ms=NOW)
    plain = told(which, call("c")).to_dict()

    assert json.loads(orjson.dumps(plain)) == plain
    assert "hush" not in json.dumps(plain)
    assert plain["entry"]["scope"] == "new_calls"
    assert plain["overrides"][0]["when"] == {"metadata.company_id": 42}


# --- MCP sessions --------------------------------------------------------------------------------


def in_session(arm: str, issued_ms: int = NOW, **fields: Any) -> Call:
    asked = call(None, None, **fields)
    asked.kind, asked.tool = Kind.MCP, fields.get("tool")
    asked.session = Session("0" * 31 + "1", arm, "2025-06-18", issued_ms)
    return asked


def test_a_session_that_has_its_arm_is_explained_by_its_token() -> None:
    explained = told(splitter(0, overrides=(TENANT,)), in_session("mcp"))

    assert (explained.arm, explained.reason) == ("mcp", "recorded")
    assert explained.because == "the token of its MCP session names this arm"
    assert (explained.judged_by, explained.judged_ms) == ("the token of its MCP session", None)
    assert [each.why for each in explained.overrides] == ["not asked: a session keeps its arm"]


def test_an_override_by_tool_is_explained_where_it_takes_a_sessions_tool_call() -> None:
    explained = told(splitter(100, overrides=(BOOKING,)), in_session("mcp", tool="book"))

    assert (explained.arm, explained.because) == ("webhook", "override 1 speaks of this request")


def test_a_session_that_has_no_arm_yet_is_explained_by_its_own_hash() -> None:
    draft = in_session("")
    explained = told(splitter(50), draft)

    assert draft.session is not None
    assert (explained.call_id, explained.reason) == (None, "share")
    assert explained.hashed == call_hash(draft.session.id, "s")
    assert "the 50 % of the share" in explained.because
    assert (explained.judged_by, explained.judged_ms) == ("now", NOW)
    assert [step.percent for step in explained.steps] == list(STEPS)


@pytest.mark.parametrize("issued_ms", [NOW - HOUR, NOW + 10 * HOUR])
def test_a_session_that_the_kill_switch_found_is_judged_by_that_moment(issued_ms: int) -> None:
    which = splitter(100)
    which.change(wall_ms=NOW - 2, who="ops", why="fire", kill=True)
    which.change(wall_ms=NOW - 1, who="ops", why="out", kill=False)
    explained = told(which, in_session("mcp", issued_ms))

    assert (explained.arm, explained.reason) == ("webhook", "kill_switch")
    assert explained.judged_by == "the last change for all calls"
    assert explained.judged_ms == NOW - 2
