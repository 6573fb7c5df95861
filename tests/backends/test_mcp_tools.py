from __future__ import annotations

import pytest

from backends.base import BackendConfig, ToolConfig
from backends.mcp_listing import Listing
from backends.mcp_peer import Peer
from backends.mcp_sessions import Sessions
from backends.mcp_tools import Tools, hinted
from proxy.core.dialects.catalogue import Catalogue, Listed
from proxy.core.dialects.jsonrpc import RpcError, ToolResult
from proxy.core.model import Effect, Era, Reply
from tests.backends.told import Told

READ_ONLY = {"readOnlyHint": True}


def tools(**config: ToolConfig) -> Tools:
    peer = Peer("/mcp", [])
    peer.era = Era.MODERN
    known = BackendConfig("mcp", tools=config)
    listing = Listing(peer, Sessions(peer, known))
    listing.catalogue = Catalogue({"slots": Listed("slots", READ_ONLY), "book": Listed("book")})
    return Tools(known, listing)


def test_a_tool_may_have_another_name_there() -> None:
    one = tools(termine=ToolConfig(name="slots"))

    assert (one.here("termine"), one.here("book")) == ("slots", "book")
    assert one.is_read_only("termine")
    assert not one.is_read_only("book")


@pytest.mark.parametrize(
    ("tool", "rule", "may"),
    [
        ("slots", None, True),  # The server says so, and the rules say nothing.
        ("slots", Effect.WRITE, False),  # The rules outrank it.
        ("book", None, False),
        ("book", Effect.READ, True),
        ("book", Effect.IDEMPOTENT, True),
        ("unknown", None, False),
        (None, None, False),
    ],
)
def test_only_what_changes_nothing_may_be_taken_back(
    tool: str | None, rule: Effect | None, may: bool
) -> None:
    one = tools(**{tool: ToolConfig(rule)} if tool is not None and rule is not None else {})

    assert one.may_be_taken_back(tool) is may


@pytest.mark.parametrize(
    ("reply", "answer", "label"),
    [
        (Reply(200), ToolResult("fine"), "success"),
        (Reply(200), ToolResult("no", is_error=True), "business_no"),
        (Reply(200), ToolResult("Unknown tool: x", is_error=True), "refused"),
        (Reply(200), ToolResult("Tool x not found", is_error=True), "refused"),
        (Reply(200), RpcError(-32602, "no"), "refused"),
        (Reply(200), RpcError(-32603, "no"), "failed"),
        (Reply(503), None, None),
        (Reply(429), RpcError(-32603, "no"), None),
        (Reply(503), RpcError(-32601, "no"), "refused"),
        (Reply(404), None, "refused"),
    ],
)
async def test_an_answer_is_judged_by_what_the_catalogue_says_of_the_tool(
    reply: Reply, answer: ToolResult | RpcError | None, label: str | None
) -> None:
    verdict = await tools().judge("x", reply, answer, Told())

    assert (verdict.label if verdict is not None else None) == label


async def test_a_tool_that_is_listed_is_not_unknown() -> None:
    verdict = await tools().judge("book", Reply(200), RpcError(-32602, "no"), Told())

    assert verdict is not None
    assert verdict.label == "failed"


def test_hints_are_those_of_a_tools_result() -> None:
    assert hinted(Reply(200), ToolResult("", ttl_ms=1500, cache_scope="private")).ttl == 1.5
    assert hinted(Reply(200), ToolResult("", cache_scope="private")).private
    assert hinted(Reply(200), RpcError(1, "")) == Reply(200)
