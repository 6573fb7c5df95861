"""What is in force for the tool of a call?  Resolved once per load, looked up once per request."""

from __future__ import annotations

from collections.abc import Mapping

from msgspec import Struct

from proxy.core.model import TOOL_KINDS, Call, Effect, Kind
from proxy.core.rescue import is_safe
from proxy.core.rules.tools import DEFAULT, Tool, ToolEntry, resolve

_MCP = Kind.MCP  # Bound once: reading a member of an enumeration is slow in Python 3.11.


class Terms(Struct, frozen=True, gc=False):
    """What failing half way may cost, and how long is waited.  Times are seconds."""

    effect: Effect  # what running the request twice would do
    safe: bool  # nothing is lost if an attempt fails half way and another follows
    budget: float  # in which a first attempt must end and a rescue begin
    linger: float  # for which a timed-out write may still finish; 0 for what is no write
    hedge: bool = False  # both arms may be asked at once; only ever of what reads
    replay_for: float | None = None  # how long a write's answer serves repeats; None: no write


class ToolTable:
    """The tools of one rule set by name; any other name gets the defaults.

    `idempotent` must stand in a tool's own entry, because it has to hold across both arms; a
    default that says so counts as write.  Protocol requests of MCP that run no tool (ping,
    tools/list, ...) only read.
    """

    def __init__(self, entries: Mapping[str, ToolEntry], budgets: Mapping[Kind, float]) -> None:
        self._tools = {name: resolve(entries, name) for name in entries if name != DEFAULT}
        self._unknown = resolve(entries, DEFAULT)
        self._by_tool: dict[tuple[Kind, str | None], Terms] = {
            (kind, name): tool_terms(tool, kind, budgets)
            for kind in TOOL_KINDS
            for name, tool in self._tools.items()
        }
        self._by_kind = {
            kind: tool_terms(self._unknown, kind, budgets)
            if kind in TOOL_KINDS
            else Terms(Effect.WRITE, is_safe(Effect.WRITE, kind), budgets.get(kind, 0.0), 0.0)
            for kind in Kind
        }
        self._protocol = Terms(Effect.READ, True, budgets[Kind.MCP], 0.0)

    @property
    def names(self) -> frozenset[str]:
        """Those that the rules name: the closed set for labels."""
        return frozenset(self._tools)

    def get(self, name: str | None) -> Tool:
        """The tool of that name."""
        return self._tools.get(name, self._unknown) if name is not None else self._unknown

    def terms(self, call: Call) -> Terms:
        """What holds for this request."""
        kind = call.kind
        if kind is _MCP and call.rpc_method != "tools/call":
            return self._protocol
        return self._by_tool.get((kind, call.tool)) or self._by_kind[kind]


def tool_terms(tool: Tool, kind: Kind, budgets: Mapping[Kind, float]) -> Terms:
    """A tool's terms in a request of one kind."""
    effect = tool.effect
    if effect is Effect.IDEMPOTENT and tool.own_effect is not Effect.IDEMPOTENT:
        effect = Effect.WRITE
    budget = tool.budget if tool.budget is not None else budgets.get(kind, 0.0)
    writes = effect is Effect.WRITE
    linger, replay_for = (tool.linger, tool.replay_for) if writes else (0.0, None)
    hedge = tool.hedge and effect is Effect.READ
    return Terms(effect, is_safe(effect, kind), budget, linger, hedge, replay_for)
