"""How is a Retell webhook asked?  With the caller's own bytes, or else with a function POST."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Coroutine
from typing import Any

from backends.base import BackendConfig, Send, read_whole
from proxy.core.dialects import answers, function
from proxy.core.dialects.function import CallObject
from proxy.core.dialects.headers import (
    AUTHORIZATION,
    SIGNATURE,
    bearer_fields,
    for_new_body,
    for_same_body,
)
from proxy.core.dialects.members import with_text
from proxy.core.model import Call, Headers, Kind, Outbound, Reply
from proxy.core.signature import sign
from proxy.core.targets import Targets

CALLS_KEPT = 20_000
"""For how many calls the call object is kept (at most 1 kB each), where requests are signed."""

# Bound once: reading a member of an enumeration is slow in Python 3.11.
_MCP, _TOOLS, _FUNCTION = Kind.MCP, Kind.TOOLS, Kind.FUNCTION
_CARRY_CALL = frozenset({Kind.EVENT, Kind.INBOUND, Kind.FUNCTION})
_LAST_EVENTS = frozenset({"call_analyzed", "chat_analyzed"})


class WebhookBackend:
    """Speaks Retell's webhook and custom-function wire; takes every kind but sockets."""

    kinds = frozenset(Kind) - {Kind.LLM}

    def __init__(self, config: BackendConfig) -> None:
        self._config = config
        self._targets = Targets(config.path, config.query, config.paths)
        self._credential = bearer_fields(config.bearer)
        self._names = {known: tool.name for known, tool in config.tools.items() if tool.name}
        self._schemas = {known: tool.output_schema for known, tool in config.tools.items()}
        self._calls = _CallObjects() if config.sign is not None else None

    def handle(self, call: Call, send: Send) -> Coroutine[Any, Any, Reply]:
        """Forward what is Retell's own, ask in Retell's form what came in another."""
        if call.kind is _MCP:
            return self._answer_mcp(call, send)
        if call.kind is _TOOLS:
            return send(self._composed(call))
        if self._calls is not None and call.kind in _CARRY_CALL:
            self._calls.note(call)
        return send(self._retells_own(call))

    async def _answer_mcp(self, call: Call, send: Send) -> Reply:
        if call.rpc_method != "tools/call" or call.rpc_id is None:
            return answers.no_such_method(call)
        reply = await send(self._composed(call))
        body = await read_whole(reply)
        schema, by_rule = self._schemas.get(call.tool or ""), self._config.by_rule
        return answers.as_rpc(call, call.rpc_id, reply, body, schema, by_rule)

    def _retells_own(self, call: Call) -> Outbound:
        """The caller's bytes; its Authorization too, unless this arm has a credential."""
        headers = call.head.end_to_end
        if self._credential:
            headers = for_same_body(headers, self._credential, AUTHORIZATION)
        tool = self._names.get(call.tool) if call.tool is not None else None
        outbound = Outbound(call.head.method, self._targets.of(call, tool=tool), headers, call.body)
        if tool is not None and call.kind is _FUNCTION:  # `args` names it in the path only
            outbound.body = with_text(call.body, ("name",), tool)
            signature = self._signature(outbound.body)
            outbound.headers = for_same_body(headers, signature, SIGNATURE)
        return outbound

    def _composed(self, call: Call) -> Outbound:
        """A function POST for the tool of a request that came in another form."""
        name = call.tool or ""
        tool = self._names.get(name, name)
        known = self._calls.get(call.id) if self._calls is not None else None
        body = function.compose(tool, call.arguments, known or function.bare_call(call.id))
        own = [
            (b"content-type", answers.JSON),
            (b"accept-encoding", b"identity"),
            *self._credential,
            *self._signature(body),
        ]
        headers = for_new_body(call.head.end_to_end, own)
        at = self._targets.of(call, kind=_FUNCTION, tool=tool)
        return Outbound("POST", at, headers, body, whole=call.kind is _MCP)

    def _signature(self, body: bytes) -> Headers:
        key = self._config.sign
        if key is None:
            return []
        return [(b"x-retell-signature", sign(key, body, self._config.wall_ms()))]


class _CallObjects:
    """The last call object seen of each call; the one longest not seen is forgotten first."""

    def __init__(self) -> None:
        self._of: OrderedDict[str, CallObject] = OrderedDict()

    def get(self, call_id: str | None) -> CallObject | None:
        """What was seen of that call."""
        return self._of.get(call_id) if call_id is not None else None

    def note(self, call: Call) -> None:
        """Keep what a body says of its call, up to the call's last event."""
        if call.id is None:
            return
        if call.event in _LAST_EVENTS:
            self._of.pop(call.id, None)
            return
        seen = function.call_object(call.body, call.id)
        if seen is None:
            return
        self._of[call.id] = seen
        self._of.move_to_end(call.id)
        if len(self._of) > CALLS_KEPT:
            self._of.popitem(last=False)
