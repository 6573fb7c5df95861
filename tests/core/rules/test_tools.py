from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from proxy.core.model import Effect
from proxy.core.rules.tools import Tool, ToolEntry, resolve


def tool(name: str, **entries: dict[str, Any]) -> Tool:
    return resolve({key: ToolEntry.model_validate(value) for key, value in entries.items()}, name)


def test_a_tool_that_nobody_wrote_about_is_a_write() -> None:
    found = tool("book")

    assert found.effect is Effect.WRITE
    assert found.own_effect is None
    assert (found.linger, found.replay_for) == (30.0, 900.0)
    assert found.say.plain
    assert found.say_pending.plain
    assert found.say_done.plain


def test_the_default_entry_speaks_for_every_tool() -> None:
    found = tool("book", default={"effect": "read", "say": "Sorry.", "budget": "2s"})

    assert found.effect is Effect.READ
    assert found.own_effect is None  # a default is no promise about this tool
    assert found.say.plain == "Sorry."
    assert found.budget == 2.0


def test_a_tools_own_entry_outranks_the_default() -> None:
    entries: dict[str, dict[str, Any]] = {
        "default": {"effect": "write", "say": "Sorry."},
        "slots": {"effect": "idempotent", "linger": "0s", "names": {"mcp": "getSlots"}},
    }
    found = tool("slots", **entries)

    assert found.effect is Effect.IDEMPOTENT
    assert found.own_effect is Effect.IDEMPOTENT
    assert found.say.plain == "Sorry."
    assert found.linger == 0.0
    assert found.names == {"mcp": "getSlots"}
    assert found.name == "slots"


def test_null_means_whatever_the_default_says() -> None:
    found = tool("slots", default={"budget": "2s"}, slots={"budget": None})

    assert found.budget == 2.0


def test_a_tool_named_default_cannot_have_an_entry_of_its_own() -> None:
    assert tool("default", default={"effect": "read"}).own_effect is None


@pytest.mark.parametrize(
    ("entry", "effect"),
    [
        ({"annotations": {"readOnlyHint": True}}, Effect.READ),
        ({"annotations": {"readOnlyHint": False}}, Effect.WRITE),
        ({"annotations": {"readOnlyHint": True}, "effect": "write"}, Effect.WRITE),
        ({"annotations": {"readOnlyHint": "yes"}}, None),
        ({"annotations": {"idempotentHint": True}}, None),
    ],
)
def test_what_others_are_told_of_a_tool_holds_here_too(
    entry: dict[str, Any], effect: Effect | None
) -> None:
    """Idempotent on one server is not idempotent across both arms."""
    found = tool("slots", default={"effect": "idempotent"}, slots=entry)

    assert found.own_effect is effect
    assert found.effect is (effect or Effect.IDEMPOTENT)


def test_an_unknown_effect_is_refused() -> None:
    with pytest.raises(ValidationError, match="'writ' is no effect"):
        ToolEntry.model_validate({"effect": "writ"})


def test_an_entry_is_shown_as_it_was_written() -> None:
    written = {"effect": "read", "cache": "5m", "cache_key": ["args"], "say": {"en": "No."}}
    shown = ToolEntry.model_validate(written).model_dump(mode="json")

    assert written.items() <= shown.items()
