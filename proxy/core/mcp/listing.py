"""Which tools do we list for callers whose own server is not asked?

What the server listed last, with what the rules say of each tool in its place; then the tools that
only the rules describe.  Every tool stands under the name that its server has for it, so that a
caller finds the same names whichever arm it is on.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import orjson

from proxy.core.dialects.catalogue import Catalogue
from proxy.core.model import Era
from proxy.core.rules.tools import Tool
from proxy.core.tool_table import names_on

ANY_OBJECT: Mapping[str, Any] = {"type": "object"}
"""The input schema of a tool of which nobody says what it takes."""


def listing(tools: Collection[Tool], arm: str, catalogue: Catalogue | None, era: Era) -> bytes:
    """The JSON array of all tools; `arm` is the one whose names they have.

    The server's own output schemas are left out: another arm need not hold to them.
    """
    ruled = names_on(arm, tools)
    said = catalogue.tools if catalogue is not None else {}
    listed = [_merged(orjson.loads(each.raw), ruled.get(name), era) for name, each in said.items()]
    listed += [
        _merged({"name": name}, tool, era)
        for name, tool in _in_order(ruled, tools)
        if name not in said and (tool.input_schema is not None or tool.description is not None)
    ]
    return b"[%b]" % b",".join(map(orjson.dumps, listed))


def promised(tool: Tool, era: Era) -> Mapping[str, Any] | None:
    """The output schema that the rules declare, if callers of that era can be told of it.

    Before 2026-07-28 it describes an object, or a client may refuse the whole list.
    """
    schema = tool.output_schema
    if schema is None or (era is Era.LEGACY and schema.get("type") != "object"):
        return None
    return schema


def _in_order(ruled: Mapping[str, Tool], tools: Collection[Tool]) -> list[tuple[str, Tool]]:
    """As the rules have them."""
    places = {tool.name: place for place, tool in enumerate(tools)}
    return sorted(ruled.items(), key=lambda each: places[each[1].name])


def _merged(said: dict[str, Any], tool: Tool | None, era: Era) -> dict[str, Any]:
    """What a server said of a tool, and over it what the rules say."""
    said.pop("outputSchema", None)
    said["inputSchema"] = _takes(said.get("inputSchema"))
    if tool is None:
        return said
    if tool.description is not None:
        said["description"] = tool.description
    if tool.input_schema is not None:
        said["inputSchema"] = tool.input_schema
    if tool.annotations is not None:
        before = said.get("annotations")
        said["annotations"] = {**(before if isinstance(before, dict) else {}), **tool.annotations}
    schema = promised(tool, era)
    if schema is not None:
        said["outputSchema"] = schema
    return said


def _takes(schema: Any) -> Mapping[str, Any]:
    """One odd input schema would cost a strict client the whole list."""
    if not isinstance(schema, dict) or schema.get("type", "object") != "object":
        return ANY_OBJECT
    return schema if "type" in schema else {**schema, **ANY_OBJECT}
