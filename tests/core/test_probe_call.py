"""The call that a probe makes."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from backends.base import BackendConfig, ToolConfig
from backends.mcp import McpBackend
from backends.tools import ToolsBackend
from backends.webhook import WebhookBackend
from proxy.core.model import TOOL_KINDS, Kind, Outbound, Reply
from proxy.core.probe_call import probe_call
from tests.backends.kit import ScriptedSend, json_reply, rpc_result, text_result

ARGUMENTS = {"date": "tomorrow", "n": 1}


def test_it_is_nobodys_call() -> None:
    call = probe_call("get_slots", ARGUMENTS, TOOL_KINDS)

    assert (call.kind, call.id, call.tool) == (Kind.TOOLS, None, "get_slots")
    assert orjson.loads(call.arguments or b"") == ARGUMENTS
    assert call.head.named[b"user-agent"] == b"callsplit-probe"


def test_a_backend_that_knows_functions_only_gets_one() -> None:
    call = probe_call("get_slots", None, frozenset({Kind.FUNCTION, Kind.EVENT}))

    assert call.kind is Kind.FUNCTION
    assert orjson.loads(call.body) == {"name": "get_slots", "call": {}, "args": {}}


NAMED = {"get_slots": ToolConfig(name="slots")}


@pytest.mark.parametrize(
    ("backend", "said"),
    [
        (WebhookBackend, {"name": "slots", "call": {}, "args": ARGUMENTS}),
        (ToolsBackend, {"tool": "slots", "arguments": ARGUMENTS}),
    ],
    ids=["webhook", "tools"],
)
async def test_each_handler_puts_it_into_its_own_words(backend: Any, said: Any) -> None:
    send = ScriptedSend(json_reply({"ok": True}))
    arm = backend(BackendConfig("arm", path="/x", sign=b"key", tools=NAMED))

    reply = await arm.handle(probe_call("get_slots", ARGUMENTS, arm.kinds), send)

    assert reply.status == 200
    assert send.message == said
    assert send.headers["content-type"] == "application/json"
    assert send.headers["user-agent"] == "callsplit-probe"
    assert ("x-retell-signature" in send.headers) is (backend is WebhookBackend)


async def test_an_mcp_server_is_asked_for_the_tool() -> None:
    def server(outbound: Outbound) -> Reply:
        asked = orjson.loads(outbound.body)["method"]
        known = {"supportedVersions": ["2026-07-28"]}
        return rpc_result(known if asked == "server/discover" else text_result("{}"))(outbound)

    send = ScriptedSend(server)
    arm = McpBackend(BackendConfig("arm", path="/mcp", tools=NAMED))

    reply = await arm.handle(probe_call("get_slots", ARGUMENTS, arm.kinds), send)

    assert send.message["params"]["name"] == "slots"
    assert send.message["params"]["arguments"] == ARGUMENTS
    assert send.headers["user-agent"] == "callsplit-probe"
    assert reply.verdict is not None
    assert reply.verdict.label == "success"
