from __future__ import annotations

from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.dialects.schema import conforms

SLOTS = {
    "$defs": {
        "Slot": {
            "type": "object",
            "properties": {"time": {"type": "string"}, "free": {"type": "boolean"}},
            "required": ["time"],
            "title": "Slot",
        }
    },
    "type": "object",
    "properties": {
        "slots": {"type": "array", "items": {"$ref": "#/$defs/Slot"}},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}], "default": None},
    },
    "required": ["slots"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("value", "schema", "expected"),
    [
        ({"slots": [{"time": "10:00"}], "note": None}, SLOTS, True),
        ({"slots": [{"time": 10}]}, SLOTS, False),
        ({"slots": [{"free": True}]}, SLOTS, False),
        ({"slots": [], "more": 1}, SLOTS, False),
        ({}, SLOTS, False),
        ("x", SLOTS, False),
        ({"result": "x"}, {"type": "object", "properties": {"result": {"type": "string"}}}, True),
        ({}, {}, True),
        (1.0, {"type": "integer"}, True),
        (1.5, {"type": "integer"}, False),
        (True, {"type": "integer"}, False),
        (True, {"type": "number"}, False),
        (None, {"type": ["string", "null"]}, True),
        ("b", {"enum": ["a", "b"]}, True),
        (1, {"enum": [True]}, False),
        (1, {"const": 1}, True),
        ({"n": 1}, {"additionalProperties": {"type": "integer"}}, True),
        ({"n": "x"}, {"additionalProperties": {"type": "integer"}}, False),
        (1, {"properties": {}, "required": ["a"], "additionalProperties": False}, True),
        ("x", {"items": {"type": "null"}}, True),
        ({"a": 1}, {"properties": {"a": True}}, True),
        ({"a": 1}, {"properties": {"a": False}}, False),
        ([1], {"$ref": "#/definitions/L", "definitions": {"L": {"type": "array"}}}, True),
        (1, {"allOf": [{"type": "integer"}, {"minimum": 1}]}, True),
        (0, {"allOf": [{"type": "integer"}, {"minimum": 1}]}, False),
        (1, {"minimum": 1, "maximum": 1}, True),
        (1, {"exclusiveMinimum": 1}, False),
        (1, {"exclusiveMaximum": 1.5}, True),
        ("größe", {"minLength": 5, "maxLength": 5}, True),
        ("a", {"minLength": 2}, False),
        ([1, 2], {"minItems": 1, "maxItems": 1}, False),
        (True, {"minimum": 5, "minLength": 5}, True),
    ],
)
def test_what_is_known_to_conform(value: Any, schema: dict[str, Any], expected: bool) -> None:
    assert conforms(value, schema) is expected


@pytest.mark.parametrize(
    ("value", "schema"),
    [
        ("a@b.c", {"type": "string", "format": "email"}),
        ("x", {"pattern": "^x$"}),
        (1, {"multipleOf": 1}),
        (1, {"minimum": "0"}),
        (1, {"maximum": True}),
        ([1], {"enum": [[1]]}),
        (1.0, {"const": 1}),
        (1, {"$ref": "https://example.com/schema"}),
        (1, {"$ref": "#/$defs/missing"}),
        (1, {"$ref": "#/$defs/x", "$defs": 3}),
        (1, {"$ref": "#/$defs/x", "$defs": {"x": {"$ref": "#/$defs/x"}}}),
        ({}, {"type": 7}),
        ({}, {"required": "a"}),
        ({}, {"required": [["a"]]}),
        ({"a": 1}, {"properties": ["a"]}),
        ({"a": 1}, {"properties": 1, "additionalProperties": True}),
        ({"a": 1}, {"additionalProperties": True, "properties": 1}),
        ({}, {"anyOf": {}}),
        ({}, {"enum": {}}),
        ([1], {"items": ["a"]}),
    ],
)
def test_what_cannot_be_told_counts_as_not_conforming(value: Any, schema: dict[str, Any]) -> None:
    assert conforms(value, schema) is False


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from([1.0, 1.5, "", "a", "b"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner),
    max_leaves=5,
)
TYPES = st.sampled_from(["object", "array", "string", "boolean", "null", "number", "integer"])
SCHEMAS = st.recursive(
    st.booleans() | st.fixed_dictionaries({"type": TYPES | st.lists(TYPES, min_size=1)}),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "type": TYPES,
            "properties": st.dictionaries(st.sampled_from("ab"), inner),
            "required": st.lists(st.sampled_from("ab"), unique=True),
            "additionalProperties": inner,
            "items": inner,
            "anyOf": st.lists(inner, min_size=1, max_size=2),
            "allOf": st.lists(inner, min_size=1, max_size=2),
            "minimum": st.integers(-2, 2),
            "exclusiveMaximum": st.integers(-2, 2),
            "minLength": st.integers(0, 2),
            "maxItems": st.integers(0, 2),
            "enum": st.lists(VALUES, min_size=1, max_size=3),
            "const": VALUES,
        },
    ),
    max_leaves=5,
)


@given(VALUES, SCHEMAS)
def test_a_full_validator_never_refuses_what_conforms_here(value: Any, schema: Any) -> None:
    """The safe direction: a yes where the caller's own validator says no loses the answer."""
    if isinstance(schema, dict) and conforms(value, schema):
        assert jsonschema.Draft202012Validator(schema).is_valid(value)
