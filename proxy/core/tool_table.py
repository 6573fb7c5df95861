"""What is in force for the tool of a call?  Looked up once per request, resolved once per load."""

from __future__ import annotations

from collections.abc import Mapping

from proxy.core.model import TOOL_KINDS, Call, Effect, Kind
from proxy.core.rules.tools import DEFAULT, Tool, ToolEntry, resolve


class ToolTable:
    """The tools of one rule set by name; any other name gets the defaults."""

    def __init__(self, entries: Mapping[str, ToolEntry], budgets: Mapping[Kind, float]) -> None:
        self._tools = {name: resolve(entries, name) for name in entries if name != DEFAULT}
        self._unknown = resolve(entries, DEFAULT)
        self._budgets = budgets

    @property
    def names(self) -> frozenset[str]:
        """Those that the rules name: the closed set for labels."""
        return frozenset(self._tools)

    def get(self, name: str | None) -> Tool:
        """The tool of that name."""
        return self._tools.get(name, self._unknown) if name is not None else self._unknown

    def effect(self, call: Call) -> Effect:
        """What running this request twice would do.

        `idempotent` must stand in the tool's own entry, because it has to hold across both
        arms; a default that says so counts as write.  Protocol requests of MCP that
        run no tool (ping, tools/list, ...) only read.
        """
        if call.kind not in TOOL_KINDS:
            return Effect.WRITE
        if call.kind is Kind.MCP and call.rpc_method != "tools/call":
            return Effect.READ
        tool = self.get(call.tool)
        if tool.effect is Effect.IDEMPOTENT and tool.own_effect is not Effect.IDEMPOTENT:
            return Effect.WRITE
        return tool.effect

    def budget(self, call: Call) -> float:
        """Seconds in which a first attempt must end and a rescue begin."""
        own = self.get(call.tool).budget if call.kind in TOOL_KINDS else None
        return own if own is not None else self._budgets.get(call.kind, 0.0)

    def linger(self, call: Call) -> float:
        """Seconds for which a timed-out write may still finish; 0 for what is no write."""
        if self.effect(call) is not Effect.WRITE or call.kind not in TOOL_KINDS:
            return 0.0
        return self.get(call.tool).linger
