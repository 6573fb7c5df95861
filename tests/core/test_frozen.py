from __future__ import annotations

import pytest

from proxy.core.frozen import NO_FIELDS, SOMETHING, Thawed, freeze
from proxy.core.matchers import compile_when
from proxy.core.patterns import MAX_SUBJECT

PATHS = ("agent_id", "metadata.company_id")


def test_no_fields_has_none() -> None:
    assert NO_FIELDS.get("agent_id") is None


def test_frozen_fields_outlive_the_request_that_carried_them() -> None:
    frozen = freeze(PATHS, {"agent_id": "a", "metadata.company_id": 42, "tool": "book"})
    later = Thawed(PATHS, frozen, {"agent_id": "other", "tool": "cancel"})

    assert later.get("agent_id") == "a"
    assert later.get("metadata.company_id") == 42
    assert later.get("tool") == "cancel"


def test_what_the_first_request_did_not_carry_comes_from_the_later_one() -> None:
    later = Thawed(PATHS, freeze(PATHS, {}), {"agent_id": "a"})

    assert later.get("agent_id") == "a"
    assert later.get("metadata.company_id") is None


def test_nothing_is_frozen_where_nobody_looks() -> None:
    assert freeze((), {"agent_id": "a"}) == ()


@pytest.mark.parametrize("value", ["x" * (MAX_SUBJECT + 1), {"a": 1}, ["a"] * 1000])
def test_a_large_value_is_kept_as_existing_only(value: object) -> None:
    """200,000 records of them would not fit anywhere."""
    thawed = Thawed(("agent_id",), freeze(("agent_id",), {"agent_id": value}), {})

    assert thawed.get("agent_id") is SOMETHING
    assert compile_when({"agent_id": {"exists": True}})(thawed)
    assert not compile_when({"agent_id": {"prefix": "x"}})(thawed)
    assert not compile_when({"agent_id": {"in": ["x"]}})(thawed)


@pytest.mark.parametrize("value", ["x" * MAX_SUBJECT, 0, 1.5, True])
def test_a_small_value_is_kept_as_it_is(value: object) -> None:
    assert freeze(("agent_id",), {"agent_id": value}) == (value,)
