from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.core.entry import Entry, Override
from proxy.core.matchers import Fields
from proxy.core.model import Call, Head, Kind
from proxy.core.override_trace import deciding, misfit, trace_overrides
from proxy.core.splitter import Splitter

NOW = 1_767_225_600_000
HEAD = Head("POST", "/retell", "", {}, [], b"localhost", "127.0.0.1")
STAGING = Override({"agent_id": "agent_staging"}, to="mcp", test=True)
TENANT = Override({"metadata.company_id": {"in": [42]}}, percent=100.0)
BOOKING = Override({"tool": "book"}, to="webhook")


def fields_of(call: Call) -> Fields:
    found: dict[str, object] = json.loads(call.body)
    return found


def trace(
    fields: dict[str, Any],
    *,
    call_id: str | None = "c",
    forced: str | None = None,
    percent: float = 0,
    **terms: Any,
) -> list[tuple[bool, str]]:
    overrides = (TENANT, BOOKING, STAGING)
    entry = Entry("mcp", "webhook", percent=percent, overrides=overrides, **terms)
    call = Call(Kind.FUNCTION, HEAD, json.dumps(fields).encode(), id=call_id)
    look = Splitter(entry, fields_of=fields_of).look(call, wall_ms=NOW, forced=forced)
    return [(each.used, each.why) for each in trace_overrides(look)]


def test_each_override_says_why_it_did_not_decide() -> None:
    assert trace({"agent_id": "b", "tool": "book"}) == [
        (False, "metadata.company_id is absent"),
        (False, "it holds, but the call goes there anyway"),
        (False, "agent_id is another"),
    ]


def test_the_one_that_decided_says_so() -> None:
    assert trace({"agent_id": "b", "metadata.company_id": 42}) == [
        (True, "it holds and comes first"),
        (False, "tool is absent"),
        (False, "agent_id is another"),
    ]


def test_one_that_is_outranked_says_so() -> None:
    both = {"agent_id": "agent_staging", "metadata.company_id": 42, "tool": "book"}

    assert trace(both) == [
        (False, "it holds, but another outranks it"),
        (False, "it holds, but another outranks it"),
        (True, "it holds and comes first"),
    ]


def test_one_by_tool_decides_for_the_request() -> None:
    assert trace({"tool": "book", "metadata.company_id": 42})[:2] == [
        (False, "it holds, but another outranks it"),
        (True, "it holds and comes first"),
    ]


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"kill": True}, "not asked: the kill switch outranks it"),
        ({"forced": "mcp"}, "not asked: the arm was forced"),
        ({"call_id": None}, "not asked: no call ID"),
    ],
)
def test_what_was_not_asked_says_so(how: dict[str, Any], why: str) -> None:
    assert trace({"metadata.company_id": 42}, **how) == [(False, why)] * 3


def test_a_trace_shows_the_override_as_the_rules_have_it() -> None:
    entry = Entry("mcp", "webhook", overrides=(TENANT, STAGING))
    call = Call(Kind.FUNCTION, HEAD, b"{}", id="c")
    look = Splitter(entry, fields_of=fields_of).look(call, wall_ms=NOW)
    first, second = trace_overrides(look)

    assert (first.number, first.leads_to, first.test, first.when) == (
        1, "100 %", False, TENANT.when,
    )  # fmt: skip
    assert (second.number, second.leads_to, second.test) == (2, "mcp", True)
    assert deciding(look) is None


@pytest.mark.parametrize(
    ("when", "why"),
    [
        ({"agent_id": "a"}, ""),
        ({"agent_id": "a", "from_number": "+1"}, "from_number is another"),
        ({"header.X-Test": "1"}, "header.X-Test is absent"),
        ({"any": [{"tool": "x"}]}, "`any` does not hold"),
        ({"not": {"agent_id": "a"}}, "`not` does not hold"),
    ],
)
def test_a_misfit_names_the_field_and_never_its_value(when: dict[str, Any], why: str) -> None:
    assert misfit(when, {"agent_id": "a", "from_number": "+4930123456"}) == why
