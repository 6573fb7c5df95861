"""What is in force for the tool of a call?  Resolved once per load, looked up once per request."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace

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

    Where the rules leave a tool's effect open, the MCP server's hints are heard (`learn`), but
    only `readOnlyHint`.  `idempotentHint` promises that two runs on that server are as good as
    one, which says nothing of one run there and one on the other arm: such a tool stays a write,
    and the hint is for the arm alone (`Listed.idempotent`).
    """

    def __init__(self, entries: Mapping[str, ToolEntry], budgets: Mapping[Kind, float]) -> None:
        self._tools = {name: resolve(entries, name) for name in entries if name != DEFAULT}
        self._unknown = resolve(entries, DEFAULT)
        self._budgets = budgets
        self._ruled: dict[tuple[Kind, str | None], Terms] = {
            (kind, name): terms
            for name, tool in self._tools.items()
            for kind, terms in self._of_kinds(tool)
        }
        self._by_tool = self._ruled  # and what was learned
        self._by_kind = {
            kind: tool_terms(self._unknown, kind, budgets)
            if kind in TOOL_KINDS
            else Terms(Effect.WRITE, is_safe(Effect.WRITE, kind), budgets.get(kind, 0.0), 0.0)
            for kind in Kind
        }
        self._protocol = Terms(Effect.READ, True, budgets[Kind.MCP], 0.0)
        self._known: dict[str, str] = {}
        self._hints: dict[str, Mapping[str, Effect]] = {}

    @property
    def names(self) -> frozenset[str]:
        """Those that the rules name: the closed set for labels."""
        return frozenset(self._tools)

    @property
    def ruled(self) -> Collection[Tool]:
        """Those that the rules name, in their order."""
        return self._tools.values()

    def get(self, name: str | None) -> Tool:
        """The tool of that name."""
        return self._tools.get(name, self._unknown) if name is not None else self._unknown

    def terms(self, call: Call) -> Terms:
        """What holds for this request."""
        kind = call.kind
        if kind is _MCP and call.rpc_method != "tools/call":
            return self._protocol
        return self._by_tool.get((kind, call.tool)) or self._by_kind[kind]

    def known(self, name: str) -> str:
        """The rules' name of a tool that an MCP caller may call by the name its server has."""
        return self._known.get(name, name)

    def speak_as(self, arms: Iterable[str]) -> None:
        """These arms speak MCP, the most important first: their names for tools are heard."""
        found: dict[str, str] = {}
        for arm in arms:
            for name, tool in names_on(arm, self._tools.values()).items():
                found.setdefault(name, tool.name)
        self._known = {name: known for name, known in found.items() if name != known}

    def learn(self, arm: str, effects: Mapping[str, Effect]) -> None:
        """Hear what an arm's server says now of every tool that it lists, by its own names.

        It replaces all that it has said before.  An operator's word on a tool outranks it.  Where
        several servers list a tool, it only reads if all of them say so.
        """
        self._hints[arm] = effects
        writes = {name for name, effect in self._heard() if effect is not Effect.READ}
        reads = {name for name, _ in self._heard()} - writes
        learned = {
            (kind, name): terms
            for name in reads
            for kind, terms in self._of_kinds(replace(self.get(name), effect=Effect.READ))
        }
        self._by_tool = self._ruled | learned

    def _heard(self) -> Iterator[tuple[str, Effect]]:
        """What was said of the tools that the rules leave open, by the rules' names."""
        for arm, effects in self._hints.items():
            ours = set()
            for tool in self._tools.values():
                ours.add(name := tool.names.get(arm, tool.name))
                if tool.own_effect is None and name in effects:
                    yield tool.name, effects[name]
            for name, effect in effects.items():
                if name not in ours and name not in self._tools:
                    yield name, effect

    def _of_kinds(self, tool: Tool) -> Iterator[tuple[Kind, Terms]]:
        for kind in TOOL_KINDS:
            yield kind, tool_terms(tool, kind, self._budgets)


def names_on(arm: str, tools: Iterable[Tool]) -> dict[str, Tool]:
    """The tools of the rules by their names on `arm`.

    Of two that have the same name there, one that needs no other name than its own comes first.
    """
    found: dict[str, Tool] = {}
    for tool in sorted(tools, key=lambda tool: arm in tool.names):
        found.setdefault(tool.names.get(arm, tool.name), tool)
    return found


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
