"""The plan by which the share grows, and what stops it."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

from pydantic import AfterValidator, Field

from proxy.core.rules.base import Section
from proxy.core.rules.values import AsTuple, Count, Duration, Percent


def _ascending(steps: tuple[float, ...]) -> tuple[float, ...]:
    if not steps:
        raise ValueError("at least one step is needed")
    if steps[0] <= 0 or any(later <= earlier for earlier, later in pairwise(steps)):
        raise ValueError("steps must rise, from above 0 up to 100")
    return steps


class Bounds(Section):
    """Three figures of an arm."""

    p95: Duration = Field(description="95th percentile of the response time.")
    errors: Percent = Field(description="Share of failed calls.")
    tool_success: Percent = Field(description="Share of tools that succeeded, at least.")


class Signals(Bounds):
    """Beyond these a rollout holds, then pauses."""

    p95: Duration = Field(0.5, description="95th percentile of the response time, at most.")
    errors: Percent = Field(1.0, description="Share of failed calls, at most.")
    tool_success: Percent = Field(98.0, description="Share of tools that succeed, at least.")


class Guardrails(Bounds):
    """Beyond these a rollout rolls back."""

    p95: Duration = Field(1.0, description="95th percentile of the response time, at most.")
    errors: Percent = Field(10.0, description="Share of failed calls, at most.")
    tool_success: Percent = Field(95.0, description="Share of tools that succeed, at least.")


class Rollout(Section):
    """The plan; it begins only on `callsplit rollout start`."""

    steps: Annotated[tuple[Percent, ...], AsTuple, AfterValidator(_ascending)] = Field(
        (10.0, 25.0, 50.0, 75.0, 100.0), description="Shares, one after another."
    )
    every: Duration = Field(300.0, description="The least time on a step.")
    min_calls: Count = Field(50, description="Calls per step and arm before it is judged.")
    signals: Signals = Field(Signals(), description="Beyond these: hold, then pause.")
    guardrails: Guardrails = Field(Guardrails(), description="Beyond these: roll back.")
