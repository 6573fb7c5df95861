from __future__ import annotations

import json
from typing import Any

import pytest
from mcp_types import methods
from mcp_types.jsonrpc import JSONRPCError, JSONRPCResponse

from proxy.core.dialects import answers
from proxy.core.dialects.jsonrpc import ToolResult
from proxy.core.model import Call, Counts, Head, Kind, Ran, Reply

ANY_OBJECT = {"type": "object"}
RESULT_TEXT = {
    "type": "object",
    "properties": {"result": {"type": "string"}},
    "required": ["result"],
    "additionalProperties": False,
}
RESULT_LIST = {
    "type": "object",
    "properties": {"result": {"type": "array", "items": {"type": "string"}}},
    "required": ["result"],
}


def mcp_call(
    *,
    version: str | None = "2026-07-28",
    accept: str = "application/json, text/event-stream",
    method: str = "POST",
    rpc_id: bytes | None = b'"r-1"',
    rpc_method: str | None = "tools/call",
) -> Call:
    named = {b"accept": accept.encode()}
    if version is not None:
        named[b"mcp-protocol-version"] = version.encode()
    head = Head(method, "/mcp", "", named, [], b"localhost", "127.0.0.1")
    return Call(Kind.MCP, head, id="call_1", tool="t", rpc_id=rpc_id, rpc_method=rpc_method)


@pytest.mark.parametrize(
    ("result", "content_type", "body"),
    [
        (ToolResult('{"slots":[]}'), b"application/json", b'{"slots":[]}'),
        (ToolResult("[1, 2]"), b"application/json", b"[1, 2]"),
        (ToolResult(' {"a":1}\n'), b"application/json", b' {"a":1}\n'),
        (ToolResult("See you at ten."), b"text/plain; charset=utf-8", b"See you at ten."),
        (ToolResult("{not json"), b"text/plain; charset=utf-8", b"{not json"),
        (ToolResult("5"), b"text/plain; charset=utf-8", b"5"),
        (ToolResult("größer"), b"text/plain; charset=utf-8", "größer".encode()),
        (ToolResult(""), b"text/plain; charset=utf-8", b""),
    ],
)
@pytest.mark.parametrize("kind", [Kind.FUNCTION, Kind.ARGS])
def test_a_function_hears_the_text_unwrapped(
    kind: Kind, result: ToolResult, content_type: bytes, body: bytes
) -> None:
    assert answers.from_mcp(kind, result) == (content_type, body)


def test_a_function_hears_a_no_as_a_message() -> None:
    content_type, body = answers.from_mcp(Kind.FUNCTION, ToolResult("Taken.", is_error=True))

    assert content_type == b"application/json"
    assert json.loads(body) == {"success": False, "message": "Taken."}


@pytest.mark.parametrize(
    ("result", "expected"),
    [
        (ToolResult('{"slots":[]}'), {"success": True, "data": {"slots": []}}),
        (
            ToolResult("Taken.", is_error=True),
            {"success": False, "error": "Taken.", "status_code": 400},
        ),
    ],
)
def test_a_tools_caller_hears_the_guides_form(result: ToolResult, expected: Any) -> None:
    content_type, body = answers.from_mcp(Kind.TOOLS, result)

    assert content_type == b"application/json"
    assert json.loads(body) == expected


@pytest.mark.parametrize(
    ("body", "schema", "structured"),
    [
        (b'{"slots":["10:00"]}', None, {"slots": ["10:00"]}),
        (b' {"slots":["10:00"]}', ANY_OBJECT, {"slots": ["10:00"]}),
        (b'{"slots":["10:00"]}', RESULT_TEXT, {"result": '{"slots":["10:00"]}'}),
        (b"at ten", None, {"result": "at ten"}),
        (b"at ten", RESULT_TEXT, {"result": "at ten"}),
        (b'["10:00"]', None, {"result": '["10:00"]'}),
        (b'["10:00"]', RESULT_LIST, {"result": ["10:00"]}),
        (b'{"n":1e999}', ANY_OBJECT, {"result": '{"n":1e999}'}),
    ],
)
@pytest.mark.parametrize("is_error", [True, False])
def test_an_mcp_caller_hears_the_body_and_what_of_it_conforms(
    body: bytes, schema: Any, structured: Any, is_error: bool
) -> None:
    result = answers.to_mcp(200, body, schema, is_error=is_error)

    assert result.text == body.decode()
    assert result.is_error is is_error
    assert json.loads(result.structured) == structured


@pytest.mark.parametrize(
    ("body", "schema"),
    [(b'{"slots":[]}', RESULT_LIST), (b'{"n":1e999}', {"required": ["n"]}), (b"no", RESULT_LIST)],
)
def test_what_conforms_to_no_reading_of_a_schema_is_an_error_in_its_own_words(
    body: bytes, schema: Any
) -> None:
    assert answers.to_mcp(200, body, schema) == ToolResult(body.decode(), is_error=True)


@pytest.mark.parametrize(
    ("body", "schema", "structured"),
    [
        (b'["10:00"]', {"type": "array"}, ["10:00"]),
        (b"7", {"type": "integer"}, 7),
        (b"at ten", {"type": "string"}, "at ten"),
        (b'"at ten"', {"type": "string"}, "at ten"),
        (b'{"a":1}', {"required": ["a"]}, {"a": 1}),
        (b"at ten", {"type": ["object", "null"]}, {"result": "at ten"}),
    ],
)
def test_a_modern_caller_may_be_promised_any_value(
    body: bytes, schema: Any, structured: Any
) -> None:
    _, message = as_rpc(mcp_call(), Reply(200, [], body), schema)

    assert message["result"]["structuredContent"] == structured
    assert not message["result"]["isError"]


def test_a_legacy_caller_is_promised_objects_only() -> None:
    """So it has not heard of any other schema, and needs to hear nothing that keeps to it."""
    _, message = as_rpc(
        mcp_call(version="2025-06-18"), Reply(200, [], b'["10:00"]'), {"type": "array"}
    )

    assert message["result"]["structuredContent"] == {"result": '["10:00"]'}
    assert not message["result"]["isError"]


def test_whoever_answers_keeps_to_what_the_caller_was_promised() -> None:
    """A caller of the MCP arm knows its server's schema, and refuses other answers whole."""
    call = mcp_call()
    call.promised = RESULT_LIST

    _, kept = as_rpc(call, Reply(200, [], b'["10:00"]'), ANY_OBJECT)
    _, broken = as_rpc(call, Reply(200, [], b'{"slots":[]}'), ANY_OBJECT)

    assert kept["result"]["structuredContent"] == {"result": ["10:00"]}
    assert broken["result"]["isError"]
    assert broken["result"]["content"][0]["text"] == '{"slots":[]}'


def test_half_an_emoji_does_not_spoil_the_message() -> None:
    """Strict readers refuse a whole message for a lone surrogate, and then nobody hears it."""
    reply, _ = as_rpc(mcp_call(), Reply(200, [], b'{"say":"hi \\ud83d"}'))

    assert isinstance(reply.body, bytes)
    result = JSONRPCResponse.model_validate_json(reply.body).result
    assert result["structuredContent"] == {"say": "hi \ufffd"}


@pytest.mark.parametrize(
    ("status", "body", "is_error"),
    [
        (200, b'{"success":false,"message":"no"}', True),
        (200, b'{"success":"no"}', False),
        (200, b'{"success":true}', False),
        (404, b'{"detail":"none"}', True),
        (404, b"none", True),
    ],
)
def test_a_business_no_is_a_tools_error(status: int, body: bytes, is_error: bool) -> None:
    _, message = as_rpc(mcp_call(), Reply(status, [], body))

    assert message["result"]["isError"] is is_error
    assert message["result"]["content"][0]["text"] == body.decode()


def test_an_empty_body_is_told_by_its_status() -> None:
    assert "204" in answers.to_mcp(204, b"", None).text


def test_bytes_that_are_no_text_do_not_spoil_the_message() -> None:
    result = answers.to_mcp(200, b'{"a":"\xff"}', None)

    assert result.text == '{"a":"\ufffd"}'
    assert json.loads(result.structured) == {"result": '{"a":"\ufffd"}'}


def as_rpc(call: Call, reply: Reply, schema: Any = None) -> tuple[Reply, dict[str, Any]]:
    assert isinstance(reply.body, bytes)
    assert call.rpc_id is not None
    rendered = answers.as_rpc(call, call.rpc_id, reply, reply.body, schema)
    assert isinstance(rendered.body, bytes)
    message = json.loads(rendered.body)
    assert message["id"] == "r-1"
    return rendered, message


@pytest.mark.parametrize("version", ["2026-07-28", "2025-11-25", None])
def test_an_answer_over_http_becomes_a_result(version: str | None) -> None:
    headers = [(b"Content-Type", b"text/html"), (b"ETag", b"x"), (b"X-A", b"b")]

    rendered, message = as_rpc(mcp_call(version=version), Reply(201, headers, b'{"a":1}'))

    JSONRPCResponse.model_validate(message)
    methods.validate_server_result("tools/call", version or "2025-03-26", message["result"])
    assert message["result"]["structuredContent"] == {"a": 1}
    assert rendered.status == 200
    assert rendered.headers == [(b"X-A", b"b"), (b"content-type", b"application/json")]
    assert rendered.verdict is not None
    assert rendered.verdict.delivers


@pytest.mark.parametrize("status", [500, 503, 429, 401, 302])
def test_a_failing_status_is_left_to_be_judged(status: int) -> None:
    rendered, message = as_rpc(mcp_call(), Reply(status, [(b"Retry-After", b"3")], b"secret stack"))

    JSONRPCError.model_validate(message)
    assert rendered.status == status
    assert (b"Retry-After", b"3") in rendered.headers
    assert rendered.verdict is None
    assert b"secret" not in bytes(rendered.body if isinstance(rendered.body, bytes) else b"")


def test_a_body_that_says_the_backend_failed_is_no_result() -> None:
    body = b'{"success":false,"error":"db down","status_code":500}'

    rendered, message = as_rpc(mcp_call(), Reply(200, [], body))

    JSONRPCError.model_validate(message)
    assert rendered.verdict is not None
    assert rendered.verdict.counts is Counts.FAILURE
    assert rendered.verdict.ran is Ran.UNKNOWN


def test_a_caller_that_takes_only_events_gets_one() -> None:
    call = mcp_call(accept="text/event-stream")

    reply = answers.rpc_reply(call, b'{"a":\n1}')

    assert reply.headers == [(b"content-type", b"text/event-stream")]
    assert reply.body == b'event: message\ndata: {"a":\ndata: 1}\n\n'


@pytest.mark.parametrize("accept", ["", "*/*", "application/json", "text/event-stream, */*"])
def test_any_other_caller_gets_json(accept: str) -> None:
    reply = answers.rpc_reply(mcp_call(accept=accept), b"{}")

    assert (reply.headers, reply.body) == ([(b"content-type", b"application/json")], b"{}")


@pytest.mark.parametrize(("version", "status"), [("2026-07-28", 404), ("2025-11-25", 200)])
def test_other_methods_are_unknown_to_an_arm_of_tools(version: str, status: int) -> None:
    reply = answers.no_such_method(mcp_call(version=version, rpc_method="prompts/list"))

    assert isinstance(reply.body, bytes)
    error = JSONRPCError.model_validate_json(reply.body)
    assert (reply.status, error.id, error.error.code) == (status, "r-1", -32601)
    assert reply.verdict is not None
    assert reply.verdict.delivers


def test_notifications_and_answers_are_accepted_and_dropped() -> None:
    note = answers.no_such_method(mcp_call(rpc_id=None, rpc_method="notifications/initialized"))
    answer = answers.no_such_method(mcp_call(rpc_method=None))

    assert (note.status, note.body) == (answer.status, answer.body) == (202, b"")


def test_only_posts_carry_messages() -> None:
    reply = answers.no_such_method(mcp_call(method="GET"))

    assert (reply.status, reply.headers) == (405, [(b"allow", b"POST")])
