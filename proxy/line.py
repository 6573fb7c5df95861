"""One rule set in force, wired: what the path of a request finds in its hands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from proxy.core.call_id import CallIds
from proxy.core.mcp.face import Face
from proxy.core.model import Kind, Reply
from proxy.core.rescue import way_back
from proxy.core.rules import Fallback
from proxy.core.splitter import Splitter
from proxy.core.tool_table import ToolTable
from proxy.edge import Edge
from proxy.ports import Arm


@dataclass(frozen=True, slots=True)
class Line:
    """Everything that rules decide.

    An exchange is screened by the one it met, and decided and answered by the one that is in force
    once its body is here.
    """

    edge: Edge
    ids: CallIds
    splitter: Splitter
    arms: Mapping[str, Arm]
    to: str
    otherwise: str
    tools: ToolTable
    fallback: Fallback
    health: Callable[[], Reply]
    covers: Mapping[str, frozenset[Kind]]  # by arm: what its opposite may answer instead
    face: Face = field(default_factory=Face)  # what MCP callers hear that no arm answers
    passthrough: str | None = None
    expose_headers: bool = True

    def other(self, arm: str) -> Arm:
        """The opposite side of the split.

        Of an arm that has left the split, where live calls stay, that is `otherwise` too.
        """
        return self.arms[self.to if arm == self.otherwise else self.otherwise]

    def rescuer(self, arm: str, kind: Kind, wall_ms: int) -> Arm | None:
        """The arm that may answer a request of `kind` instead of `arm`, if there is one."""
        if kind not in self.covers[arm]:
            return None
        if arm == self.otherwise:
            present = self.splitter.present(wall_ms)
            if not way_back(percent=present.percent, cap=present.cap, kill=present.kill):
                return None
        return self.other(arm)
