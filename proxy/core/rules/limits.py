"""How much callers may ask, and how much may be under way at once."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from proxy.core.rules.base import Section
from proxy.core.rules.values import Count, Duration, Size


class Limits(Section):
    """Rates per caller, and what this process takes on; null switches a limit off."""

    tools_per_minute: Count | None = Field(
        100, description="Per credential and tool; null: no limit."
    )
    ip_per_minute: Count | None = Field(
        200, description="Per address, without a valid credential; null: no limit."
    )
    burst: Annotated[float, Field(gt=0, le=1000)] = Field(
        3.0, description="Minutes' worth of a rate that may come at once."
    )
    in_flight: Count | None = Field(
        2000, description="Exchanges at a time; beyond 80 % of it events give way; null: no limit."
    )
    bodies: Size | None = Field(
        256 * 2**20,
        description="Memory for request bodies that are still arriving, beyond 16 kB of each; "
        "beyond it 503; null: no limit.",
    )
    max_lag: Duration | None = Field(
        0.25, description="Lag of the event loop that sheds events, twice it the rest; null: never."
    )
    hops: Annotated[int, Field(ge=1, le=9)] = Field(
        3, description="Sidecars that a request may pass in a row; then it goes in circles: 508."
    )
