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


READ, IDEMPOTENT, WRITE = Effect.READ, Effect.IDEMPOTENT, Effect.WRITE


def effect(tools: ToolTable, name: str, kind: Kind = Kind.FUNCTION) -> Effect:
    return tools.terms(call(name, kind, "tools/call")).effect


@pytest.mark.parametrize("kind", [Kind.FUNCTION, Kind.ARGS, Kind.TOOLS, Kind.MCP])
def test_a_tool_that_its_server_calls_read_only_is_a_read(kind: Kind) -> None:
    tools = table(default={"budget": "3s"}, named={"budget": "4s"})
    tools.learn("mcp", {"named": READ, "unnamed": READ, "book": WRITE})

    for name, budget in (("named", 4.0), ("unnamed", 3.0)):
        terms = tools.terms(call(name, kind, "tools/call"))
        assert (terms.effect, terms.safe, terms.linger, terms.replay_for) == (READ, True, 0.0, None)
        assert terms.budget == budget
    assert effect(tools, "book", kind) is WRITE
    assert effect(tools, "never_listed", kind) is WRITE


def test_an_operators_word_outranks_the_servers() -> None:
    tools = table(
        default={"effect": "read"},
        write={"effect": "write"},
        once={"effect": "idempotent"},
        hinted={"annotations": {"readOnlyHint": False}},
    )
    tools.learn("mcp", dict.fromkeys(("write", "once", "hinted", "other"), READ))

    assert effect(tools, "write") is WRITE
    assert effect(tools, "once") is IDEMPOTENT
    assert effect(tools, "hinted") is WRITE
    assert effect(tools, "other") is READ


def test_what_is_idempotent_on_one_server_is_a_write_to_two_arms() -> None:
    """Once there and once on the other arm may be two bookings."""
    tools = table(named={})
    tools.learn("mcp", {"named": IDEMPOTENT, "unnamed": IDEMPOTENT})

    for name in ("named", "unnamed"):
        assert effect(tools, name) is WRITE
        assert not tools.terms(call(name)).safe


def test_a_hint_that_goes_away_is_forgotten_at_once() -> None:
    tools = table(default={"effect": "write"}, named={})
    tools.learn("mcp", {"named": READ, "unnamed": READ})
    tools.learn("mcp", {"named": WRITE})

    assert effect(tools, "named") is WRITE
    assert effect(tools, "unnamed") is WRITE


def test_hints_are_in_the_servers_own_names() -> None:
    tools = table(
        slots={"names": {"mcp": "checkSlots"}},
        same={"names": {"mcp": "checkSlots"}},
        book={"names": {"mcp": "createBooking"}},
        other={"names": {"webhook": "checkSlots"}},
    )
    tools.learn("mcp", {"checkSlots": READ, "book": READ, "slots": READ})

    assert effect(tools, "slots") is READ
    assert effect(tools, "same") is READ
    assert effect(tools, "book") is WRITE  # the server's `book` is not what the rules call so
    assert effect(tools, "other") is WRITE
    assert effect(tools, "checkSlots") is WRITE  # nobody but MCP callers says so, and as `slots`


def test_of_two_servers_the_one_that_warns_is_heard() -> None:
    tools = table()
    tools.learn("one", {"both": READ, "torn": READ, "alone": READ})
    tools.learn("two", {"both": READ, "torn": WRITE})

    assert effect(tools, "both") is READ
    assert effect(tools, "torn") is WRITE
    assert effect(tools, "alone") is READ


def test_a_read_by_hint_may_be_hedged_where_the_rules_hedge() -> None:
    tools = table(default={"hedge": True})
    tools.learn("mcp", {"slots": READ})

    assert tools.terms(call("slots")).hedge


def test_hints_do_not_open_the_labels() -> None:
    tools = table(slots={})
    tools.learn("mcp", {"unnamed": READ})

    assert tools.names == {"slots"}
    assert [tool.name for tool in tools.ruled] == ["slots"]


def test_an_mcp_caller_may_say_a_tool_as_its_server_does() -> None:
    tools = table(slots={"names": {"mcp": "checkSlots", "webhook": "free"}}, book={})
    assert tools.known("checkSlots") == "checkSlots"

    tools.speak_as(["mcp"])

    assert tools.known("checkSlots") == "slots"
    for name in ("slots", "book", "free", "never_heard_of"):
        assert tools.known(name) == name


def test_tools_may_trade_their_names_on_an_arm() -> None:
    tools = table(a={"names": {"mcp": "b"}}, b={"names": {"mcp": "a"}})
    tools.speak_as(["mcp"])

    assert (tools.known("a"), tools.known("b")) == ("b", "a")


def test_whose_own_name_it_is_answers_to_it() -> None:
    tools = table(alias={"names": {"mcp": "find"}}, find={})
    tools.speak_as(["mcp"])

    assert tools.known("find") == "find"


def test_of_two_arms_the_more_important_is_heard() -> None:
    tools = table(a={"names": {"one": "x"}}, b={"names": {"two": "x"}}, c={"names": {"two": "y"}})
    tools.speak_as(["one", "two"])

    assert (tools.known("x"), tools.known("y")) == ("a", "c")
