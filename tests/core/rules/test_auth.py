from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from proxy.core.model import Kind
from proxy.core.rules import Auth, Credential, Requirement
from proxy.core.rules.auth import Repeats

TOKEN, SIGNATURE, NONE = Credential.TOKEN, Credential.SIGNATURE, Credential.NONE
BOTH = frozenset({TOKEN, SIGNATURE})


@pytest.mark.parametrize(
    ("written", "need", "shown"),
    [
        (["token"], Requirement(frozenset({TOKEN})), ["token"]),
        (
            ["token", "signature"],
            Requirement(BOTH),
            ["signature", "token"],
        ),
        ("none", Requirement(frozenset({NONE})), ["none"]),
        ("token", Requirement(frozenset({TOKEN})), ["token"]),
        (
            {"all": ["token", "signature"]},
            Requirement(BOTH, every=True),
            {"all": ["signature", "token"]},
        ),
    ],
)
def test_a_requirement_is_read_and_shown(written: Any, need: Requirement, shown: Any) -> None:
    auth = Auth.model_validate({"require": {"mcp": written}})

    assert auth.require == {Kind.MCP: need}
    assert auth.model_dump(mode="json")["require"] == {"mcp": shown}
    assert Auth.model_validate({"require": {"mcp": need}}).require == auth.require


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ([], "expected a list"),
        (None, "expected a list"),
        (5, "expected a list"),
        (["tokn"], "is no credential"),
        ([5], "is no credential"),
        (["none", "token"], "none stands alone"),
        ({"all": ["none"]}, "none stands alone"),
        ({"all": []}, "expected a list"),
        ({"any": ["token"]}, "{all:"),
        ({"all": ["token"], "any": []}, "{all:"),
    ],
)
def test_a_requirement_that_could_be_misread_is_refused(written: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Auth.model_validate({"require": {"mcp": written}})


def test_open_is_only_what_says_so() -> None:
    assert Requirement(frozenset({NONE})).open
    assert not Requirement(frozenset({TOKEN})).open


def test_without_a_word_there_is_no_rule() -> None:
    assert Auth().require == {}
    assert Auth().signature_tolerance == 300.0


@pytest.mark.parametrize("way", Repeats)
def test_repeats_are_accepted_or_refused(way: Repeats) -> None:
    auth = Auth.model_validate({"signature_repeats": str(way)})

    assert auth.signature_repeats is way
    assert auth.model_dump(mode="json")["signature_repeats"] == way
    assert Auth().signature_repeats is Repeats.ACCEPT


def test_another_way_with_repeats_is_no_way() -> None:
    with pytest.raises(ValidationError, match="is no way with repeats"):
        Auth.model_validate({"signature_repeats": "count"})
