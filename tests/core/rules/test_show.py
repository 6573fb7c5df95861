from __future__ import annotations

import json

import orjson
import pytest

from proxy.core.rules import Rules
from proxy.core.rules.show import MASK, shown, shown_url
from tests.rules_kit import document, rules


def test_what_is_shown_are_rules_that_mean_the_same() -> None:
    written = rules(
        split={"percent": 12.5, "overrides": [{"when": {"agent_id": "a"}, "to": "mcp"}]},
        auth={"tokens": ["env:A?"], "require": {"mcp": {"all": ["token"]}}},
        tools={"default": {"say": {"en": "No."}}, "slots": {"effect": "read", "cache": "90s"}},
        listen={"trusted_proxies": ["10.0.0.0/8"], "observe": "[::1]:9902"},
    )

    assert Rules.model_validate(json.loads(orjson.dumps(shown(written)))) == written


def test_a_salt_is_shown_only_as_a_reference() -> None:
    assert shown(rules(split={"salt": "pepper"}))["split"]["salt"] == MASK
    assert shown(rules(split={"salt": "env:SALT?"}))["split"]["salt"] == "env:SALT?"
    assert shown(rules())["split"]["salt"] == ""


def test_telling_names_in_options_are_masked_at_any_depth() -> None:
    written = document()
    written["backends"]["mcp"]["options"] = {
        "api_key": "hunter2",
        "region": "eu",
        "nested": [{"password": "hunter2", "tokens": 5}],
    }
    options = shown(Rules.model_validate(written))["backends"]["mcp"]["options"]

    assert options == {
        "api_key": MASK,
        "region": "eu",
        "nested": [{"password": MASK, "tokens": 5}],
    }


def test_references_in_options_are_shown_as_they_stand() -> None:
    written = document()
    written["backends"]["mcp"]["options"] = {"api_key": "env:KEY?", "token": ["file:/t"]}
    options = shown(Rules.model_validate(written))["backends"]["mcp"]["options"]

    assert options == {"api_key": "env:KEY?", "token": ["file:/t"]}


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (None, None),
        ("http://a/b", "http://a/b"),
        ("http://a/b?region=eu&api_key=hunter2&x", f"http://a/b?region=eu&api_key={MASK}&x"),
        ("http://a/b?token=a=b?c", f"http://a/b?token={MASK}"),
    ],
)
def test_what_telling_names_in_a_urls_query_hold_is_masked(
    url: str | None, expected: str | None
) -> None:
    assert shown_url(url) == expected
