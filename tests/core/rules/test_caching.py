from __future__ import annotations

from typing import Any

import pytest

from proxy.core.rules.caching import of_caching
from proxy.core.rules.finding import Finding
from tests.rules_kit import rules

KEPT = {"effect": "read", "cache": "5m"}


def found(**tools: dict[str, Any]) -> list[Finding]:
    return list(of_caching(rules(tools=tools)))


def one(**tools: dict[str, Any]) -> Finding:
    (finding,) = found(**tools)
    return finding


def test_answers_of_a_read_may_be_kept() -> None:
    slots = KEPT | {"cache_key": ["args", "metadata.company_id"], "stale_if_error": "1h"}

    assert found(slots=slots, info=KEPT, book={"invalidates": ["slots"]}) == []


@pytest.mark.parametrize("effect", ["write", "idempotent", None])
def test_what_must_run_each_time_cannot_be_kept(effect: str | None) -> None:
    finding = one(book=KEPT | {"effect": effect})

    assert (finding.dotted, finding.warning) == ("tools.book.cache", False)
    assert finding.hint == "only a tool with effect: read can be cached"


def test_a_default_may_keep_what_reads() -> None:
    """Tools that write pass it by; those that nobody names are never kept."""
    assert found(default={"cache": "5m"}, slots={"effect": "read"}, book={}) == []
    assert found(default={"effect": "read"}, slots={"cache": "5m"}) == []


@pytest.mark.parametrize(
    "field",
    [
        "args",
        "args.date",
        "args.a.b",
        "call_id",
        "agent_id",
        "to_number",
        "tool",
        "metadata",
        "metadata.company_id",
        "metadata.clinic.city",
        "dynamic_variables.language",
        "header.x-company",
        "Header.X-Company",
    ],
)
def test_a_key_may_name_any_field_of_a_request(field: str) -> None:
    assert found(slots=KEPT | {"cache_key": ["args", field]}) == []


@pytest.mark.parametrize(
    ("field", "hint"),
    [
        ("arg", "did you mean 'args'?"),
        ("metadta.", "did you mean 'metadata.'?"),
        ("company_id", "known are args, call_id, "),
        ("metadata.", "did you mean 'metadata.'?"),
        ("metadata..x", "did you mean 'metadata.'?"),
        ("Metadata.x", "did you mean 'metadata.'?"),
        ("call_id.x", "did you mean 'call_id'?"),
        ("", "known are args, call_id, "),
        ("event", "known are args, call_id, "),
    ],
)
def test_a_key_of_unknown_fields_is_refused(field: str, hint: str) -> None:
    finding = one(slots=KEPT | {"cache_key": ["args", field]})

    assert (finding.dotted, finding.warning) == ("tools.slots.cache_key.1", False)
    assert finding.hint.startswith(hint)


def test_a_key_that_names_nothing_is_refused() -> None:
    finding = one(slots=KEPT | {"cache_key": []})

    assert (finding.dotted, finding.warning) == ("tools.slots.cache_key", False)


def test_a_key_without_the_arguments_is_worth_a_look() -> None:
    finding = one(slots=KEPT | {"cache_key": ["metadata.company_id"]})

    assert (finding.dotted, finding.warning) == ("tools.slots.cache_key", True)
    assert found(slots=KEPT | {"cache_key": ["args.date"]}) == []


@pytest.mark.parametrize("key", ["cache_key", "stale_if_error"])
def test_what_goes_with_kept_answers_does_nothing_without_them(key: str) -> None:
    value = ["args"] if key == "cache_key" else "1m"
    finding = one(slots={"effect": "read", key: value})

    assert (finding.dotted, finding.warning) == (f"tools.slots.{key}", True)
    assert found(default={key: value}) == []


def test_a_tool_that_reads_drops_nothing() -> None:
    finding = one(slots=KEPT, info={"effect": "read", "invalidates": ["slots"]})

    assert (finding.dotted, finding.warning) == ("tools.info.invalidates", True)


def test_only_answers_of_a_tool_that_is_named_can_be_dropped() -> None:
    """A slip here would let callers hear what is long taken."""
    finding = one(get_slots=KEPT, book={"invalidates": ["get_slots", "get_slot"]})

    assert (finding.dotted, finding.warning) == ("tools.book.invalidates.1", False)
    assert finding.hint == "did you mean 'get_slots'?"
