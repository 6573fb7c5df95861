"""What does an MCP caller ask: in which era, in which form, of which tool?

The version header alone tells the era.
"""

from __future__ import annotations

from typing import Final

from msgspec import UNSET

from proxy.core.dialects.jsonrpc import INVALID_PARAMS, era_of
from proxy.core.mcp.mirrored import VERSION, check_request, check_version
from proxy.core.mcp.refusal import refusal
from proxy.core.model import Call, Era, Form, Kind
from proxy.core.shapes import Params, Shape, read_answer
from proxy.core.tool_call import arguments_of, checked, is_tool
from proxy.errors import Refused

MAX_RPC_ID: Final = 1024
"""Bytes of a JSON-RPC ID, which every answer must repeat."""

# Bound once: reading a member of an enumeration is slow in Python 3.11.
_MCP, _MODERN = Kind.MCP, Era.MODERN
_REQUEST, _NOTIFICATION, _ANSWER = Form.REQUEST, Form.NOTIFICATION, Form.ANSWER
_WITHOUT_BODY: Final = {"GET": Form.STREAM, "DELETE": Form.END}

_BATCH_VERSIONS: Final = frozenset({None, b"2025-03-26"})
_RPC_2: Final = b'"2.0"'
_ID_STARTS: Final = frozenset(bytes([byte]) for byte in b'"-0123456789')


def is_message(shape: Shape, body: bytes) -> bool:
    """A request, a notification or an answer, of the one version of JSON-RPC that MCP has.

    Raises ValueError if the body is no UTF-8, wherever in it.
    """
    checked(body)
    if shape.jsonrpc is UNSET or bytes(shape.jsonrpc) != _RPC_2:
        return False
    if shape.method:
        return True
    answer, _ = read_answer(body)
    assert answer is not None
    if answer.error is not UNSET:  # It may be about a request whose ID could not be read.
        return True
    return answer.result is not UNSET and id_of(shape) is not None


def no_message(shape: Shape | None = None) -> Refused:
    """The refusal of JSON that is no message; it repeats the ID, if that can be one."""
    rpc_id = id_of(shape) if shape is not None else None
    return refusal("rpc_bad_request", "The body is no JSON-RPC 2.0 message.", rpc_id=rpc_id)


def take_message(call: Call, shape: Shape) -> None:
    """Make `call` that of a message; raises `Refused` for what no arm may be asked."""
    _take_era(call)
    if call.head.method != "POST":
        raise _no_method()
    call.rpc_method, call.rpc_id = shape.method, id_of(shape)
    if shape.method is None:
        call.form = _ANSWER
    elif shape.id is UNSET:
        call.form = _NOTIFICATION
    elif call.rpc_id is None:
        raise refusal("rpc_bad_id", "A JSON-RPC ID is a short string or a number.")
    else:
        call.form = _REQUEST
    check_version(call)
    if call.era is _MODERN:
        _check_modern(call, shape.params)
    if shape.method == "tools/call":
        _take_tool(call, shape.params)


def take_stream(call: Call) -> None:
    """Make `call` that of a GET or DELETE, which only the legacy era has; raises `Refused`."""
    _take_era(call)
    if call.era is _MODERN:
        raise _no_method()
    call.form = _WITHOUT_BODY[call.head.method]
    check_version(call)


def take_batch(call: Call) -> None:
    """Make `call` that of a batch, still unread; raises `Refused` in versions that have none."""
    _take_era(call)
    call.form = Form.BATCH
    check_version(call)
    if call.head.named.get(VERSION) not in _BATCH_VERSIONS:
        raise refusal("rpc_batch", "This version has no batches: one message per request.")


def id_of(shape: Shape) -> bytes | None:
    """The ID, as it was written; None if there is none that an answer could repeat."""
    raw = b"" if shape.id is UNSET else bytes(shape.id)
    if raw[:1] not in _ID_STARTS or len(raw) > MAX_RPC_ID:
        return None
    try:
        raw.decode()
    except UnicodeDecodeError:
        return None
    return raw


def _take_era(call: Call) -> None:
    call.kind, call.era = _MCP, era_of(call.head.named)


def _no_method() -> Refused:
    return refusal("method_not_allowed", "Messages come by POST.", status=405, allow="POST")


def _check_modern(call: Call, params: Params | None) -> None:
    if call.form is _REQUEST:
        check_request(call, params or Params())
    elif call.form is _ANSWER:
        raise refusal("rpc_bad_request", "In this version nobody asks a client.")


def _take_tool(call: Call, params: Params | None) -> None:
    if call.rpc_id is None:
        raise refusal("rpc_bad_id", "Who calls a tool waits for its answer: the ID is missing.")
    if params is None:
        return
    name = params.name
    if name and not is_tool(name):
        # A status that fails would cost a legacy client its whole session.
        status = 400 if call.era is _MODERN else 200
        fault, rpc_id = "This is no name of a tool.", call.rpc_id
        raise refusal("bad_tool", fault, rpc_id=rpc_id, rpc_code=INVALID_PARAMS, status=status)
    call.tool, call.arguments = name or None, arguments_of(params.arguments)
    call.continues = params.input_responses is not UNSET or params.request_state is not UNSET
