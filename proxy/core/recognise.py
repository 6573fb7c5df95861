"""What kind of request is this, of which call, for which tool?

In this order: JSON-RPC, event, function, tools (on a function's own path: function, else bare
arguments).  What is none of them is `other` and goes on unchanged.
"""

from __future__ import annotations

from hashlib import blake2b

import orjson
from msgspec import UNSET, Raw, UnsetType

from proxy.core.call_id import CallIds, beside_body, query_pairs, usable
from proxy.core.model import TOOL_KINDS, Call, Head, Kind
from proxy.core.routes import Route, RouteId
from proxy.core.shapes import InboundPart, Shape, read_shape
from proxy.errors import Refused

__all__ = ["CallIds", "recognise"]

MAX_TOOL = 256
"""Characters of a tool's name."""
MAX_RPC_ID = 1024
"""Bytes of a JSON-RPC id, which every answer must repeat."""

# Bound once: reading a member of an enumeration is slow in Python 3.11.
_EVENT, _INBOUND, _ALERT, _OTHER = Kind.EVENT, Kind.INBOUND, Kind.ALERT, Kind.OTHER
_FUNCTION, _ARGS, _TOOLS, _MCP, _LLM = Kind.FUNCTION, Kind.ARGS, Kind.TOOLS, Kind.MCP, Kind.LLM
_FUNCTION_PATH, _TOOLS_PATH, _LLM_PATH = RouteId.FUNCTION, RouteId.TOOLS, RouteId.LLM

_RINGING = frozenset({"call_inbound", "chat_inbound"})
_STRICT = frozenset({RouteId.MCP, RouteId.TOOLS})  # paths on which malformed JSON is refused
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
_WITH_QUERY = frozenset({"GET", "DELETE"})
_LATEST_MS = 2**53
_NO_ARGUMENTS = b"{}"
_RPC_ID_STARTS = frozenset(bytes([byte]) for byte in b'"-0123456789')


def recognise(route: Route, head: Head, body: bytes, ids: CallIds) -> Call:
    """The call behind a request; raises `Refused` for what no arm may be asked.

    The codes of refusals that want JSON-RPC's form begin with `rpc_`.
    """
    call = Call(_OTHER, head, body)
    try:
        if route.id is _FUNCTION_PATH:
            _on_function_path(call, route, ids)
        elif route.id is _LLM_PATH:
            call.kind, call.id = _LLM, usable(route.call_id)
        else:
            _by_shape(call, route)
    except ValueError as fault:
        if route.id in _STRICT:
            raise Refused(400, "malformed_json", "The body is not valid JSON.") from fault
        return Call(_OTHER, head, body)
    if call.kind not in route.kinds:
        return Call(_OTHER, head, body)
    if call.id is None and call.kind in TOOL_KINDS:
        call.id = beside_body(head, ids, route.call_id)
    return call


def _by_shape(call: Call, route: Route) -> None:
    shape, _ = read_shape(call.body)
    strict = route.id in _STRICT
    if shape is None:
        if strict and call.body.lstrip()[:1] == b"[":
            raise Refused(400, "rpc_batch", "Batches are not taken: one message per request.")
    elif shape.jsonrpc is not UNSET and _is_rpc(shape, strict=strict):
        _rpc(call, shape)
    elif shape.event is not None and _is_event(shape):
        _event(call, shape, shape.event)
    elif shape.name and shape.args is not UNSET:
        _function(call, shape, shape.name)
    elif shape.tool and (shape.arguments is not UNSET or route.id is _TOOLS_PATH):
        call.kind, call.id = _TOOLS, usable(shape.call_id)
        call.tool, call.arguments = _tool(shape.tool), _arguments(shape.arguments)


def _is_rpc(shape: Shape, *, strict: bool) -> bool:
    """A request or a notification; answers and other versions are nothing that an arm takes."""
    if shape.method and shape.jsonrpc is not UNSET and bytes(shape.jsonrpc) == b'"2.0"':
        return True
    if strict:
        raise Refused(400, "rpc_bad_request", "The body is no JSON-RPC 2.0 request.")
    return False


def _rpc(call: Call, shape: Shape) -> None:
    call.kind, call.rpc_method = _MCP, shape.method
    if shape.id is not UNSET:
        call.rpc_id = _rpc_id(bytes(shape.id))
    if shape.method == "tools/call" and shape.params is not None:
        call.tool = _tool(shape.params.name) if shape.params.name else None
        call.arguments = _arguments(shape.params.arguments)


def _rpc_id(text: bytes) -> bytes:
    if text[:1] not in _RPC_ID_STARTS or len(text) > MAX_RPC_ID:
        raise Refused(400, "rpc_bad_id", "A JSON-RPC id is a short string or a number.")
    return _checked(text)


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
    call.kind, call.tool, call.arguments = _FUNCTION, _tool(name), _arguments(shape.args)
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
        _args(call, route, _NO_ARGUMENTS)
    elif method in _WITH_BODY:
        shape, text = read_shape(call.body)
        if shape is None:
            return
        if (shape.call or shape.chat) is None or not shape.name or shape.args is UNSET:
            _args(call, route, _checked(text))
        elif shape.name == route.tool:
            _function(call, shape, shape.name)
        else:
            raise Refused(400, "tool_mismatch", "The body names another tool than the path.")


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


def _tool(name: str) -> str:
    # A tool may become a segment of an arm's path: never a way up.
    if len(name) > MAX_TOOL or name in (".", ".."):
        raise Refused(400, "bad_tool", "This is no name of a tool.")
    return name


def _arguments(raw: Raw | UnsetType) -> bytes:
    text = _NO_ARGUMENTS if raw is UNSET else bytes(raw)
    return _NO_ARGUMENTS if text == b"null" else _checked(text)


def _checked(text: bytes) -> bytes:
    """Raises ValueError if it is no UTF-8; what JSON passes over is not looked at so closely."""
    if not text.isascii():
        text.decode()
    return text
