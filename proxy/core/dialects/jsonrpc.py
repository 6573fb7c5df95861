"""How does MCP's JSON-RPC read, asked and answered, in both of its eras?

Modern (2026-07-28): every POST describes itself.  Legacy (up to 2025-11-25): here only in its
stateless form, a bare request without a handshake.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import orjson
from msgspec import Raw

from proxy import __version__
from proxy.core.model import Era, Headers

MODERN_VERSION = b"2026-07-28"
LEGACY_VERSION = b"2025-11-25"
HANDSHAKE_VERSIONS = frozenset({b"2024-11-05", b"2025-03-26", b"2025-06-18", LEGACY_VERSION})

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
UNSUPPORTED_VERSION = -32022
MISSING_CAPABILITY = -32021
HEADER_MISMATCH = -32020

SELF = b'{"name":"callsplit","version":%b}' % orjson.dumps(__version__)
META = (
    b'{"io.modelcontextprotocol/protocolVersion":"%b",'
    b'"io.modelcontextprotocol/clientCapabilities":{},'
    b'"io.modelcontextprotocol/clientInfo":%b}' % (MODERN_VERSION, SELF)
)
COMPLETE = b'"resultType":"complete","_meta":{"io.modelcontextprotocol/serverInfo":%b},' % SELF
JSON_FIELDS: Headers = [
    (b"content-type", b"application/json"),
    (b"accept", b"application/json, text/event-stream"),
    (b"accept-encoding", b"identity"),
]


def era_of(named: Mapping[bytes, bytes]) -> Era:
    """The era of a request, by its version header; none at all is the oldest legacy."""
    version = named.get(b"mcp-protocol-version")
    return Era.LEGACY if version is None or version in HANDSHAKE_VERSIONS else Era.MODERN


def header_text(text: str) -> bytes:
    """A text as a header's value, wrapped in `=?base64?...?=` if it would not survive plain."""
    plain = text.isascii() and text.isprintable() and text == text.strip()
    if plain and not (text.startswith("=?base64?") and text.endswith("?=")):
        return text.encode()
    return b"=?base64?%b?=" % b64encode(text.encode())


@dataclass(frozen=True, slots=True)
class Request:
    """One method of one era, all but its ID and its raw JSON value."""

    headers: Headers
    before: bytes
    after: bytes

    def body(self, rpc_id: bytes, value: bytes = b"") -> bytes:
        """The message; `value` is what the request was made to carry."""
        return b'{"jsonrpc":"2.0","id":%b,%b%b%b' % (rpc_id, self.before, value, self.after)


def tools_call(era: Era, tool: str) -> Request:
    """A `tools/call`, to be made whole with the raw JSON of its arguments."""
    before = b'"method":"tools/call","params":{"name":%b,"arguments":' % orjson.dumps(tool)
    return _request(era, b"tools/call", before, [(b"mcp-name", header_text(tool))])


def tools_list(era: Era, cursor: str | None = None) -> Request:
    """A `tools/list`, from its start or from a cursor."""
    at = b"" if cursor is None else b'"cursor":%b' % orjson.dumps(cursor)
    return _request(era, b"tools/list", b'"method":"tools/list","params":{%b' % at, [])


def server_discover() -> Request:
    """A `server/discover`; only the modern era has it."""
    return _request(Era.MODERN, b"server/discover", b'"method":"server/discover","params":{', [])


def _request(era: Era, method: bytes, before: bytes, own: Headers) -> Request:
    if era is Era.LEGACY:
        return Request([*JSON_FIELDS, (b"mcp-protocol-version", LEGACY_VERSION)], before, b"}}")
    routing = [(b"mcp-protocol-version", MODERN_VERSION), (b"mcp-method", method), *own]
    comma = b"" if before.endswith(b"{") else b","
    return Request([*JSON_FIELDS, *routing], before, b'%b"_meta":%b}}' % (comma, META))


class _Block(msgspec.Struct, gc=False):
    type: str = ""
    text: str = ""


class _Result(msgspec.Struct, rename="camel", gc=False):
    content: list[_Block] = []
    structured_content: Raw = Raw()
    is_error: bool | None = None
    result_type: str | None = None  # Absent before 2026-07-28: then complete.
    ttl_ms: Any = None
    cache_scope: Any = None


class _Error(msgspec.Struct, gc=False):
    code: int
    message: str = ""
    data: Raw = Raw()


class _Message(msgspec.Struct, gc=False):
    id: Raw = Raw()
    result: Raw = Raw()
    error: _Error | None = None


class _ToolMessage(msgspec.Struct, gc=False):
    id: Raw = Raw()
    result: _Result | None = None
    error: _Error | None = None


_message = msgspec.json.Decoder(_Message)
_tool_message = msgspec.json.Decoder(_ToolMessage)


@dataclass(frozen=True, slots=True)
class RpcError:
    """The error of a JSON-RPC answer; `data` is raw JSON, b"" if there is none."""

    code: int
    message: str
    data: bytes = b""


@dataclass(frozen=True, slots=True)
class ToolResult:
    """What a tool said.  `structured` is raw JSON, b"" if none; the last two are unchecked."""

    text: str
    structured: bytes = b""
    is_error: bool = False
    ttl_ms: Any = None
    cache_scope: Any = None


def parse_answer(message: bytes, rpc_id: bytes) -> bytes | RpcError | None:
    """Read the answer to request `rpc_id` (raw JSON): its result as raw JSON, or its error.

    None if `message` is something else (a notification, say).  Servers refuse with an ID of
    null or of their own making, so an error is taken whatever its ID.  Raises ValueError
    if this is no JSON-RPC message.
    """
    try:
        found = _message.decode(message)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ValueError("no JSON-RPC message") from error
    if found.error is not None:
        return _rpc_error(found.error)
    return bytes(found.result) or None if _is_id(found.id, rpc_id) else None


def parse_tool_answer(
    message: bytes, rpc_id: bytes, *, complete: bool = True
) -> ToolResult | RpcError | None:
    """Read the answer to a `tools/call`, otherwise like `parse_answer`.

    Raises ValueError also for a result that is none of a tool, or, unless `complete` is False,
    for one that asks for more input: nothing that we declare ourselves allows that.
    """
    try:
        found = _tool_message.decode(message)
        if found.error is not None:
            return _rpc_error(found.error)
        if found.result is None or not _is_id(found.id, rpc_id):
            return None
        if complete and found.result.result_type not in (None, "complete"):
            raise ValueError("a result that is not complete")
        return _tool_result(found.result)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise ValueError("no answer to tools/call") from error


def _rpc_error(error: _Error) -> RpcError:
    return RpcError(error.code, error.message, bytes(error.data))


def _is_id(raw: Raw, rpc_id: bytes) -> bool:
    found = bytes(raw)
    if found == rpc_id:
        return True
    if not found:
        return False
    one, other = orjson.loads(found), orjson.loads(rpc_id)
    return str(one) == str(other)  # Some servers keep IDs as text, or write them differently.


def _tool_result(found: _Result) -> ToolResult:
    """The text blocks are what was said; without any it is the structured content."""
    structured = bytes(found.structured_content)
    if structured == b"null":
        structured = b""
    as_text = structured.decode()  # It was taken unread: this is the check of its encoding.
    texts = [block.text for block in found.content if block.type == "text"]
    said = "\n".join(texts or [as_text])
    return ToolResult(said, structured, bool(found.is_error), found.ttl_ms, found.cache_scope)


def render_result(rpc_id: bytes, era: Era, result: ToolResult) -> bytes:
    """A tool's result for a caller; `rpc_id` is the raw JSON of the caller's own ID."""
    structured = b',"structuredContent":%b' % result.structured if result.structured else b""
    return b'{"jsonrpc":"2.0","id":%b,"result":{%b"content":[%b]%b,"isError":%b}}' % (
        rpc_id,
        COMPLETE if era is Era.MODERN else b"",
        b'{"type":"text","text":%b}' % orjson.dumps(result.text),
        structured,
        b"true" if result.is_error else b"false",
    )


def render_error(rpc_id: bytes, code: int, message: str, data: bytes = b"") -> bytes:
    """An error for a caller; `rpc_id` is the raw JSON of the caller's own ID, as is `data`."""
    return b'{"jsonrpc":"2.0","id":%b,"error":{"code":%d,"message":%b%b}}' % (
        rpc_id,
        code,
        orjson.dumps(message),
        b',"data":%b' % data if data else b"",
    )
