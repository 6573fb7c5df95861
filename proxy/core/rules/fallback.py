"""When the other arm may answer."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from proxy.core.model import TOOL_KINDS, Kind
from proxy.core.rules.base import Section
from proxy.core.rules.values import Count, Duration, Percent, RuledKind

BUDGETS: dict[Kind, float] = {kind: 5.0 for kind in Kind if kind in TOOL_KINDS} | {
    Kind.EVENT: 9.0,
    Kind.INBOUND: 9.0,
    Kind.ALERT: 9.0,
}
"""Seconds per kind.  Retell gives an event or inbound webhook 10 s."""


def _whole(given: dict[Kind, float]) -> dict[Kind, float]:
    if unknown := given.keys() - BUDGETS.keys():
        raise ValueError(f"no budget applies to {', '.join(sorted(unknown))}")
    return {**BUDGETS, **given}


class Fallback(Section):
    """Rescues: an answer from the other arm."""

    enabled: bool = Field(True, description="Whether the other arm may answer at all.")
    both_ways: bool = Field(False, description="Also from `otherwise` to `to`.")
    min_attempt: Duration = Field(
        0.3, description="A rescue starts only with this much of the budget left."
    )
    last_resort: Count = Field(
        10, description="Attempts at a time that an open breaker admits if no other arm is usable."
    )
    retry_budget: Percent = Field(
        20.0, description="Part of an arm's requests that may be asked again: retries and hedges."
    )
    budget: Annotated[dict[RuledKind, Duration], AfterValidator(_whole)] = Field(
        BUDGETS, description="Per kind: bounds the first attempt and the start of the rescue."
    )
