from __future__ import annotations

import pytest

from proxy.core.entry import Entry, Override
from proxy.core.look import heir, overruling, split_key
from proxy.core.model import Call, Decision, Head, Kind, Reason, Session

HEAD = Head("POST", "/mcp", "", {}, [], b"localhost", "127.0.0.1")
SESSION = Session("0" * 31 + "1", "mcp", "2025-06-18", 1_767_225_600_000)
BOOKING = {"tool": "book"}


@pytest.mark.parametrize(
    ("call_id", "session", "key"),
    [
        ("call_1", None, "call_1"),
        ("call_1", SESSION, "call_1"),
        (None, SESSION, SESSION.id),
        (None, None, None),
    ],
)
def test_a_request_is_split_by_its_call_else_by_its_session(
    call_id: str | None, session: Session | None, key: str | None
) -> None:
    assert split_key(Call(Kind.MCP, HEAD, id=call_id, session=session)) == key


@pytest.mark.parametrize("of_tool_is_test", [False, True])
@pytest.mark.parametrize(
    ("agent", "forced", "outranks"),
    [("agent_a", False, False), ("agent_staging", False, True), ("agent_a", True, True)],
)
def test_force_and_test_overrides_outrank_one_by_tool(
    agent: str, forced: bool, outranks: bool, of_tool_is_test: bool
) -> None:
    booking = Override(BOOKING, to="webhook", test=of_tool_is_test)
    staging = Override({"agent_id": "agent_staging"}, to="mcp", test=True)
    entry = Entry("mcp", "webhook", percent=100, overrides=(booking, staging))
    fields = {"tool": "book", "agent_id": agent}
    ruling = entry.force("mcp") if forced else entry.rule("call_1", fields)

    found = overruling(entry, ruling, fields)
    assert found == (None if forced or (outranks and not of_tool_is_test) else booking)


def test_of_a_session_nothing_is_known_that_could_outrank_it() -> None:
    booking = Override(BOOKING, to="webhook")
    entry = Entry("mcp", "webhook", percent=100, overrides=(booking,))

    assert overruling(entry, None, {"tool": "book"}) == booking
    assert overruling(entry, None, {"tool": "slots"}) is None


@pytest.mark.parametrize(("arm", "now"), [("mcp", "mcp2"), ("webhook", "hook2"), ("x", "hook2")])
def test_an_arm_that_left_the_rules_has_an_heir_on_its_own_side(arm: str, now: str) -> None:
    decided = Decision(arm, Reason.RECORDED)

    assert heir(decided, Entry("mcp", "webhook"), Entry("mcp2", "hook2")) == Decision(
        now, Reason.RECORDED
    )
