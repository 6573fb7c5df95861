"""The JSON Schema of a rules file, for editors."""

from __future__ import annotations

from typing import Any

from proxy.core.rules.base import Section
from proxy.core.rules.model import Rules
from proxy.core.rules.shape import keys

_PLACE = {"type": "string", "pattern": r"\$\{", "description": "filled from the environment"}
_NEEDS_PLACE = frozenset({"integer", "number", "boolean"})


def rules_schema() -> dict[str, Any]:
    """As pydantic has it, but every number and switch may also be `${NAME:-default}`."""
    schema = Rules.model_json_schema()
    for section in {key.home for key in keys()}:
        place = schema if section is Rules else schema["$defs"][section.__name__]
        _write_defaults(place["properties"], section)
    head = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "callsplit rules",
        "description": "Which calls go where. Generated: callsplit rules schema.",
    }
    widened: dict[str, Any] = _widened({key: schema[key] for key in schema if key not in head})
    return head | widened


def _write_defaults(properties: dict[str, Any], section: type[Section]) -> None:
    """As ops write them; pydantic shows what they become.  A section's own are its keys'."""
    written = section.model_construct().model_dump(mode="json", warnings=False)
    for name, schema in properties.items():
        schema.pop("default", None)
        if name in written and "$ref" not in schema:
            schema["default"] = written[name]


def _widened(node: Any) -> Any:
    if isinstance(node, list):
        return [_widened(inner) for inner in node]
    if not isinstance(node, dict):
        return node
    widened = {name: _widened(inner) for name, inner in node.items() if not _is_title(name, inner)}
    if node.get("type") not in _NEEDS_PLACE:
        return widened
    about = {name: widened.pop(name) for name in ("default", "description") if name in widened}
    return {"anyOf": [widened, _PLACE], **about}


def _is_title(name: str, inner: Any) -> bool:
    """Pydantic's titles only repeat the key (and a key of that name holds no text)."""
    return name == "title" and isinstance(inner, str)
