from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from proxy.core.rules import Rollout


@pytest.mark.parametrize("steps", [[10, 25, 50, 75, 100], [0.01], ["5%", "50%"]])
def test_steps_rise(steps: list[Any]) -> None:
    assert len(Rollout.model_validate({"steps": steps}).steps) == len(steps)


@pytest.mark.parametrize("steps", [[], [10, 10], [50, 10], [0, 10], [10, 101], 10, [None]])
def test_steps_that_do_not_rise_are_refused(steps: Any) -> None:
    with pytest.raises(ValidationError):
        Rollout.model_validate({"steps": steps})


def test_guardrails_lie_beyond_the_signals() -> None:
    rollout = Rollout()

    assert rollout.signals.p95 < rollout.guardrails.p95
    assert rollout.signals.errors < rollout.guardrails.errors
    assert rollout.signals.tool_success > rollout.guardrails.tool_success
