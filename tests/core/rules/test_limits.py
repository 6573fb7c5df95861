from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from proxy.core.rules import Limits


def test_limits_hold_without_a_word() -> None:
    assert Limits() == Limits(tools_per_minute=100, ip_per_minute=200, burst=3.0)


def test_null_switches_a_limit_off() -> None:
    assert Limits.model_validate({"ip_per_minute": None}).ip_per_minute is None


@pytest.mark.parametrize(
    "limits",
    [{"tools_per_minute": 0}, {"ip_per_minute": True}, {"burst": 0}, {"burst": float("inf")},
     {"tools_per_minute": "100"}, {"burst": float("nan")}, {"tools_per_minute": 1.5}],
)  # fmt: skip
def test_a_limit_that_limits_nothing_or_everything_is_refused(limits: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Limits.model_validate(limits)
