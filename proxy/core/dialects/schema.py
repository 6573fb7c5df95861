"""Does a value surely conform to a JSON schema?

A part of JSON Schema 2020-12, in the direction that is safe: True is certain, False means
"does not, or it cannot be told here".  It covers what schemas derived from typed code hold.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import ge, gt, le, lt
from typing import Any, TypeAlias

Schema: TypeAlias = Mapping[str, Any]
_Rule: TypeAlias = Callable[[Any, Any, "_Look"], bool]

_DEPTH = 64
_SAYS_NOTHING = frozenset(
    {
        "$comment",
        "$defs",
        "$id",
        "$schema",
        "default",
        "definitions",
        "deprecated",
        "description",
        "examples",
        "readOnly",
        "title",
        "writeOnly",
    }
)


class _Look:
    """Where a check stands: the root for `$ref`, the schema at hand, the depth left."""

    __slots__ = ("depth", "root", "schema")

    def __init__(self, root: Schema, schema: Schema, depth: int) -> None:
        self.root, self.schema, self.depth = root, schema, depth

    def at(self, schema: Any) -> Callable[[Any], bool]:
        """The check of a sub-schema."""
        return lambda value: _holds(value, schema, self.root, self.depth - 1)


def conforms(value: Any, schema: Schema) -> bool:
    """True only if `value` (as JSON decodes) certainly conforms to `schema`."""
    return _holds(value, schema, schema, _DEPTH)


def _holds(value: Any, schema: Any, root: Schema, depth: int) -> bool:
    if isinstance(schema, bool):
        return schema
    if not isinstance(schema, Mapping) or depth <= 0:
        return False
    look = _Look(root, schema, depth)
    return all(
        key in _SAYS_NOTHING or (key in _RULES and _RULES[key](value, rule, look))
        for key, rule in schema.items()
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_TYPES: Mapping[str, Callable[[Any], bool]] = {
    "object": lambda v: isinstance(v, dict),
    "array": lambda v: isinstance(v, list),
    "string": lambda v: isinstance(v, str),
    "boolean": lambda v: isinstance(v, bool),
    "null": lambda v: v is None,
    "number": _is_number,
    "integer": lambda v: _is_number(v) and v == v // 1,
}


def _type(value: Any, rule: Any, _: _Look) -> bool:
    names = rule if isinstance(rule, list) else [rule]
    return any(isinstance(n, str) and n in _TYPES and _TYPES[n](value) for n in names)


def _required(value: Any, rule: Any, _: _Look) -> bool:
    if not isinstance(value, dict):
        return True
    return isinstance(rule, list) and all(isinstance(key, str) and key in value for key in rule)


def _properties(value: Any, rule: Any, look: _Look) -> bool:
    if not isinstance(value, dict):
        return True
    if not isinstance(rule, Mapping):
        return False
    return all(look.at(rule[key])(item) for key, item in value.items() if key in rule)


def _additional(value: Any, rule: Any, look: _Look) -> bool:
    if not isinstance(value, dict):
        return True
    named = look.schema.get("properties", {})
    return isinstance(named, Mapping) and all(
        look.at(rule)(item) for key, item in value.items() if key not in named
    )


def _items(value: Any, rule: Any, look: _Look) -> bool:
    return not isinstance(value, list) or all(map(look.at(rule), value))


def _same(one: Any, other: Any) -> bool:
    """Equal scalars of one type; whether 1 is 1.0 is left to others."""
    return type(one) is type(other) and not isinstance(one, dict | list) and bool(one == other)


def _enum(value: Any, rule: Any, _: _Look) -> bool:
    return isinstance(rule, list) and any(_same(value, option) for option in rule)


def _any_of(value: Any, rule: Any, look: _Look) -> bool:
    return isinstance(rule, list) and any(look.at(option)(value) for option in rule)


def _all_of(value: Any, rule: Any, look: _Look) -> bool:
    return isinstance(rule, list) and all(look.at(option)(value) for option in rule)


def _number(value: Any) -> Any:
    return value if _is_number(value) else None


def _size_of(kind: type[list[Any]] | type[str]) -> Callable[[Any], Any]:
    return lambda value: len(value) if isinstance(value, kind) else None


def _bound(fits: Callable[[Any, Any], bool], measure: Callable[[Any], Any]) -> _Rule:
    """A limit; values of which there is nothing to `measure` (None) keep to it."""

    def holds(value: Any, rule: Any, _: _Look) -> bool:
        size = measure(value)
        return size is None or (_is_number(rule) and fits(size, rule))

    return holds


def _ref(value: Any, rule: Any, look: _Look) -> bool:
    """A reference into `$defs` of the same document, the only kind that typed code writes."""
    group, _, name = str(rule).removeprefix("#/").partition("/")
    group_at = look.root.get(group)
    return group in ("$defs", "definitions") and (
        isinstance(group_at, Mapping) and name in group_at and look.at(group_at[name])(value)
    )


_RULES: Mapping[str, _Rule] = {
    "$ref": _ref,
    "additionalProperties": _additional,
    "allOf": _all_of,
    "anyOf": _any_of,
    "const": lambda value, rule, _: _same(value, rule),
    "enum": _enum,
    "exclusiveMaximum": _bound(lt, _number),
    "exclusiveMinimum": _bound(gt, _number),
    "items": _items,
    "maxItems": _bound(le, _size_of(list)),
    "maxLength": _bound(le, _size_of(str)),
    "maximum": _bound(le, _number),
    "minItems": _bound(ge, _size_of(list)),
    "minLength": _bound(ge, _size_of(str)),
    "minimum": _bound(ge, _number),
    "properties": _properties,
    "required": _required,
    "type": _type,
}
