from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mcp.shared.inbound import InboundModernRoute, classify_inbound_request, decode_header_value
from mcp_types import methods
from mcp_types.jsonrpc import JSONRPCError, JSONRPCRequest, JSONRPCResponse

from proxy.core.dialects import jsonrpc
from proxy.core.dialects.jsonrpc import Request, RpcError, ToolResult
from proxy.core.model import Era

MODERN, LEGACY = "2026-07-28", "2025-11-25"
VERSIONS = {Era.MODERN: MODERN, Era.LEGACY: LEGACY}


def as_sent(request: Request, value: bytes = b"") -> tuple[dict[str, str], dict[str, Any]]:
    headers = {name.decode(): text.decode() for name, text in request.headers}
    return headers, json.loads(request.body(b"7", value))


def check_by_the_sdk(request: Request, era: Era, value: bytes = b"") -> dict[str, Any]:
    """Headers agree with the body, and the body is what the revision's own schema wants."""
    headers, message = as_sent(request, value)
    JSONRPCRequest.model_validate(message)
    methods.validate_client_request(message["method"], VERSIONS[era], message["params"])
    if era is Era.MODERN:
        assert isinstance(classify_inbound_request(message, headers=headers), InboundModernRoute)
    assert headers["mcp-protocol-version"] == VERSIONS[era]
    assert "application/json" in headers["accept"]
    assert "text/event-stream" in headers["accept"]
    return message


@pytest.mark.parametrize("era", Era)
@pytest.mark.parametrize(
    "tool",
    ["get_available_slots", "größe", " edge ", "=?base64?eA==?=", "line\nbreak", 'quo"te', ""],
)
def test_a_tools_call_is_what_the_revision_asks_for(era: Era, tool: str) -> None:
    message = check_by_the_sdk(jsonrpc.tools_call(era, tool), era, b'{"date": "2026-01-02"}')

    assert message["id"] == 7
    assert message["params"]["name"] == tool
    assert message["params"]["arguments"] == {"date": "2026-01-02"}


def test_arguments_are_spliced_as_they_came() -> None:
    raw = b'{"n": 1.50, "big": 123456789012345678901234567890, "e": "\\u00e9"}'

    assert raw in jsonrpc.tools_call(Era.MODERN, "t").body(b"1", raw)


def test_only_the_modern_era_has_routing_headers() -> None:
    modern, _ = as_sent(jsonrpc.tools_call(Era.MODERN, "t"), b"{}")
    legacy, message = as_sent(jsonrpc.tools_call(Era.LEGACY, "t"), b"{}")

    assert (modern["mcp-method"], modern["mcp-name"]) == ("tools/call", "t")
    assert not {"mcp-method", "mcp-name"} & set(legacy)
    assert "_meta" not in message["params"]


@pytest.mark.parametrize("era", Era)
@pytest.mark.parametrize("cursor", [None, "", 'next "page"'])
def test_a_list_goes_on_from_its_cursor(era: Era, cursor: str | None) -> None:
    message = check_by_the_sdk(jsonrpc.tools_list(era, cursor), era)

    assert message["params"].get("cursor") == cursor


def test_discovery_is_modern() -> None:
    message = check_by_the_sdk(jsonrpc.server_discover(), Era.MODERN)

    assert message["method"] == "server/discover"


@given(st.text())
def test_a_header_carries_any_text(text: str) -> None:
    value = jsonrpc.header_text(text)

    assert all(0x20 <= byte <= 0x7E for byte in value)
    assert decode_header_value(value.decode()) == text


def test_a_text_that_looks_wrapped_is_wrapped_again() -> None:
    wrapped = jsonrpc.header_text("=?base64?eA==?=")

    assert wrapped == b"=?base64?%b?=" % base64.b64encode(b"=?base64?eA==?=")


@pytest.mark.parametrize(
    ("version", "era"),
    [
        (None, Era.LEGACY),
        (b"2024-11-05", Era.LEGACY),
        (b"2025-11-25", Era.LEGACY),
        (b"2026-07-28", Era.MODERN),
        (b"1999-01-01", Era.MODERN),
    ],
)
def test_the_version_header_tells_the_era(version: bytes | None, era: Era) -> None:
    named = {} if version is None else {b"mcp-protocol-version": version}

    assert jsonrpc.era_of(named) is era
    assert {era, era.other} == set(Era)


def answer(result: object = None, **more: object) -> bytes:
    message: dict[str, object] = {"jsonrpc": "2.0", "id": 7, **more}
    return json.dumps(message if result is None else {**message, "result": result}).encode()


TEXT = {"type": "text", "text": "hello"}


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        ({"content": [TEXT]}, ToolResult("hello")),
        ({"content": [TEXT, {"type": "image", "data": "x"}, TEXT]}, ToolResult("hello\nhello")),
        ({"content": [TEXT], "isError": True}, ToolResult("hello", is_error=True)),
        ({"content": [TEXT], "isError": None, "resultType": "complete"}, ToolResult("hello")),
        ({"content": [], "structuredContent": {"a": 1}}, ToolResult('{"a": 1}', b'{"a": 1}')),
        ({"content": [TEXT], "structuredContent": [1]}, ToolResult("hello", b"[1]")),
        ({"structuredContent": None}, ToolResult("")),
        ({"content": []}, ToolResult("")),
    ],
)
def test_the_text_blocks_are_what_a_tool_said(result: object, expected: ToolResult) -> None:
    assert jsonrpc.parse_tool_answer(answer(result), b"7") == expected


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"[]",
        b"<html>",
        answer({"content": "text"}),
        answer({"content": [{"type": "text", "text": 5}]}),
        answer({"content": [], "resultType": "input_required"}),
        answer("text"),
        answer(error={"code": "x"}),
        b'{"id":7,"result":{"content":[{"type":"text","text":"\xff"}]}}',
        b'{"id":7,"result":{"content":[],"structuredContent":"\xff"}}',
        b'{"id":7,"result":' + b"[" * 5000,
        b'{"id":1e999,"result":{"content":[]}}',
    ],
)
def test_what_is_no_answer_of_a_tool_is_an_error(message: bytes) -> None:
    with pytest.raises(ValueError):
        jsonrpc.parse_tool_answer(message, b"7")


def test_a_result_that_asks_for_more_is_for_those_who_can_give_it() -> None:
    message = answer({"resultType": "input_required", "inputRequests": {}})

    assert jsonrpc.parse_tool_answer(message, b"7", complete=False) == ToolResult("")


@pytest.mark.parametrize("message", [b"", b"[]", b"7", b'{"id":7,"error":7}', b"[" * 5000])
def test_what_is_no_message_is_an_error(message: bytes) -> None:
    with pytest.raises(ValueError):
        jsonrpc.parse_answer(message, b"7")


@pytest.mark.parametrize(
    "message",
    [
        answer({"content": []}, id=8),
        answer({"content": []}, id=None),
        answer(),
        b'{"jsonrpc":"2.0","method":"notifications/progress","params":{}}',
        b'{"result":{"content":[]}}',
    ],
)
def test_what_is_not_our_answer_is_passed_over(message: bytes) -> None:
    assert jsonrpc.parse_tool_answer(message, b"7") is None
    assert jsonrpc.parse_answer(message, b"7") is None


@pytest.mark.parametrize("rpc_id", ["server-error", None, 7, 99])
def test_a_refusal_is_taken_whatever_its_id(rpc_id: object) -> None:
    message = answer(id=rpc_id, error={"code": -32600, "message": "no", "data": {"a": 1}})
    expected = RpcError(-32600, "no", b'{"a": 1}')

    assert jsonrpc.parse_tool_answer(message, b"7") == expected
    assert jsonrpc.parse_answer(message, b"7") == expected


@pytest.mark.parametrize(("found", "asked"), [("7", b"7"), (7, b'"7"'), ("\u00e9", '"é"'.encode())])
def test_an_id_may_be_written_differently(found: object, asked: bytes) -> None:
    assert jsonrpc.parse_answer(answer({"x": 1}, id=found), asked) == b'{"x": 1}'


@pytest.mark.parametrize("era", Era)
@pytest.mark.parametrize(
    "result",
    [
        ToolResult('a "text"\n'),
        ToolResult("no", is_error=True),
        ToolResult('{"a":1}', b'{"a": 1}'),
        ToolResult("", b'{"a":\n1}', is_error=True),
    ],
)
@pytest.mark.parametrize("rpc_id", [b"7", b'"x"', b"1.5"])
def test_a_rendered_result_is_valid_in_its_era(era: Era, result: ToolResult, rpc_id: bytes) -> None:
    raw = jsonrpc.render_result(rpc_id, era, result)

    message = json.loads(raw)
    assert rpc_id in raw
    methods.validate_server_result("tools/call", VERSIONS[era], message["result"])
    assert jsonrpc.parse_tool_answer(raw, rpc_id) == result
    if rpc_id != b"1.5":
        JSONRPCResponse.model_validate(message)
    assert ("resultType" in message["result"]) is (era is Era.MODERN)


def test_a_rendered_error_is_valid() -> None:
    raw = jsonrpc.render_error(b'"x"', jsonrpc.METHOD_NOT_FOUND, 'no "such" method')

    assert JSONRPCError.model_validate(json.loads(raw)).error.code == -32601
    assert jsonrpc.parse_answer(raw, b'"x"') == RpcError(-32601, 'no "such" method')


def test_an_error_keeps_its_data_as_it_came() -> None:
    message = jsonrpc.render_error(b"7", -32022, "no", b'{"supported": ["2026-07-28"]}')

    assert JSONRPCError.model_validate_json(message).error.data == {"supported": ["2026-07-28"]}
