"""How is a backend asked that speaks the migration guide's own wire?"""

from __future__ import annotations

from backends.base import BackendConfig, Send, read_whole
from proxy.core.dialects import answers, tools
from proxy.core.dialects.headers import (
    AUTHORIZATION,
    SIGNATURE,
    bearer_fields,
    for_new_body,
    for_same_body,
)
from proxy.core.dialects.members import with_text
from proxy.core.model import TOOL_KINDS, Call, Headers, Kind, Outbound, Reply
from proxy.core.targets import Targets


class ToolsBackend:
    """Asks `{tool, arguments, call_id}`; all but MCP callers get the answer's body unchanged."""

    kinds = TOOL_KINDS

    def __init__(self, config: BackendConfig) -> None:
        self._config = config
        self._targets = Targets(config.path, config.query, config.paths)
        self._names = {known: tool.name for known, tool in config.tools.items() if tool.name}
        self._schemas = {known: tool.output_schema for known, tool in config.tools.items()}
        self._credential = bearer_fields(config.bearer)
        self._own: Headers = [
            (b"content-type", answers.JSON),
            (b"accept", answers.JSON),
            (b"accept-encoding", b"identity"),
            *self._credential,
        ]

    async def handle(self, call: Call, send: Send) -> Reply:
        """Forward the guide's wire, ask in it what came in another."""
        if call.kind is Kind.TOOLS:
            return await send(self._forwarded(call))
        if call.kind is not Kind.MCP:
            return await send(self._composed(call))
        if call.rpc_method != "tools/call" or call.rpc_id is None:
            return answers.no_such_method(call)
        reply = await send(self._composed(call))
        body = await read_whole(reply)
        schema, by_rule = self._schemas.get(call.tool or ""), self._config.by_rule
        return answers.as_rpc(call, call.rpc_id, reply, body, schema, by_rule)

    def _forwarded(self, call: Call) -> Outbound:
        """The caller's own bytes, or those with the name that the tool has here."""
        dropped = AUTHORIZATION | SIGNATURE
        headers = for_same_body(call.head.end_to_end, self._credential, dropped)
        name, body = self._names.get(call.tool or ""), call.body
        if name is not None:
            body = with_text(body, ("tool",), name)
        return Outbound(
            call.head.method, self._targets.of(call, kind=Kind.TOOLS, tool=name), headers, body
        )

    def _composed(self, call: Call) -> Outbound:
        name = call.tool or ""
        tool = self._names.get(name, name)
        body = tools.compose(tool, call.arguments, call.id)
        headers = for_new_body(call.head.end_to_end, self._own)
        whole = call.kind is Kind.MCP
        return Outbound(
            "POST", self._targets.of(call, kind=Kind.TOOLS, tool=tool), headers, body, whole=whole
        )
