"""How the figures are named."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from proxy.core.rules.base import Section

_NAMESPACE = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{0,63}", re.ASCII)


def _namespace(value: str) -> str:
    if not _NAMESPACE.fullmatch(value):
        raise ValueError("a namespace has letters, digits and _, no digit first")
    return value


class Metrics(Section):
    """The figures at /metrics."""

    enabled: bool = Field(True, description="false: /metrics is empty and nothing is counted.")
    namespace: Annotated[str, AfterValidator(_namespace)] = Field(
        "callsplit", description="Prefix of every metric's name."
    )
