"""How the figures are named."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from proxy.core.rules.base import Section


class Metrics(Section):
    """The figures at /metrics."""

    enabled: bool = Field(True, description="false: /metrics is empty and nothing is counted.")
    namespace: Annotated[str, Field(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]{0,63}$")] = Field(
        "callsplit", description="Prefix of every metric's name."
    )
