from __future__ import annotations

from typing import Any

import pytest

from proxy.core.rules.check import check
from proxy.core.rules.finding import Finding
from proxy.core.rules.serving import of_serving
from tests.rules_kit import document, rules

OBJECT = {"type": "object", "properties": {"date": {"type": "string"}}}


def found(**entry: Any) -> list[Finding]:
    return list(of_serving(rules(tools={"slots": entry})))


def test_a_tool_that_is_fit_to_be_listed_is_passed_over() -> None:
    said = {"title": "Slots", "readOnlyHint": True, "openWorldHint": False, "x-ours": [1]}

    assert not found(
        effect="read",
        description="Free slots.",
        input_schema=OBJECT,
        output_schema=OBJECT,
        annotations=said,
        names={"mcp": "getSlots"},
    )
    assert not found()


@pytest.mark.parametrize(
    "schema", [{}, {"type": "array"}, {"properties": {}}, {"type": ["object"]}]
)
def test_an_input_schema_must_be_that_of_an_object(schema: dict[str, Any]) -> None:
    """A strict client would refuse the whole list for it."""
    (fault,) = found(input_schema=schema)

    assert fault.dotted == "tools.slots.input_schema"
    assert fault.hint == "write type: object in it"
    assert not fault.warning


def test_properties_are_a_mapping() -> None:
    (fault,) = found(input_schema={"type": "object", "properties": ["date"]})

    assert fault.dotted == "tools.slots.input_schema.properties"


@pytest.mark.parametrize(
    ("hint", "value", "message"),
    [
        ("readOnlyHint", "yes", "expected true or false, got the text 'yes'"),
        ("idempotentHint", 1, "expected true or false, got the number 1"),
        ("destructiveHint", None, "expected true or false, got nothing (null)"),
        ("title", 7, "expected text, got the number 7"),
    ],
)
def test_a_hint_of_mcp_has_its_type(hint: str, value: Any, message: str) -> None:
    (fault,) = found(annotations={hint: value})

    assert (fault.dotted, fault.message) == (f"tools.slots.annotations.{hint}", message)
    assert not fault.warning


def test_a_hint_that_is_nearly_one_of_mcps_is_pointed_out() -> None:
    (warning,) = found(annotations={"readonlyHint": True})

    assert warning.warning
    assert warning.hint == "did you mean 'readOnlyHint'?"


@pytest.mark.parametrize(
    ("effect", "hint", "agree"),
    [("read", True, True), ("write", False, True), ("read", False, False), ("write", True, False)],
)
def test_what_clients_hear_of_a_tool_should_be_what_holds(
    effect: str, hint: bool, agree: bool
) -> None:
    told = found(effect=effect, annotations={"readOnlyHint": hint})

    assert [f.warning for f in told] == ([] if agree else [True])


def test_older_clients_are_not_told_of_other_answers_than_objects() -> None:
    (warning,) = found(output_schema={"type": "array"})

    assert warning.warning
    assert warning.dotted == "tools.slots.output_schema"


@pytest.mark.parametrize("key", ["input_schema", "output_schema"])
def test_a_schema_that_no_json_can_hold_is_refused(key: str) -> None:
    (fault,) = found(**{key: {"type": "object", "maxProperties": 2**70}})

    assert fault.dotted == f"tools.slots.{key}"
    assert fault.message.startswith("cannot be written as JSON")


def test_two_tools_with_one_name_on_an_arm_are_pointed_out() -> None:
    tools: dict[str, Any] = {
        "default": {},
        "slots": {"names": {"mcp": "find"}},
        "find": {},
        "free": {"names": {"mcp": "find", "webhook": "other"}},
    }

    told = list(of_serving(rules(tools=tools)))

    assert [warning.dotted for warning in told] == ["tools.slots.names.mcp", "tools.free.names.mcp"]
    assert all(warning.warning for warning in told)
    assert told[0].hint == "MCP callers that say 'find' reach 'find'"


def test_tools_may_trade_their_names() -> None:
    tools = {"a": {"names": {"mcp": "b"}}, "b": {"names": {"mcp": "a"}}}

    assert not list(of_serving(rules(tools=tools)))


def test_a_faulty_catalogue_is_refused_with_the_rules() -> None:
    written = document(tools={"slots": {"input_schema": {}}})

    refused, findings = check(written)

    assert refused is None
    assert [f.dotted for f in findings] == ["tools.slots.input_schema"]
