from __future__ import annotations

from typing import Any

import pytest

from proxy.core.model import Call, Effect, Head, Kind
from proxy.core.rules.fallback import BUDGETS
from proxy.core.rules.tools import ToolEntry
from proxy.core.tool_table import ToolTable

HEAD = Head("POST", "/retell", "", {}, [], b"h", "127.0.0.1")


def table(**entries: dict[str, Any]) -> ToolTable:
    return ToolTable({k: ToolEntry.model_validate(v) for k, v in entries.items()}, BUDGETS)


def call(tool: str | None = None, kind: Kind = Kind.FUNCTION, method: str | None = None) -> Call:
    return Call(kind, HEAD, tool=tool, rpc_method=method)


def test_a_tool_nobody_wrote_down_is_a_write() -> None:
    assert table().terms(call("never_heard_of")).effect is Effect.WRITE


def test_a_tools_own_entry_outranks_the_default() -> None:
    tools = table(default={"effect": "read"}, book={"effect": "write"})

    assert tools.terms(call("book")).effect is Effect.WRITE
    assert tools.terms(call("other")).effect is Effect.READ


def test_idempotent_holds_only_where_the_tool_itself_says_so() -> None:
    """A default cannot know whether a tool is idempotent across two different arms."""
    tools = table(default={"effect": "idempotent"}, put={"effect": "idempotent"})

    assert tools.terms(call("put")).effect is Effect.IDEMPOTENT
    assert tools.terms(call("other")).effect is Effect.WRITE


@pytest.mark.parametrize("method", ["tools/list", "ping", "initialize", None])
def test_an_mcp_request_that_runs_no_tool_only_reads(method: str | None) -> None:
    assert table().terms(call(None, Kind.MCP, method)).effect is Effect.READ


def test_an_mcp_tools_call_is_judged_by_its_tool() -> None:
    tools = table(slots={"effect": "read"})

    assert tools.terms(call("slots", Kind.MCP, "tools/call")).effect is Effect.READ
    assert tools.terms(call("book", Kind.MCP, "tools/call")).effect is Effect.WRITE


def test_the_budget_is_the_tools_own_or_that_of_its_kind() -> None:
    tools = table(slow={"effect": "read", "budget": "8s"})

    assert tools.terms(call("slow")).budget == 8.0
    assert tools.terms(call("quick")).budget == 5.0
    assert tools.terms(call(None, Kind.EVENT)).budget == 9.0
    assert tools.terms(call(None, Kind.OTHER)).budget == 0.0


def test_only_a_write_lingers() -> None:
    tools = table(book={"effect": "write", "linger": "12s"}, slots={"effect": "read"})

    assert tools.terms(call("book")).linger == 12.0
    assert tools.terms(call("slots")).linger == 0.0
    assert tools.terms(call(None, Kind.EVENT)).linger == 0.0


def test_only_what_reads_is_ever_hedged() -> None:
    tools = table(default={"hedge": True}, slots={"effect": "read"}, once={"effect": "idempotent"})

    assert tools.terms(call("slots")).hedge
    for tool in ("once", "other"):
        assert not tools.terms(call(tool)).hedge
    assert not tools.terms(call(None, Kind.MCP, "ping")).hedge
    assert not table(slots={"effect": "read"}).terms(call("slots")).hedge


def test_the_names_are_those_of_the_rules_without_the_default() -> None:
    assert table(default={"effect": "read"}, book={}).names == {"book"}
