"""How much callers may ask."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from proxy.core.rules.base import Section
from proxy.core.rules.values import Count


class Limits(Section):
    """Rate limits; null switches one off."""

    tools_per_minute: Count | None = Field(
        100, description="Per credential and tool; null: no limit."
    )
    ip_per_minute: Count | None = Field(
        200, description="Per address, without a valid credential; null: no limit."
    )
    burst: Annotated[float, Field(gt=0, le=1000)] = Field(
        3.0, description="Minutes' worth of a rate that may come at once."
    )
