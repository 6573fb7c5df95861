from __future__ import annotations

from datetime import date
from typing import Any

import pytest
from pydantic import ValidationError

from proxy.core.rules import Backend, SecretRef
from proxy.core.rules.options import resolved, say_options, with_references
from proxy.core.rules.walk import secrets
from tests.rules_kit import document, rules

WRITTEN: dict[str, Any] = {
    "region": "eu",
    "place": "file:/etc/zone",
    "api_key": "env:KEY",
    "retries": 3,
    "nested": [{"password": "file:/run/secrets/pw?"}, {"tokens": ["env:A", "env:B?"]}],
}
READ: dict[str, Any] = {
    "region": "eu",
    "place": "file:/etc/zone",
    "api_key": SecretRef("env:KEY"),
    "retries": 3,
    "nested": [
        {"password": SecretRef("file:/run/secrets/pw", optional=True)},
        {"tokens": [SecretRef("env:A"), SecretRef("env:B", optional=True)]},
    ],
}


def test_references_under_telling_names_are_read_and_shown_again() -> None:
    backend = Backend.model_validate({"handler": "demo", "options": WRITTEN})

    assert backend.options == READ == with_references(WRITTEN)
    assert backend.model_dump(mode="json")["options"] == WRITTEN == say_options(READ)


def test_a_handler_gets_the_secrets_themselves() -> None:
    held = {"env:KEY": b"hunter2", "file:/run/secrets/pw": None, "env:A": b"\xff", "env:B": b"b"}

    assert resolved(READ, lambda ref: held[ref.ref]) == {
        "region": "eu",
        "place": "file:/etc/zone",
        "api_key": "hunter2",
        "retries": 3,
        "nested": [{"password": None}, {"tokens": ["\udcff", "b"]}],
    }


def test_a_reference_that_is_none_is_a_fault() -> None:
    with pytest.raises(ValidationError, match="expected a reference"):
        Backend.model_validate({"handler": "demo", "options": {"token": "env:not a name"}})


def test_secrets_in_options_are_found_like_all_others() -> None:
    """So a missing one ends the start, and its place is told."""
    written = document()
    written["backends"]["mcp"]["options"] = WRITTEN
    found = dict(secrets(rules(backends=written["backends"])))

    assert found["backends.mcp.options.api_key"] == SecretRef("env:KEY")
    assert found["backends.mcp.options.nested.1.tokens.0"] == SecretRef("env:A")


def test_a_day_cannot_be_given_there() -> None:
    """A mapping under such a name is an option like any other."""
    dated = {"token": {"ref": "env:A", "since": "2026-01-31"}}

    assert with_references(dated) == dated
    assert say_options({"token": SecretRef("env:A", since=date(2026, 1, 31))}) == dated
