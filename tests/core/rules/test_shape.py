from __future__ import annotations

from typing import Any

import pytest

from proxy.core.rules import Backend, Breaker, Override, Rules, ToolEntry
from proxy.core.rules.finding import Path
from proxy.core.rules.shape import keys, section_at, word_of


def test_every_key_has_a_meaning_and_a_type() -> None:
    for key in keys():
        assert key.field.description, key.path
        assert key.field.description.endswith("."), key.path
        assert key.word, key.path


def test_keys_are_found_below_names_and_in_lists() -> None:
    paths = {key.path: key for key in keys()}

    assert paths["backends.<name>.breaker.failures"].home is Breaker
    assert paths["backends.<name>.breaker"].section is Breaker
    assert paths["split.overrides[].when"].home is Override
    assert paths["split.force.token"].word == "secret reference"


@pytest.mark.parametrize(
    ("path", "section"),
    [
        ((), Rules),
        (("backends",), None),
        (("backends", "mcp"), Backend),
        (("backends", "mcp", "breaker"), Breaker),
        (("backends", "mcp", "timeout"), None),
        (("split", "overrides", 0), Override),
        (("tools", "book"), ToolEntry),
        (("nothing",), None),
        (("split", "percent", "deeper"), None),
    ],
)
def test_a_path_leads_to_its_section(path: Path, section: type[Any] | None) -> None:
    assert section_at(path) is section


@pytest.mark.parametrize(
    ("path", "word"),
    [
        ("listen.trusted_proxies", "list of CIDR"),
        ("listen.observe", "host:port or null"),
        ("fallback.budget", "mapping of kind to duration"),
        ("version", "1"),
        ("limits.burst", "number"),
        ("limits.tools_per_minute", "whole number or null"),
        ("backends", "mapping of name to section"),
        ("split.overrides", "list of section"),
        ("backends.<name>.options", "mapping of text to anything"),
    ],
)
def test_a_type_is_said_in_words(path: str, word: str) -> None:
    assert {key.path: key.word for key in keys()}[path] == word


def test_a_type_without_a_word_is_a_section() -> None:
    assert word_of(object) == "section"
