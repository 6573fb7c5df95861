"""What kind of request is this, of which call, for which tool?

In this order: JSON-RPC, event, function, tools (on a function's own path: function, else bare
arguments).  What is none of them is `other` and goes on unchanged, but not on MCP's own path.
"""

from __future__ import annotations

from hashlib import blake2b

import orjson
from msgspec import UNSET

from proxy.core.call_id import CallIds, beside_body, query_pairs, usable
from proxy.core.dialects.jsonrpc import PARSE_ERROR
from proxy.core.doubts import doubts, is_envelope
from proxy.core.head import drop
from proxy.core.mcp.asked import is_message, no_message, take_batch, take_message, take_stream
from proxy.core.mcp.refusal import refusal
from proxy.core.model import TOOL_KINDS, Call, Head, Kind
from proxy.core.routes import Route, RouteId
from proxy.core.shapes import InboundPart, Shape, read_shape
from proxy.core.tool_call import NO_ARGUMENTS, arguments_of, checked, tool_of
from proxy.errors import Refused

__all__ = ["CallIds", "recognise"]

# Bound once: reading a member of an enumeration is slow in Python 3.11.
_EVENT, _INBOUND, _ALERT, _OTHER = Kind.EVENT, Kind.INBOUND, Kind.ALERT, Kind.OTHER
_FUNCTION, _ARGS, _TOOLS, _LLM = Kind.FUNCTION, Kind.ARGS, Kind.TOOLS, Kind.LLM
_FUNCTION_PATH, _TOOLS_PATH, _LLM_PATH = RouteId.FUNCTION, RouteId.TOOLS, RouteId.LLM
_RETELL_PATH, _MCP_PATH = RouteId.RETELL, RouteId.MCP

_ANY = (_EVENT, _INBOUND, _ALERT, _TOOLS)
_RINGING = frozenset({"call_inbound", "chat_inbound"})
_STRICT = frozenset({RouteId.MCP, RouteId.TOOLS})  # paths on which malformed JSON is refused
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
_WITH_QUERY = frozenset({"GET", "DELETE"})
_LATEST_MS = 2**53
_SESSION = b"mcp-session-id"
_BLANKS = b" \t\r\n"  # of JSON


def recognise(route: Route, head: Head, body: bytes, ids: CallIds) -> Call:
    """The call behind a request; raises `Refused` for what no arm may be asked."""
    call, path = Call(_OTHER, head, body), route.id
    if _SESSION in head.named:  # Ours, and as good as a credential: no arm sees it.
        drop(head, _SESSION)
    try:
        if path is _RETELL_PATH:
            if head.method in _WITH_QUERY and not body and _SESSION in head.named:
                take_stream(call)
            else:
                _by_shape(call, path)
        elif path is _FUNCTION_PATH:
            _on_function_path(call, route, ids)
        elif path is _LLM_PATH:
            call.kind, call.id = _LLM, usable(route.call_id)
        elif path is _MCP_PATH and head.method in _WITH_QUERY:
            take_stream(call)
        else:
            _by_shape(call, path)
    except ValueError as fault:
        if path in _STRICT:
            raise _malformed(path) from fault
        return _unknown(head, body, path)
    if call.kind not in route.kinds:
        return _unknown(head, body, path)
    if call.id is None and call.kind in TOOL_KINDS:
        call.id = beside_body(head, ids, route.call_id)
    return call


def _unknown(head: Head, body: bytes, path: RouteId) -> Call:
    """On a tool's own path, what nobody can read here may be any kind to a webhook that can."""
    call = Call(_OTHER, head, body)
    if path is _FUNCTION_PATH and body:
        call.may_be = _ANY
    return call


def _malformed(path: RouteId) -> Refused:
    code, message = "malformed_json", "The body is not valid JSON."
    if path is _MCP_PATH:
        return refusal(code, message, rpc_code=PARSE_ERROR)
    return Refused(400, code, message)


def _by_shape(call: Call, path: RouteId) -> None:
    shape, _ = read_shape(call.body)
    if shape is None:
        _no_object(call, path)
    elif shape.jsonrpc is not UNSET and _is_mcp(call, shape, path):
        take_message(call, shape)
    elif path is _MCP_PATH or (path is _TOOLS_PATH and shape.jsonrpc is not UNSET):
        raise no_message(shape)
    elif shape.event is not None and _is_event(shape):
        _event(call, shape, shape.event)
    elif shape.name and shape.args is not UNSET:
        _function(call, shape, shape.name)
    elif shape.tool and (shape.arguments is not UNSET or path is _TOOLS_PATH):
        call.kind, call.id = _TOOLS, usable(shape.call_id)
        call.tool, call.arguments = tool_of(shape.tool), arguments_of(shape.arguments)


def _is_mcp(call: Call, shape: Shape, path: RouteId) -> bool:
    """Where anything may come, an answer is one of a session: else it is an unknown shape."""
    if not is_message(shape, call.body):
        return False
    return bool(shape.method) or path in _STRICT or _SESSION in call.head.named


def _no_object(call: Call, path: RouteId) -> None:
    if path not in _STRICT:
        return
    if call.body.lstrip(_BLANKS)[:1] == b"[":
        take_batch(call)
    elif path is _MCP_PATH:
        raise no_message()


def _is_event(shape: Shape) -> bool:
    event = shape.event or ""
    if event in _RINGING or event.startswith("alert_"):
        return True
    return shape.call is not None or shape.chat is not None


def _event(call: Call, shape: Shape, event: str) -> None:
    call.event = event
    if event in _RINGING:
        part = shape.call_inbound or shape.chat_inbound or InboundPart()
        call.kind, call.start_ms = _INBOUND, _start(shape.event_timestamp)
        call.id = usable(part.call_id) or usable(part.chat_id) or _stand_in(part, shape)
    elif event.startswith("alert_"):
        call.kind = _ALERT
    else:
        call.kind = _EVENT
        _subject(call, shape)


def _function(call: Call, shape: Shape, name: str) -> None:
    call.kind, call.tool, call.arguments = _FUNCTION, tool_of(name), arguments_of(shape.args)
    _subject(call, shape)
    subject = shape.call or shape.chat
    if subject is not None:
        turns = subject.transcript_with_tool_calls or subject.message_with_tool_calls
        call.turns = None if turns is UNSET else turns


def _subject(call: Call, shape: Shape) -> None:
    """The call or chat that a body is about; it may be signed, so it beats a header."""
    subject = shape.call or shape.chat
    if subject is not None:
        call.id = usable(subject.call_id) or usable(subject.chat_id)
        call.start_ms = _start(subject.start_timestamp)


def _on_function_path(call: Call, route: Route, ids: CallIds) -> None:
    """The path names the tool; the body is a function's whole envelope, or only arguments."""
    method = call.head.method
    if method in _WITH_QUERY:
        _args(call, route, _query_arguments(call.head.query, ids))
    elif method in _WITH_BODY and not call.body:
        _args(call, route, NO_ARGUMENTS)
    elif method in _WITH_BODY:
        shape, text = read_shape(call.body)
        if shape is None:
            return
        call.may_be = doubts(shape, route.tool)
        if shape.name and is_envelope(shape):
            _function(call, shape, shape.name)
        else:
            _args(call, route, checked(text))


def _args(call: Call, route: Route, arguments: bytes) -> None:
    call.kind, call.tool, call.arguments = _ARGS, route.tool, arguments


def _query_arguments(query: str, ids: CallIds) -> bytes:
    """A name that stands more than once has all of its values: one that is lost is missed."""
    found: dict[str, list[str]] = {}
    for name, value in query_pairs(query, errors="replace"):
        if name not in ids.query:
            found.setdefault(name, []).append(value)
    return orjson.dumps({name: each if len(each) > 1 else each[0] for name, each in found.items()})


def _stand_in(part: InboundPart, shape: Shape) -> str | None:
    """One ID for all tries of a call that has none yet; nobody reads numbers from it."""
    if not part.from_number and not part.to_number:
        return None
    text = f"{part.from_number}\n{part.to_number}\n{shape.event_timestamp}"
    return f"inbound_{blake2b(text.encode(), digest_size=16).hexdigest()}"


def _start(ms: int | None) -> int | None:
    return ms if ms is not None and 0 < ms < _LATEST_MS else None
