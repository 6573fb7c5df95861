"""Does an MCP message say the same in its head and its body, as its era demands?

Who reads the body must not believe the head alone: so it is checked here, before any arm is asked.
Source: MCP 2026-07-28, Streamable HTTP, with the codes and statuses of its Python SDK's server.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from binascii import Error as BadBase64
from typing import Final

import orjson
from msgspec import UNSET

from proxy.core.dialects.jsonrpc import (
    HEADER_MISMATCH,
    INVALID_PARAMS,
    INVALID_REQUEST,
    MODERN_VERSION,
    UNSUPPORTED_VERSION,
)
from proxy.core.mcp.refusal import refusal
from proxy.core.model import Call, Era, Form
from proxy.core.shapes import Params
from proxy.errors import Refused

VERSION: Final = b"mcp-protocol-version"
MAX_REQUESTED: Final = 64
"""Characters of a version that we do not know, as we repeat it."""

# Bound once: reading a member of an enumeration is slow in Python 3.11.
_MODERN, _REQUEST = Era.MODERN, Form.REQUEST

_METHOD, _NAME = b"mcp-method", b"mcp-name"
_ROUTING: Final = frozenset({VERSION, _METHOD, _NAME})
_VERSION_TEXT: Final = MODERN_VERSION.decode()
_VERSION_JSON: Final = b'"%b"' % MODERN_VERSION
_NAMED_BY: Final = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
_WRAPPED: Final = re.compile(r"=\?base64\?(.*)\?=", re.DOTALL).fullmatch
_BAD_META: Final = "params._meta must hold protocolVersion and clientCapabilities."


def check_version(call: Call) -> None:
    """The version header stands once, and names a version that there is; raises `Refused`."""
    head = call.head
    if head.repeated and VERSION in head.repeated:
        code = HEADER_MISMATCH if call.era is _MODERN else INVALID_REQUEST
        raise _refusal(call, "rpc_bad_header", "The version header stands twice.", code)
    if call.era is not _MODERN or head.named[VERSION] == MODERN_VERSION:
        return
    requested = head.named[VERSION].decode("latin-1")[:MAX_REQUESTED]
    data = orjson.dumps({"supported": [_VERSION_TEXT], "requested": requested})
    message = "This version of the protocol is not spoken here."
    raise _refusal(call, "rpc_version", message, UNSUPPORTED_VERSION, data)


def check_request(call: Call, params: Params) -> None:
    """A request of the modern era describes itself, twice and alike; raises `Refused`."""
    head, meta = call.head, params.meta
    if head.repeated and not _ROUTING.isdisjoint(head.repeated):
        raise _mismatch(call, "A routing header stands twice.")
    if meta is None or meta.version is UNSET or meta.capabilities is UNSET:
        raise _refusal(call, "rpc_bad_meta", _BAD_META, INVALID_PARAMS)
    version = bytes(meta.version)
    if version != _VERSION_JSON and _text(version) != _VERSION_TEXT:
        raise _mismatch(call, "MCP-Protocol-Version is not what params._meta says.")
    _check_routing(call, params)
    if bytes(meta.capabilities)[:1] != b"{":
        raise _refusal(call, "rpc_bad_meta", _BAD_META, INVALID_PARAMS)


def _check_routing(call: Call, params: Params) -> None:
    named, method = call.head.named, call.rpc_method or ""
    if _plain(named.get(_METHOD)) != method:
        raise _mismatch(call, "Mcp-Method is not the method.")
    key = _NAMED_BY.get(method)
    if key is None:
        return
    name = params.uri if key == "uri" else params.name
    if name is None:
        raise _refusal(call, "rpc_bad_params", f"params.{key} must be a text.", INVALID_PARAMS)
    if _unwrapped(_plain(named.get(_NAME))) != name:
        raise _mismatch(call, f"Mcp-Name is not params.{key}.")


def _refusal(call: Call, code: str, message: str, rpc_code: int, data: bytes = b"") -> Refused:
    rpc_id = call.rpc_id if call.form is _REQUEST else None
    return refusal(code, message, rpc_id=rpc_id, rpc_code=rpc_code, data=data)


def _mismatch(call: Call, message: str) -> Refused:
    return _refusal(call, "rpc_header_mismatch", message, HEADER_MISMATCH)


def _plain(value: bytes | None) -> str | None:
    return None if value is None else value.strip(b" \t").decode("latin-1")


def _unwrapped(value: str | None) -> str | None:
    """What a header says that may be wrapped; None if the wrapping is broken.

    It is broken, too, where ours would look different: else one name had many spellings.
    """
    match = None if value is None else _WRAPPED(value)
    if match is None:
        return value
    try:
        raw = b64decode(match[1], validate=True)
        return raw.decode() if b64encode(raw).decode() == match[1] else None
    except (BadBase64, ValueError):
        return None


def _text(raw: bytes) -> str | None:
    """The JSON text that stands there; None if it is something else."""
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    return value if isinstance(value, str) else None
