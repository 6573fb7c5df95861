from __future__ import annotations

import pytest
from pydantic import ValidationError

from proxy.core.model import Kind
from proxy.core.rules import Fallback


def test_a_budget_that_is_not_given_keeps_its_default() -> None:
    budget = Fallback.model_validate({"budget": {"function": "2s"}}).budget

    assert budget[Kind.FUNCTION] == 2.0
    assert budget[Kind.MCP] == 5.0
    assert budget[Kind.EVENT] == 9.0  # Retell waits 10 s for an event.


def test_no_budget_can_be_given_to_what_is_never_rescued() -> None:
    with pytest.raises(ValidationError, match="no budget applies to llm"):
        Fallback.model_validate({"budget": {"llm": "2s"}})


def test_rescues_go_one_way_by_default() -> None:
    assert Fallback().enabled
    assert not Fallback().both_ways
    assert (Fallback().min_attempt, Fallback().last_resort) == (0.3, 10)


def test_a_fifth_may_be_asked_again_by_default() -> None:
    assert Fallback().retry_budget == 20.0
    assert Fallback.model_validate({"retry_budget": "7.5%"}).retry_budget == 7.5
