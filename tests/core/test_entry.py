from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from proxy.core.entry import Entry, Override
from proxy.core.model import Decision, Reason
from proxy.core.rules.secret import SecretRef
from proxy.core.rules.split import Split
from proxy.core.split import call_hash, in_share

IDS = [f"call_{number}" for number in range(400)]
STAGING = {"agent_id": "agent_staging"}
AT_42 = {"metadata.company_id": 42}


def entry(*overrides: Override, **terms: Any) -> Entry:
    return Entry("mcp", "webhook", salt="s", overrides=overrides, **terms)


def arms(which: Entry, fields: Mapping[str, object] | None = None) -> set[tuple[str, str]]:
    decisions = [which.rule(call_id, fields or {}).decision for call_id in IDS]
    return {(decision.arm, decision.reason.value) for decision in decisions}


def test_the_share_decides_by_the_hash() -> None:
    half = entry(percent=50)
    for call_id in IDS:
        inside = in_share(call_hash(call_id, "s"), 50)
        assert half.rule(call_id, {}).decision == Decision(
            "mcp" if inside else "webhook", Reason.SHARE
        )


def test_zero_and_a_hundred_are_exact() -> None:
    assert arms(entry(percent=0)) == {("webhook", "share")}
    assert arms(entry(percent=100)) == {("mcp", "share")}


def test_the_cap_bounds_the_share_and_says_so() -> None:
    capped = entry(percent=50, cap=10)
    for call_id in IDS:
        hashed, decision = call_hash(call_id, "s"), capped.rule(call_id, {}).decision
        if in_share(hashed, 10):
            assert decision == Decision("mcp", Reason.SHARE)
        elif in_share(hashed, 50):
            assert decision == Decision("webhook", Reason.CAP)
        else:
            assert decision == Decision("webhook", Reason.SHARE)


def test_an_override_outranks_the_share_but_not_the_cap() -> None:
    to_new = Override(STAGING, to="mcp")

    assert arms(entry(to_new), STAGING) == {("mcp", "override")}
    assert arms(entry(to_new, cap=0), STAGING) == {("webhook", "cap")}
    assert arms(entry(to_new, percent=100), {"agent_id": "x"}) == {("mcp", "share")}


def test_an_override_can_keep_calls_away() -> None:
    away = entry(Override(STAGING, to="webhook"), percent=100)

    assert arms(away, STAGING) == {("webhook", "override")}


def test_an_override_can_have_a_share_of_its_own() -> None:
    own = entry(Override(AT_42, percent=50.0), percent=0)
    inside = sum(own.rule(call_id, AT_42).decision.arm == "mcp" for call_id in IDS)

    assert inside == sum(in_share(call_hash(call_id, "s"), 50) for call_id in IDS)


def test_the_first_override_that_holds_wins() -> None:
    both: dict[str, object] = {**STAGING, **AT_42}
    first = entry(Override(AT_42, to="webhook"), Override(STAGING, to="mcp"))

    assert arms(first, both) == {("webhook", "override")}
    assert arms(first, dict(STAGING)) == {("mcp", "override")}


def test_an_override_marked_test_outranks_cap_and_all_others() -> None:
    tested = entry(Override(AT_42, to="webhook"), Override(STAGING, to="mcp", test=True), cap=0)

    assert arms(tested, {**STAGING, **AT_42}) == {("mcp", "override")}


def test_the_kill_switch_outranks_everything() -> None:
    killed = entry(Override(STAGING, to="mcp", test=True), percent=100, kill=True)

    assert arms(killed, STAGING) == {("webhook", "kill_switch")}
    assert killed.force("mcp").decision == Decision("webhook", Reason.KILL_SWITCH)
    assert killed.share == 0
    assert killed.effective(STAGING) == 0


def test_a_forced_arm_is_taken() -> None:
    assert entry(cap=0).force("mcp").decision == Decision("mcp", Reason.FORCED)


@pytest.mark.parametrize(
    ("terms", "share"),
    [({"percent": 30}, 30), ({"percent": 30, "cap": 10}, 10), ({"percent": 30, "kill": True}, 0)],
)
def test_the_share_in_force_respects_cap_and_kill_switch(
    terms: dict[str, Any], share: float
) -> None:
    assert entry(**terms).share == share


def test_later_requests_of_a_killed_call_say_why_it_is_there() -> None:
    assert entry(percent=100).rule("call_1", {}).again == Decision("mcp", Reason.RECORDED)
    assert entry(kill=True).rule("call_1", {}).again == Decision("webhook", Reason.KILL_SWITCH)


def test_an_override_by_tool_speaks_of_requests_not_of_calls() -> None:
    booking = Override({"tool": "book", "agent_id": "a"}, to="webhook")
    which = entry(booking, percent=100)

    assert arms(which, {"tool": "book", "agent_id": "a"}) == {("mcp", "share")}
    assert [override for _, override in which.by_request] == [booking]
    assert which.overruled == Decision("webhook", Reason.OVERRIDE)
    assert which.paths == ("agent_id",)  # the tool is never frozen


@pytest.mark.parametrize("override", [{"to": "mcp"}, {"percent": 1.0}])
def test_an_override_by_tool_or_header_cannot_lead_to_the_new_arm(override: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="tool or header"):
        entry(Override({"header.x-test": "1"}, **override))


def test_an_override_by_header_may_be_written_as_zero_percent() -> None:
    assert entry(Override({"header.x-test": "1"}, percent=0.0)).by_request


@pytest.mark.parametrize("terms", [{"percent": 101}, {"cap": -1}, {"percent": float("nan")}])
def test_an_impossible_percentage_is_refused(terms: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="percentage"):
        entry(**terms)


def test_an_override_to_no_arm_of_the_split_is_refused() -> None:
    with pytest.raises(ValueError, match="'demo'"):
        entry(Override(STAGING, to="demo"))


def test_terms_tell_one_from_true() -> None:
    """They are equal in Python, but not to a matcher."""
    one, true = (entry(Override({"metadata.x": value}, to="mcp")) for value in (1, True))

    assert one.terms != true.terms
    assert one.terms == replace(one, at_ms=5, who="ops", why="because", epoch=3).terms


def test_a_salt_is_not_shown() -> None:
    assert "hush" not in repr(Entry("mcp", "webhook", salt="hush"))


def test_an_entry_is_made_from_the_rules() -> None:
    split = Split.model_validate(
        {
            "percent": 12.5,
            "cap": 40.0,
            "salt": SecretRef("env:SALT"),
            "overrides": [{"when": STAGING, "to": "mcp", "test": True}],
            "enabled": False,
        }
    )
    made = Entry.from_rules(split, salt="resolved", at_ms=7, why="reload")

    assert (made.to, made.otherwise, made.percent, made.cap) == ("mcp", "webhook", 12.5, 40)
    assert (made.salt, made.kill, made.at_ms, made.who, made.why) == (
        "resolved", True, 7, "rules", "reload",
    )  # fmt: skip
    assert made.overrides == (Override(STAGING, to="mcp", test=True),)
