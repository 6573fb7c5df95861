"""One rule set in force, wired: what the path of a request finds in its hands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from proxy.core.call_id import CallIds
from proxy.core.model import Reply
from proxy.core.rules import Fallback
from proxy.core.splitter import Splitter
from proxy.core.tool_table import ToolTable
from proxy.edge import Edge
from proxy.ports import Arm


@dataclass(frozen=True, slots=True)
class Line:
    """Everything that rules decide.  An exchange sees one from beginning to end."""

    edge: Edge
    ids: CallIds
    splitter: Splitter
    arms: Mapping[str, Arm]
    to: str
    otherwise: str
    tools: ToolTable
    fallback: Fallback
    health: Callable[[], Reply]
    passthrough: str | None = None
    expose_headers: bool = True

    def other(self, arm: str) -> Arm:
        """The opposite side of the split."""
        return self.arms[self.otherwise if arm == self.to else self.to]
