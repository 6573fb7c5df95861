from __future__ import annotations

import json
from typing import Any

import pytest

from proxy.core.dialects.catalogue import Catalogue, parse_page
from proxy.core.mcp.listing import listing, promised
from proxy.core.model import Era
from proxy.core.rules.tools import Tool, ToolEntry, resolve

OBJECT = {"type": "object", "properties": {"day": {"type": "string"}}}
SLOTS = {
    "name": "checkSlots",
    "title": "Slots",
    "description": "The server's.",
    "inputSchema": OBJECT,
    "outputSchema": {"type": "object"},
    "annotations": {"title": "T", "readOnlyHint": False},
}


def ruled(**entries: dict[str, Any]) -> list[Tool]:
    read = {name: ToolEntry.model_validate(entry) for name, entry in entries.items()}
    return [resolve(read, name) for name in entries if name != "default"]


def catalogue(*tools: dict[str, Any]) -> Catalogue:
    found = parse_page(json.dumps({"tools": tools}).encode()).tools
    return Catalogue({tool.name: tool for tool in found})


def listed(
    tools: list[Tool], known: Catalogue | None = None, era: Era = Era.MODERN
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(listing(tools, "mcp", known, era))
    return found


def test_a_servers_tool_stands_as_the_server_listed_it_but_for_its_answers() -> None:
    """Another arm's answers need not have the form that the server promises of its own."""
    expected = {key: value for key, value in SLOTS.items() if key != "outputSchema"}

    assert listed([], catalogue(SLOTS)) == [expected]


def test_the_rules_outrank_the_server_field_by_field() -> None:
    schema = {"type": "object", "properties": {"date": {"type": "string"}}}
    tools = ruled(
        slots={
            "names": {"mcp": "checkSlots"},
            "input_schema": schema,
            "output_schema": OBJECT,
            "annotations": {"readOnlyHint": True},
        }
    )

    (found,) = listed(tools, catalogue(SLOTS))

    assert found == SLOTS | {
        "inputSchema": schema,
        "outputSchema": OBJECT,
        "annotations": {"title": "T", "readOnlyHint": True},
    }


def test_a_description_of_the_rules_is_the_one_that_is_heard() -> None:
    tools = ruled(checkSlots={"description": "Ours."})

    (found,) = listed(tools, catalogue(SLOTS))

    assert found["description"] == "Ours."
    assert found["inputSchema"] == OBJECT


def test_without_a_server_the_rules_alone_are_listed() -> None:
    tools = ruled(
        slots={"names": {"mcp": "checkSlots"}, "description": "Slots."},
        book={"input_schema": OBJECT, "annotations": {"destructiveHint": False}},
        internal={"effect": "write"},
    )

    assert listed(tools) == [
        {"name": "checkSlots", "description": "Slots.", "inputSchema": {"type": "object"}},
        {"name": "book", "inputSchema": OBJECT, "annotations": {"destructiveHint": False}},
    ]


def test_the_order_is_the_servers_and_then_that_of_the_rules() -> None:
    tools = ruled(
        z={"names": {"mcp": "last"}, "description": "."},
        c={"description": "."},
        b={},
        a={"description": "."},
    )
    known = catalogue({"name": "y"}, {"name": "b"}, {"name": "x"})

    assert [tool["name"] for tool in listed(tools, known)] == ["y", "b", "x", "last", "c", "a"]


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        ({}, {"type": "object"}),
        ({"inputSchema": None}, {"type": "object"}),
        ({"inputSchema": {"type": "array"}}, {"type": "object"}),
        ({"inputSchema": {"properties": {}}}, {"type": "object", "properties": {}}),
    ],
)
def test_one_odd_schema_does_not_cost_clients_the_list(
    said: dict[str, Any], heard: dict[str, Any]
) -> None:
    assert listed([], catalogue({"name": "t"} | said)) == [{"name": "t", "inputSchema": heard}]


def test_annotations_that_are_none_do_not_outlive_the_rules() -> None:
    tools = ruled(t={"annotations": {"readOnlyHint": True}})

    (found,) = listed(tools, catalogue({"name": "t", "annotations": "odd"}))

    assert found["annotations"] == {"readOnlyHint": True}


def test_an_answer_that_is_no_object_is_declared_to_modern_callers_only() -> None:
    (tool,) = ruled(slots={"description": ".", "output_schema": {"type": "array"}})

    assert promised(tool, Era.MODERN) == {"type": "array"}
    assert promised(tool, Era.LEGACY) is None
    assert "outputSchema" in listed([tool])[0]
    assert "outputSchema" not in listed([tool], era=Era.LEGACY)[0]


def test_a_tool_with_two_claims_to_its_name_goes_by_the_plainer_one() -> None:
    tools = ruled(
        slots={"names": {"mcp": "find"}, "description": "Alias."}, find={"description": "Own."}
    )

    assert [tool["description"] for tool in listed(tools)] == ["Own."]
