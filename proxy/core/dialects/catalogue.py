"""What does an MCP server say of its tools, and what does that ask of a caller?"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import orjson

from proxy.core.dialects.jsonrpc import header_text
from proxy.core.model import Effect, Headers

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110, 5.6.2
_MIRRORED_TYPES = ("string", "integer", "boolean")
_DEPTH = 32

Mirror: TypeAlias = tuple[tuple[str, ...], bytes]
"""The path of an argument, and the header that must repeat its value."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One tool, as its server lists it."""

    name: str
    annotations: Mapping[str, Any] = field(default_factory=dict)
    output_schema: Mapping[str, Any] | None = None
    mirrors: tuple[Mirror, ...] = ()
    raw: bytes = b""  # the JSON object that the server listed
    askable: bool = True  # False: its x-mcp-header is malformed, and no client may (2026-07-28)

    @property
    def read_only(self) -> bool:
        """The server says that running it changes nothing."""
        return self.annotations.get("readOnlyHint") is True

    @property
    def idempotent(self) -> bool:
        """The server says that it may run twice here; of other servers that says nothing."""
        return self.read_only or self.annotations.get("idempotentHint") is True

    @property
    def effect(self) -> Effect:
        """What the server's hints say of running it twice, on this server."""
        if self.read_only:
            return Effect.READ
        return Effect.IDEMPOTENT if self.idempotent else Effect.WRITE

    def param_headers(self, arguments: bytes) -> Headers:
        """The `Mcp-Param-*` headers of a call; `arguments` is raw JSON (2026-07-28, transports)."""
        if not self.mirrors:
            return []
        try:
            values = orjson.loads(arguments)
        except orjson.JSONDecodeError:
            return []
        found = ((name, _rendered(_at(values, path))) for path, name in self.mirrors)
        return [(name, header_text(text)) for name, text in found if text is not None]


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What an MCP server says of itself: its tools, and how it introduces itself."""

    tools: Mapping[str, Listed]  # in the server's own order
    whole: bool = True  # listed to its last page
    instructions: str = ""  # for the model

    @property
    def effects(self) -> dict[str, Effect]:
        """Of every tool, by the server's own names."""
        return {name: tool.effect for name, tool in self.tools.items()}


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a `tools/list`; an empty cursor is a cursor, None is the end."""

    tools: tuple[Listed, ...]
    cursor: str | None


def parse_page(result: bytes) -> Page:
    """Read the result of a `tools/list`; raises ValueError if it is none."""
    page = orjson.loads(result)
    tools = page.get("tools") if isinstance(page, dict) else None
    if not isinstance(tools, list):
        raise ValueError("no result of tools/list")
    cursor = page.get("nextCursor")
    return Page(tuple(_listed(tools)), cursor if isinstance(cursor, str) else None)


def _listed(tools: list[Any]) -> Iterator[Listed]:
    for tool in tools:
        name = tool.get("name") if isinstance(tool, dict) else None
        if not isinstance(name, str):
            continue
        try:
            raw = orjson.dumps(tool)
        except TypeError:  # nested deeper than anybody reads
            continue
        annotations, schema = tool.get("annotations"), tool.get("outputSchema")
        mirrors = _mirrors(tool.get("inputSchema"))
        yield Listed(
            name,
            annotations if isinstance(annotations, dict) else {},
            schema if isinstance(schema, dict) else None,
            mirrors or (),
            raw,
            askable=mirrors is not None,
        )


def _mirrors(schema: Any) -> tuple[Mirror, ...] | None:
    """The arguments that a schema wants repeated in headers; None if it says so wrongly."""
    found: list[Mirror] = []
    seen: set[str] = set()
    for path, token, kind in _annotated(schema, ()):
        usable = isinstance(token, str) and _TOKEN.fullmatch(token) and kind in _MIRRORED_TYPES
        if not usable or token.lower() in seen:
            return None
        seen.add(token.lower())
        found.append((path, b"mcp-param-" + token.encode()))
    return tuple(found)


def _annotated(schema: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any, Any]]:
    properties = schema.get("properties") if isinstance(schema, dict) else None
    if not isinstance(properties, dict) or len(path) >= _DEPTH:
        return
    for name, inner in properties.items():
        if isinstance(inner, dict) and "x-mcp-header" in inner:
            yield (*path, name), inner["x-mcp-header"], inner.get("type")
        yield from _annotated(inner, (*path, name))


def _at(value: Any, path: tuple[str, ...]) -> Any:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _rendered(value: Any) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value) if isinstance(value, str | int | float) else None
