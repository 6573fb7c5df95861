from __future__ import annotations

import json
from typing import Any

import pytest
from mcp.shared.inbound import validate_mcp_param_headers

from proxy.core.dialects.catalogue import Catalogue, Listed, parse_page
from proxy.core.model import Effect


def page(*tools: Any, **more: Any) -> bytes:
    return json.dumps({"tools": tools, **more}).encode()


def tool(properties: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties or {}}
    return {"name": "t", "inputSchema": schema, **more}


def listed(properties: dict[str, Any] | None = None, **more: Any) -> Listed:
    return parse_page(page(tool(properties, **more))).tools[0]


def test_a_page_tells_of_each_tool_what_its_server_says() -> None:
    schema = {"type": "object"}
    raw = page(
        tool(annotations={"readOnlyHint": True}, outputSchema=schema),
        {"name": "bare"},
        {"no": "name"},
        "no tool",
        nextCursor="",
    )

    found = parse_page(raw)

    assert [t.name for t in found.tools] == ["t", "bare"]
    assert found.tools[0].output_schema == schema
    assert [t.read_only for t in found.tools] == [True, False]
    assert found.cursor == ""


@pytest.mark.parametrize("hint", [None, False, "yes", 1])
def test_only_a_plain_yes_makes_a_tool_read_only(hint: object) -> None:
    assert not listed(annotations={"readOnlyHint": hint}).read_only
    assert not listed(annotations=hint).read_only


@pytest.mark.parametrize(
    ("hints", "effect", "idempotent"),
    [
        ({"readOnlyHint": True}, Effect.READ, True),
        ({"readOnlyHint": True, "idempotentHint": False}, Effect.READ, True),
        ({"idempotentHint": True}, Effect.IDEMPOTENT, True),
        ({"readOnlyHint": False, "idempotentHint": "yes"}, Effect.WRITE, False),
        ({"destructiveHint": False}, Effect.WRITE, False),
        ({}, Effect.WRITE, False),
    ],
)
def test_hints_say_what_running_a_tool_twice_does_on_its_server(
    hints: dict[str, Any], effect: Effect, idempotent: bool
) -> None:
    found = listed(annotations=hints)

    assert (found.effect, found.idempotent) == (effect, idempotent)
    assert Catalogue({"t": found}).effects == {"t": effect}


def test_a_tool_nested_beyond_reading_is_left_out() -> None:
    deep: dict[str, Any] = {}
    for _ in range(300):
        deep = {"properties": {"p": deep}}

    assert [t.name for t in parse_page(page(tool(deep), {"name": "bare"})).tools] == ["bare"]


def test_a_page_without_a_cursor_is_the_last() -> None:
    assert parse_page(page()).cursor is None
    assert parse_page(page(nextCursor=7)).cursor is None


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b'{"tools":{}}', b"nonsense"])
def test_what_is_no_list_of_tools_is_an_error(raw: bytes) -> None:
    with pytest.raises(ValueError):
        parse_page(raw)


MIRRORED = {
    "region": {"type": "string", "x-mcp-header": "Region"},
    "count": {"type": "integer", "x-mcp-header": "Count"},
    "vip": {"type": "boolean", "x-mcp-header": "Vip"},
    "where": {
        "type": "object",
        "properties": {"city": {"type": "string", "x-mcp-header": "City"}},
    },
    "plain": {"type": "string"},
}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"region": "eu", "plain": "x"}, {"mcp-param-Region": "eu"}),
        ({"region": "größe"}, {"mcp-param-Region": "=?base64?Z3LDtsOfZQ==?="}),
        ({"count": 3, "vip": True}, {"mcp-param-Count": "3", "mcp-param-Vip": "true"}),
        ({"vip": False}, {"mcp-param-Vip": "false"}),
        ({"where": {"city": "Ulm"}}, {"mcp-param-City": "Ulm"}),
        ({"where": "Ulm", "region": None, "count": [1]}, {}),
        ({}, {}),
    ],
)
def test_annotated_arguments_are_repeated_in_headers(
    arguments: dict[str, Any], expected: dict[str, str]
) -> None:
    found = listed(MIRRORED).param_headers(json.dumps(arguments).encode())

    headers = {name.decode(): value.decode() for name, value in found}
    assert headers == expected
    schema = tool(MIRRORED)["inputSchema"]
    assert validate_mcp_param_headers(schema, arguments, headers) is None


@pytest.mark.parametrize(
    "properties",
    [
        {"a": {"type": "string", "x-mcp-header": "no token"}},
        {"a": {"type": "string", "x-mcp-header": 7}},
        {"a": {"type": "number", "x-mcp-header": "A"}},
        {"a": {"x-mcp-header": "A"}},
        {
            "a": {"type": "string", "x-mcp-header": "A"},
            "b": {"type": "string", "x-mcp-header": "a"},
        },
    ],
)
def test_a_tool_that_annotates_wrongly_may_not_be_asked(properties: Any) -> None:
    assert listed(properties).param_headers(b'{"a":"x","b":"y"}') == []
    assert not listed(properties).askable


@pytest.mark.parametrize("properties", [{"a": "no schema"}, "no properties", {}])
def test_a_tool_that_annotates_nothing_gets_no_headers(properties: Any) -> None:
    assert listed(properties).param_headers(b'{"a":"x","b":"y"}') == []
    assert listed(properties).askable


@pytest.mark.parametrize("arguments", [b"no json", b"[]", b'"x"', b'{"count":1e999}'])
def test_arguments_that_cannot_be_read_are_not_repeated(arguments: bytes) -> None:
    assert listed(MIRRORED).param_headers(arguments) == []


def test_a_schema_that_never_ends_is_not_followed_for_ever() -> None:
    inner: dict[str, Any] = {"type": "string", "x-mcp-header": "Deep"}
    for _ in range(40):
        inner = {"type": "object", "properties": {"p": inner}}

    assert listed(inner["properties"]).mirrors == ()
