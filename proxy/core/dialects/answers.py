"""How does one arm's answer read in the language of its caller?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec
import orjson
from msgspec import Raw

from proxy.core.body_verdicts import BodyVerdicts
from proxy.core.dialects import function, jsonrpc, schema, sse, tools
from proxy.core.dialects.headers import for_new_answer
from proxy.core.dialects.jsonrpc import ToolResult
from proxy.core.model import Call, Counts, Era, Headers, Kind, Ran, Reply, Verdict
from proxy.core.partial import mended
from proxy.core.verdict import judge_reply

JSON: bytes = b"application/json"
TEXT = b"text/plain; charset=utf-8"
EVENTS = b"text/event-stream"

_anything = msgspec.json.Decoder(Raw)


def from_mcp(kind: Kind, result: ToolResult) -> tuple[bytes, bytes]:
    """An MCP tool's result for a caller that speaks no MCP: content type and body."""
    if kind is Kind.TOOLS:
        if result.is_error:
            return JSON, tools.failure(result.text, tools.REFUSED)
        return JSON, tools.render(result.text)
    if result.is_error:
        return JSON, function.spoken(result.text)
    body = result.text.encode()
    return JSON if _start(body) in b"{[" and _is_json(body) else TEXT, body


def to_mcp(
    status: int, body: bytes, output_schema: Mapping[str, Any] | None, *, is_error: bool = False
) -> ToolResult:
    """What any HTTP answer says to an MCP caller: its body is the text.

    The structured content is the body if that is an object, else `{"result": ...}`; with a
    declared schema it is whichever of them conforms, and if none does the answer is an error.
    """
    try:
        text, value = body.decode(), mended(body)
    except UnicodeDecodeError:
        text, value = body.decode("utf-8", "replace"), b""
    text = text or f"The backend answered {status} without a body."
    value = value if _is_json(value) else b""
    any_value = output_schema is not None and output_schema.get("type") != "object"
    for structured in _candidates(text, value, any_value=any_value):
        if output_schema is None or _conforms(structured, output_schema):
            return ToolResult(text, structured, is_error)
    return ToolResult(text, is_error=True)


def _candidates(text: str, value: bytes, *, any_value: bool) -> Iterator[bytes]:
    """The likeliest first; the next is made only if that does not do.

    `value` is the body if it is JSON, else empty.  Since 2026-07-28 it may be told as it is.
    """
    is_object = _start(value) == b"{"
    if value and (is_object or any_value):
        yield value
    said = orjson.dumps(text)
    if any_value and not value:
        yield said
    yield b'{"result":%b}' % said
    if value and not is_object:
        yield b'{"result":%b}' % value


def as_result(
    call: Call,
    rpc_id: bytes,
    status: int,
    body: bytes,
    output_schema: Mapping[str, Any] | None,
    *,
    is_error: bool,
) -> bytes:
    """Any HTTP answer as a message for an MCP caller, who was told of that schema.

    `Call.promised` outranks it.  Before 2026-07-28 only objects can be declared.
    """
    era = call.era or jsonrpc.era_of(call.head.named)
    told = call.promised if call.promised is not None else output_schema
    if told is not None and era is Era.LEGACY and told.get("type") != "object":
        told = None
    return jsonrpc.render_result(rpc_id, era, to_mcp(status, body, told, is_error=is_error))


def _conforms(structured: bytes, output_schema: Mapping[str, Any]) -> bool:
    try:
        return schema.conforms(orjson.loads(structured), output_schema)
    except orjson.JSONDecodeError:  # JSON, but beyond what it holds: deeper, or larger numbers
        return False


def _start(body: bytes) -> bytes:
    return body.lstrip(b" \t\r\n")[:1]


def _is_json(text: bytes) -> bool:
    """Whether `text`, in valid UTF-8, is JSON."""
    try:
        _anything.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def as_rpc(
    call: Call,
    rpc_id: bytes,
    reply: Reply,
    body: bytes,
    output_schema: Mapping[str, Any] | None,
    by_rule: BodyVerdicts | None = None,
) -> Reply:
    """An arm's HTTP answer for an MCP caller, always with a status that its body explains.

    The verdict is that of the answer itself: rendered, a failure and a business "no" look alike.
    A status that fails is left to be judged by whoever knows what the arm promises of it.
    """
    verdict = judge_reply(reply.status, reply.headers, body, by_rule=by_rule)
    if verdict.delivers:
        # Of the verdict, because a "no" in the body and one in the status sound alike here.
        said_no = verdict.label == "business_no"
        message = as_result(call, rpc_id, reply.status, body, output_schema, is_error=said_no)
        return rpc_reply(call, message, headers=reply.headers, verdict=verdict)
    message = jsonrpc.render_error(rpc_id, jsonrpc.INTERNAL_ERROR, "The backend failed.")
    judged = verdict if 200 <= reply.status < 300 else None
    headers = reply.headers
    return rpc_reply(call, message, status=reply.status, headers=headers, verdict=judged)


def rpc_reply(
    call: Call,
    message: bytes,
    *,
    status: int = 200,
    headers: Headers | None = None,
    verdict: Verdict | None = None,
) -> Reply:
    """A JSON-RPC message as the answer to an MCP caller: JSON, or one event if it takes only that.

    `headers` are those of an answer that was rendered anew.
    """
    accept = call.head.named.get(b"accept", b"")
    as_event = b"text/event-stream" in accept and b"json" not in accept and b"*/*" not in accept
    body = sse.render(message) if as_event else message
    fields = for_new_answer(headers or [], EVENTS if as_event else JSON)
    return Reply(status, fields, body, verdict=verdict)


def no_such_method(call: Call) -> Reply:
    """What an arm that serves tools only says to any other MCP request.  Nothing ran."""
    verdict = Verdict("business_no", Ran.NO, Counts.NOTHING)
    if call.head.method != "POST":
        return Reply(405, [(b"allow", b"POST")], verdict=verdict)
    if call.rpc_id is None or call.rpc_method is None:
        return Reply(202, verdict=verdict)
    message = jsonrpc.render_error(call.rpc_id, jsonrpc.METHOD_NOT_FOUND, "Method not found")
    modern = jsonrpc.era_of(call.head.named) is Era.MODERN
    return rpc_reply(call, message, status=404 if modern else 200, verdict=verdict)
