"""How does what a server of one era says read to a caller of the other?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec
import orjson
from msgspec import Raw

from proxy.core.dialects import jsonrpc
from proxy.core.dialects.jsonrpc import RpcError
from proxy.core.dialects.members import document_of, members_of
from proxy.core.model import Era

SERVER_INFO: Final = "io.modelcontextprotocol/serverInfo"

MAY_BE_KEPT: Final = frozenset(
    {
        "server/discover",
        "tools/list",
        "prompts/list",
        "resources/list",
        "resources/templates/list",
        "resources/read",
    }
)
"""Methods whose modern results must say for how long: ours say, not at all."""

_STATUSES: Final = {
    jsonrpc.METHOD_NOT_FOUND: 404,
    **dict.fromkeys((-32700, jsonrpc.INVALID_REQUEST, jsonrpc.INVALID_PARAMS), 400),
    **dict.fromkeys((jsonrpc.HEADER_MISMATCH, -32021, jsonrpc.UNSUPPORTED_VERSION), 400),
}
_array = msgspec.json.Decoder(list[Raw])
_encode = msgspec.json.Encoder().encode
_NO_RESOURCE: Final = -32002  # Until 2025-11-25; then invalid params.

# Without a stream of the server's own accord nothing tells of changes.
_PASSED_ON: Final = ("tools", "prompts", "resources", "completions", "experimental", "extensions")
_WITHOUT_NEWS: Final = frozenset({"listChanged", "subscribe"})


@dataclass(frozen=True, slots=True)
class Welcome:
    """How a server introduced itself: the answer to `initialize`, or to `server/discover`."""

    version: bytes = b""  # that a legacy server agreed to
    server_info: bytes = jsonrpc.SELF  # raw JSON
    capabilities: Mapping[str, Raw] = field(default_factory=dict)
    instructions: str = ""


def read_welcome(result: bytes) -> Welcome:
    """Read the result of either; raises ValueError if it is none.  What is odd reads as absent."""
    said = members_of(result)
    info = said.get("serverInfo") or _object(said.get("_meta")).get(SERVER_INFO)
    version = _text(said.get("protocolVersion"))
    return Welcome(
        version.encode() if version.isascii() and version.isprintable() else b"",
        bytes(info) if info is not None and _object(info) else jsonrpc.SELF,
        _object(said.get("capabilities")),
        _text(said.get("instructions")),
    )


def discovered(welcome: Welcome) -> bytes:
    """A legacy server's introduction as the result of a `server/discover`."""
    said = {"supportedVersions": Raw(b'["%b"]' % jsonrpc.MODERN_VERSION)}
    return for_modern("server/discover", document_of(said | _common(welcome)), welcome.server_info)


def initialized(welcome: Welcome, params: Mapping[str, Raw]) -> bytes:
    """A modern server's introduction as the result of an `initialize` with these params."""
    asked = _text(params.get("protocolVersion")).encode()
    version = asked if asked in jsonrpc.HANDSHAKE_VERSIONS else jsonrpc.LEGACY_VERSION
    said = {"protocolVersion": Raw(b'"%b"' % version), "serverInfo": Raw(welcome.server_info)}
    return document_of(said | _common(welcome))


def _common(welcome: Welcome) -> dict[str, Raw]:
    able = {
        name: Raw(_without_news(welcome.capabilities[name]))
        for name in _PASSED_ON
        if name in welcome.capabilities
    }
    said = {"capabilities": Raw(document_of(able))}
    if welcome.instructions:
        said["instructions"] = Raw(orjson.dumps(welcome.instructions))
    return said


def _without_news(capability: Raw) -> bytes:
    details = _object(capability)
    return document_of({k: v for k, v in details.items() if k not in _WITHOUT_NEWS})


def for_modern(method: str, result: bytes, server_info: bytes) -> bytes:
    """A legacy result with what every modern one must say; raises ValueError if it is no object."""
    said = members_of(result)
    said.setdefault("resultType", Raw(b'"complete"'))
    if method in MAY_BE_KEPT:
        said.setdefault("ttlMs", Raw(b"0"))
        said.setdefault("cacheScope", Raw(b'"private"'))
    meta = _object(said.get("_meta"))
    meta.setdefault(SERVER_INFO, Raw(server_info))
    said["_meta"] = Raw(document_of(meta))
    return document_of(said)


def asks_for_more(result: bytes) -> bool:
    """A modern result that is not the last word: its caller is to answer questions first."""
    return _text(_object(Raw(result)).get("resultType")) not in ("", "complete")


def for_legacy(method: str, result: bytes) -> bytes | None:
    """A modern result for a legacy caller; None: it asks for what such a caller cannot give.

    Raises ValueError if it is no object.
    """
    said = members_of(result)
    if asks_for_more(result):
        return None
    said.pop("resultType", None)
    said.pop("ttlMs", None)
    said.pop("cacheScope", None)
    if method == "tools/list":
        said["tools"] = Raw(_of_objects(said.get("tools", Raw(b"[]"))))
    elif method == "tools/call" and bytes(said.get("structuredContent", b"{"))[:1] != b"{":
        del said["structuredContent"]
    return document_of(said)


def _of_objects(tools: Raw) -> bytes:
    """The tools without output schemas that describe no object: to older clients they are wrong."""
    try:
        listed = _array.decode(tools)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError("no list of tools") from error
    kept = []
    for each in listed:
        tool = _object(each)
        schema = tool.get("outputSchema")
        if schema is not None and _text(_object(schema).get("type")) != "object":
            del tool["outputSchema"]
            kept.append(Raw(document_of(tool)))
        else:
            kept.append(each)
    return _encode(kept)


def code_for(era: Era, error: RpcError) -> int:
    """The code of a server's error for a caller of that era."""
    retired = era is Era.MODERN and error.code == _NO_RESOURCE
    return jsonrpc.INVALID_PARAMS if retired else error.code


def status_of(era: Era, code: int) -> int:
    """The HTTP status that goes with an error's code."""
    return _STATUSES.get(code, 200) if era is Era.MODERN else 200


def _object(raw: Raw | None) -> dict[str, Raw]:
    try:
        return members_of(bytes(raw)) if raw is not None else {}
    except ValueError:
        return {}


def _text(raw: Raw | None) -> str:
    try:
        text = orjson.loads(bytes(raw)) if raw is not None else ""
    except orjson.JSONDecodeError:
        return ""
    return text if isinstance(text, str) else ""
