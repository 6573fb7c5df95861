"""Which messages do we put to an MCP server ourselves, in each era, for whoever asks?"""

from __future__ import annotations

from typing import Final

import orjson
from msgspec import Raw

from proxy.core.dialects import jsonrpc
from proxy.core.dialects.jsonrpc import JSON_FIELDS, LEGACY_VERSION, META, MODERN_VERSION, Request
from proxy.core.dialects.members import document_of, members_of
from proxy.core.model import Era, Headers

RESERVED: Final = "io.modelcontextprotocol/"
"""What begins the names in `_meta` that only the modern revision gives a meaning."""

INITIALIZED: Final = b'{"jsonrpc":"2.0","method":"notifications/initialized"}'

_ABOUT_US: Final = members_of(META)
_NAMED_BY: Final = {"tools/call": "name", "prompts/get": "name", "resources/read": "uri"}
_ONLY_MODERN: Final = ("inputResponses", "requestState")


def initialize(params: bytes) -> Request:
    """The first message of a legacy session; it alone has no version in its head."""
    before = b'"method":"initialize","params":%b' % params
    return Request([*JSON_FIELDS], before, b"}")


def introduction(version: bytes = LEGACY_VERSION) -> bytes:
    """The params of an `initialize` of our own: we promise the server nothing."""
    return b'{"protocolVersion":"%b","capabilities":{},"clientInfo":%b}' % (version, jsonrpc.SELF)


def cancelled(rpc_id: bytes) -> bytes:
    """The legacy notification that takes request `rpc_id` (raw JSON) back."""
    return (
        b'{"jsonrpc":"2.0","method":"notifications/cancelled",'
        b'"params":{"requestId":%b,"reason":"Nobody waits for the answer any more."}}' % rpc_id
    )


def any_request(era: Era, method: str, params: dict[str, Raw]) -> Request:
    """A request of any method, to be made whole with the raw JSON of its params.

    Of `params` only what the modern era repeats in the request's head is looked at.
    """
    before = b'"method":%b,"params":' % orjson.dumps(method)
    if era is Era.LEGACY:
        return Request([*JSON_FIELDS, (b"mcp-protocol-version", LEGACY_VERSION)], before, b"}")
    routing = [
        (b"mcp-protocol-version", MODERN_VERSION),
        (b"mcp-method", jsonrpc.header_text(method)),
        *_name(params.get(_NAMED_BY.get(method, ""))),
    ]
    return Request([*JSON_FIELDS, *routing], before, b"}")


def _name(raw: Raw | None) -> Headers:
    try:
        name = orjson.loads(bytes(raw)) if raw is not None else None
    except orjson.JSONDecodeError:
        name = None
    return [(b"mcp-name", jsonrpc.header_text(name))] if isinstance(name, str) else []


def params_of(message: bytes) -> dict[str, Raw]:
    """The params of a caller's request, {} if it has none.

    Raises ValueError if they are no object.
    """
    params = members_of(message).get("params")
    return members_of(bytes(params)) if params is not None else {}


def progress_token(params: dict[str, Raw]) -> bytes | None:
    """By which its caller knows a request's progress, as raw JSON; None: it does not ask."""
    token = _meta(params).get("progressToken")
    return bytes(token) if token is not None else None


def in_era(era: Era, params: dict[str, Raw], token: bytes | None = None) -> bytes:
    """A caller's params as a server of `era` wants them from us; `token` takes that of the caller.

    What its caller says of itself, and can do itself, is not passed on: the server deals with us.
    """
    meta = {k: v for k, v in _meta(params).items() if not k.startswith(RESERVED)}
    meta.pop("progressToken", None)
    if token is not None:
        meta["progressToken"] = Raw(token)
    if era is Era.MODERN:
        meta |= _ABOUT_US
        kept = dict(params)
    else:
        kept = {name: value for name, value in params.items() if name not in _ONLY_MODERN}
    kept.pop("_meta", None)
    if meta:
        kept["_meta"] = Raw(document_of(meta))
    return document_of(kept)


def _meta(params: dict[str, Raw]) -> dict[str, Raw]:
    try:
        return members_of(bytes(params.get("_meta", b"{}")))
    except ValueError:
        return {}
