from __future__ import annotations

import json
from typing import Any

import pytest
from mcp_types.jsonrpc import JSONRPCError, JSONRPCResponse

from backends.base import BackendConfig, ToolConfig
from backends.tools import ToolsBackend
from proxy.core.body_verdicts import BodyVerdicts
from proxy.core.model import Counts, Kind
from proxy.core.verdict import FAILED_BODY
from tests.backends.kit import (
    ARGUMENTS,
    ScriptedSend,
    body_of,
    json_reply,
    make_call,
    mcp_call,
)

OK = json_reply({"success": True, "data": {"slots": ["10:00"]}})
PATH = "/api/mcp/retell/tools"


def backend(**more: Any) -> ToolsBackend:
    return ToolsBackend(BackendConfig("tools", path=PATH, **more))


@pytest.mark.parametrize("kind", [Kind.FUNCTION, Kind.ARGS])
async def test_a_function_is_asked_in_the_guides_form_and_hears_its_body(kind: Kind) -> None:
    send = ScriptedSend(OK)

    reply = await backend(bearer=b"ours").handle(make_call(kind), send)

    assert send.message == {
        "tool": "book",
        "arguments": json.loads(ARGUMENTS),
        "call_id": "call_1",
    }
    assert ARGUMENTS in send.sent[0].body
    assert (send.sent[0].method, send.sent[0].target) == ("POST", PATH)
    assert send.headers["authorization"] == "Bearer ours"
    assert "x-retell-signature" not in send.headers
    assert reply is OK


async def test_the_guides_own_requests_go_on_byte_for_byte() -> None:
    call, send = make_call(Kind.TOOLS, b'{"tool":"book" , "arguments":{}}'), ScriptedSend(OK)

    reply = await backend().handle(call, send)

    assert send.sent[0].body == call.body
    assert send.headers == {
        "content-type": "application/json",
        "x-tenant": "t1",
        "user-agent": "axios",
    }
    assert reply is OK


async def test_a_call_without_an_id_is_asked_without_one() -> None:
    send = ScriptedSend(OK)

    await backend().handle(make_call(Kind.FUNCTION, id=None), send)

    assert "call_id" not in send.message


@pytest.mark.parametrize("kind", [Kind.FUNCTION, Kind.ARGS, Kind.TOOLS, Kind.MCP])
async def test_a_tool_may_have_another_name_here(kind: Kind) -> None:
    arm = backend(tools={"book": ToolConfig(name="bookAppointment")})
    send = ScriptedSend(OK)

    await arm.handle(make_call(kind), send)

    assert send.message["tool"] == "bookAppointment"


@pytest.mark.parametrize("version", ["2026-07-28", "2025-11-25"])
async def test_an_mcp_caller_hears_a_result(version: str) -> None:
    reply = await backend().handle(mcp_call(version=version), ScriptedSend(OK))

    message = JSONRPCResponse.model_validate_json(body_of(reply))
    assert message.id == "own-1"
    assert message.result["structuredContent"]["data"] == {"slots": ["10:00"]}
    assert message.result["isError"] is False


@pytest.mark.parametrize(("status_code", "counts"), [(404, Counts.SUCCESS), (500, Counts.FAILURE)])
async def test_an_error_in_the_body_is_judged_for_an_mcp_caller_too(
    status_code: int, counts: Counts
) -> None:
    """Rendered, the handler could no longer tell the one from the other."""
    said = {"success": False, "error": "no", "status_code": status_code}

    reply = await backend().handle(mcp_call(), ScriptedSend(json_reply(said)))

    assert reply.verdict is not None
    assert reply.verdict.counts is counts
    assert reply.verdict.delivers is (counts is Counts.SUCCESS)


async def test_a_declared_schema_is_honoured() -> None:
    schema = {"type": "object", "required": ["booking"]}
    arm = backend(tools={"book": ToolConfig(output_schema=schema)})

    reply = await arm.handle(mcp_call(), ScriptedSend(OK))

    assert JSONRPCResponse.model_validate_json(body_of(reply)).result["isError"] is True


async def test_other_mcp_requests_are_unknown_here_and_go_nowhere() -> None:
    send = ScriptedSend(OK)

    reply = await backend().handle(mcp_call("tools/list", {}, tool=None), send)
    silent = await backend().handle(mcp_call(rpc_id=None), send)

    assert JSONRPCError.model_validate_json(body_of(reply)).error.code == -32601
    assert (silent.status, send.sent) == (202, [])


async def test_the_rules_judge_what_the_arm_said_not_what_an_mcp_caller_hears() -> None:
    by_rule = BodyVerdicts([({"data.status": "down"}, FAILED_BODY)])
    said = json_reply({"success": True, "data": {"status": "down"}})

    reply = await backend(by_rule=by_rule).handle(make_call(Kind.MCP), ScriptedSend(said))

    assert reply.verdict is FAILED_BODY
