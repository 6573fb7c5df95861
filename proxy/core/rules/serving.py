"""Does what the rules say of tools make a catalogue that MCP clients can read?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from proxy.core.model import Effect
from proxy.core.rules.finding import Finding, Path
from proxy.core.rules.model import Rules
from proxy.core.rules.parse import describe
from proxy.core.rules.tools import DEFAULT, ToolEntry
from proxy.core.suggest import nearest

HINTS = ("readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint")
"""MCP's annotations that are true or false; `title` is a text."""

_KNOWN = (*HINTS, "title")


def of_serving(rules: Rules) -> Iterator[Finding]:
    """Every finding about `description`, schemas, `annotations` and names on the arms."""
    for name, entry in rules.tools.items():
        path: Path = ("tools", name)
        yield from _of_input(path, entry)
        yield from _of_output(path, entry)
        yield from _of_annotations(path, entry)
    yield from _of_names(rules)


def _of_input(path: Path, entry: ToolEntry) -> Iterator[Finding]:
    schema, at = entry.input_schema, (*path, "input_schema")
    if schema is None:
        return
    if schema.get("type") != "object":
        message = "arguments are an object, and MCP clients refuse a schema that does not say so"
        yield Finding(at, message, "write type: object in it")
    elif not isinstance(schema.get("properties", {}), dict):
        yield Finding((*at, "properties"), "expected a mapping from names to schemas")
    yield from _of_json(at, schema)


def _of_output(path: Path, entry: ToolEntry) -> Iterator[Finding]:
    schema, at = entry.output_schema, (*path, "output_schema")
    if schema is None:
        return
    if schema.get("type") != "object":
        message = "before 2026-07-28 MCP knows only objects: older clients are not told of it"
        yield Finding(at, message, "write type: object in it, if it is one", warning=True)
    yield from _of_json(at, schema)


def _of_annotations(path: Path, entry: ToolEntry) -> Iterator[Finding]:
    said, at = entry.annotations, (*path, "annotations")
    for hint, value in (said or {}).items():
        if hint in HINTS and not isinstance(value, bool):
            yield Finding((*at, hint), f"expected true or false, got {describe(value)}")
        elif hint == "title" and not isinstance(value, str):
            yield Finding((*at, hint), f"expected text, got {describe(value)}")
        elif hint not in _KNOWN and (meant := nearest(hint, _KNOWN)) is not None:
            message = f"'{hint}' is no hint of MCP"
            hint_for = f"did you mean '{meant}'?"
            yield Finding((*at, hint), message, hint_for, at_key=True, warning=True)
    yield from _of_json(at, said or {})
    yield from _of_effect(at, entry, said or {})


def _of_effect(at: Path, entry: ToolEntry, said: Mapping[str, Any]) -> Iterator[Finding]:
    """Clients and callsplit should hear the same of a tool."""
    hint, effect = said.get("readOnlyHint"), entry.effect
    if isinstance(hint, bool) and effect is not None and hint is not (effect is Effect.READ):
        message = f"clients hear {str(hint).lower()}, but its effect here is {effect}"
        yield Finding((*at, "readOnlyHint"), message, "callsplit goes by the effect", warning=True)


def _of_json(at: Path, value: Mapping[str, Any]) -> Iterator[Finding]:
    """It is listed as JSON: no number beyond 64 bits, no key but texts, nothing too deep."""
    try:
        orjson.dumps(value)
    except TypeError as error:
        yield Finding(at, f"cannot be written as JSON: {str(error).lower()}")


def _of_names(rules: Rules) -> Iterator[Finding]:
    """A caller that uses an arm's own name for a tool can mean only one tool."""
    for arm in rules.backends:
        taken: dict[str, str] = {}
        named = [(name, entry) for name, entry in rules.tools.items() if name != DEFAULT]
        for name, entry in sorted(named, key=lambda each: arm in each[1].names):
            there = entry.names.get(arm, name)
            if there in taken:
                message = f"'{taken[there]}' has that name on {arm} already"
                why = f"MCP callers that say '{there}' reach '{taken[there]}'"
                yield Finding(("tools", name, "names", arm), message, why, warning=True)
            taken.setdefault(there, name)
