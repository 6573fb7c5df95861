from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from proxy.core.rules import Limits


def test_limits_hold_without_a_word() -> None:
    assert Limits() == Limits.model_validate(
        {
            "tools_per_minute": 100,
            "ip_per_minute": 200,
            "burst": 3.0,
            "in_flight": 2000,
            "bodies": "256MB",
            "max_lag": "250ms",
            "hops": 3,
        }
    )


def test_null_switches_a_limit_off() -> None:
    names = ("ip_per_minute", "tools_per_minute", "in_flight", "bodies", "max_lag")
    off = Limits.model_validate(dict.fromkeys(names))
    assert [getattr(off, name) for name in names] == [None] * 5


def test_circles_always_have_an_end() -> None:
    for hops in (0, 10, None):
        with pytest.raises(ValidationError):
            Limits.model_validate({"hops": hops})


@pytest.mark.parametrize(
    "limits",
    [{"tools_per_minute": 0}, {"ip_per_minute": True}, {"burst": 0}, {"burst": float("inf")},
     {"tools_per_minute": "100"}, {"burst": float("nan")}, {"tools_per_minute": 1.5},
     {"in_flight": 0}, {"max_lag": 0.2}, {"max_lag": "0s"}],
)  # fmt: skip
def test_a_limit_that_limits_nothing_or_everything_is_refused(limits: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Limits.model_validate(limits)
