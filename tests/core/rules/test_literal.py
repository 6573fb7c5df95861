from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from proxy.adapters.rules_file import LoadedRules, parse_rules
from proxy.core.rules.fault_text import fault_text
from proxy.core.rules.literal import of_literals
from proxy.errors import Fault, RulesError
from tests.rules_kit import document, rules

SECRET = "hunter2-hunter2"


def with_options(options: dict[str, Any]) -> list[str]:
    written = document()
    written["backends"]["mcp"]["options"] = options
    return [found.dotted for found in of_literals(rules(backends=written["backends"]))]


def with_when(when: dict[str, Any]) -> list[str]:
    split = {"overrides": [{"when": when, "to": "webhook"}]}
    return [found.dotted for found in of_literals(rules(split=split))]


@pytest.mark.parametrize(
    ("options", "places"),
    [
        ({"api_key": SECRET}, ["api_key"]),
        ({"nested": [{}, {"password": SECRET}]}, ["nested.1.password"]),
        ({"tokens": ["env:A", SECRET]}, ["tokens.1"]),
        ({"dsn": f"postgres://app:{SECRET}@db/app"}, ["dsn"]),
        ({"headers": {"Authorization": f"Bearer {SECRET}"}}, ["headers.Authorization"]),
        ({"headers": [f"Bearer {SECRET}"]}, ["headers.0"]),
        ({"api_key": "env:KEY?", "tokens": 5, "password": "", "secret": None}, []),
        ({"region": "eu", "sort_key": "name"}, []),
    ],
)
def test_a_secret_in_an_option_is_a_fault(options: dict[str, Any], places: list[str]) -> None:
    assert with_options(options) == [f"backends.mcp.options.{place}" for place in places]


@pytest.mark.parametrize(
    ("when", "places"),
    [
        ({"header.authorization": f"Bearer {SECRET}"}, ["header.authorization"]),
        ({"header.x-api-key": {"in": ["a", "b"]}}, ["header.x-api-key"]),
        ({"header.x-api-key": {"exact": SECRET}}, ["header.x-api-key"]),
        ({"header.x-api-key": {"not": {"exact": SECRET}}}, ["header.x-api-key"]),
        ({"not": {"header.x-token": SECRET}}, ["not.header.x-token"]),
        ({"any": [{"tool": "t"}, {"header.x-token": SECRET}]}, ["any.1.header.x-token"]),
        ({"metadata.x": f"Bearer {SECRET}"}, ["metadata.x"]),
        ({"header.authorization": {"exists": True}}, []),
        ({"header.authorization": {"prefix": "Basic "}}, []),
        ({"header.x-tenant": "acme"}, []),
        ({"tool": {"in": ["a", "b"]}}, []),
        ({"any": 5}, []),
        ({"any": [5]}, []),
    ],
)
def test_a_secret_in_a_condition_is_a_fault(when: dict[str, Any], places: list[str]) -> None:
    assert with_when(when) == [f"split.overrides.0.when.{place}" for place in places]


def load(text: str, environment: dict[str, str] | None = None) -> LoadedRules:
    return parse_rules(text.encode(), environment or {}, path=Path("rules.yaml"))


def told(fault: Fault) -> str:
    return fault_text(fault)


LITERAL = {
    "a token": ("auth:\n  tokens: [hunter2-hunter2]\n", 'auth.tokens.0', "env:NAME"),
    "a key": ("auth:\n  retell_keys:\n    - hunter2-hunter2\n", "auth.retell_keys.0", "env:NAME"),
    "a dated one": ("auth:\n  tokens: [{ref: hunter2-hunter2}]\n", "auth.tokens.0", "env:NAME"),
    "the admin's": ("admin: {token: hunter2-hunter2}\n", "admin.token", "env:NAME"),
    "a URL's user": ("backends:\n  x: {handler: webhook, url: 'http://u:hunter2-hunter2@h/'}\n",
                     "backends.x.url", "bearer: env:NAME"),
    "an option": ("backends:\n  x: {handler: demo, options: {api_key: hunter2-hunter2}}\n",
                  "backends.x.options.api_key", "env:NAME"),
    "a header": ("split:\n  overrides:\n    - to: webhook\n      when:\n"
                 "        header.authorization: Bearer hunter2-hunter2\n",
                 "split.overrides.0.when.header.authorization", "split.force"),
    "a store": ("state: redis://:hunter2-hunter2@cache/0\n", "state", "env:NAME"),
    "the outbox": ("outbox: {store: 'redis://:hunter2-hunter2@cache/0'}\n", "outbox.store",
                   "env:NAME"),
}  # fmt: skip
ARMS = "  mcp: {handler: demo}\n  webhook: {handler: demo}\n"


@pytest.mark.row("A8")
@pytest.mark.parametrize(("text", "place", "remedy"), LITERAL.values(), ids=LITERAL)
def test_a_literal_secret_is_refused_with_its_place_and_the_way_out(
    text: str, place: str, remedy: str
) -> None:
    """And what is told of it never shows it."""
    whole = text + ARMS if text.startswith("backends") else f"{text}backends:\n{ARMS}"
    line = 1 + whole[: whole.index(SECRET)].count("\n")

    with pytest.raises(RulesError) as refused:
        load(f"version: 1\n{whole}")

    (fault,) = refused.value.faults
    assert (fault.path, fault.line) == (place, line + 1)
    assert remedy in fault.hint
    assert SECRET not in told(fault)
    assert SECRET not in repr(fault)


def test_a_key_in_a_urls_query_is_warned_of() -> None:
    """Some servers take it nowhere else."""
    url = "https://mcp.example/mcp?region=eu&api_key=hunter2-hunter2"
    arms = f"  mcp: {{handler: mcp, url: '{url}'}}\n  webhook: {{handler: demo}}\n"

    (warning,) = load(f"version: 1\nbackends:\n{arms}").warnings

    assert warning.path == "backends.mcp.url"
    assert "api_key" in warning.message
    assert SECRET not in told(warning)
    assert "'api_key'" in warning.message
