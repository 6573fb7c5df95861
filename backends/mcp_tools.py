"""What do rules and server say of a tool, and so of an answer about it?"""

from __future__ import annotations

from dataclasses import replace

from backends.base import BackendConfig, Send
from backends.mcp_listing import Listing
from proxy.core.dialects import jsonrpc
from proxy.core.dialects.jsonrpc import RpcError, ToolResult
from proxy.core.model import Effect, Ran, Reply, Verdict
from proxy.core.verdict import BUSINESS_NO, REFUSED, judge_rpc

SESSION_LOST = replace(REFUSED, config_fault=False)
"""That on a request whose session the server did not know: nothing ran, and nobody is at fault."""

ASKED_WRONGLY = replace(BUSINESS_NO, ran=Ran.NO)
"""That on a message that its caller must put in another way; nobody else would take it either."""

_ASKED_WRONGLY = frozenset(
    {jsonrpc.HEADER_MISMATCH, jsonrpc.MISSING_CAPABILITY, jsonrpc.INVALID_PARAMS}
)
_HARMLESS = frozenset({Effect.READ, Effect.IDEMPOTENT})


class Tools:
    """The tools of one arm."""

    def __init__(self, config: BackendConfig, listing: Listing) -> None:
        self.names = {known: tool.name for known, tool in config.tools.items() if tool.name}
        self._effects = {known: tool.effect for known, tool in config.tools.items()}
        self._by_rule = config.by_rule
        self._listing = listing

    def here(self, tool: str) -> str:
        """The name that a tool has at this server."""
        return self.names.get(tool, tool)

    def is_read_only(self, tool: str) -> bool:
        """The server's own catalogue says that the tool changes nothing (readOnlyHint)."""
        listed = self._listing.get(self.here(tool))
        return listed is not None and listed.read_only

    def may_be_taken_back(self, tool: str | None) -> bool:
        """A tool under way may be cancelled; never one that writes."""
        if tool is None:
            return False
        effect = self._effects.get(tool)
        return self.is_read_only(tool) if effect is None else effect in _HARMLESS

    async def judge(
        self,
        here: str,
        reply: Reply,
        answer: ToolResult | RpcError | None,
        send: Send,
        *,
        relayed: bool = False,
    ) -> Verdict | None:
        """None leaves a failing status to whoever knows what the arm promises of it.

        `relayed`: the question was the caller's own, word for word, and so are its faults.
        """
        if _says_unknown(answer, here) and await self._listing.lacks(here, send):
            return REFUSED
        wrong = isinstance(answer, RpcError) and answer.code in _ASKED_WRONGLY
        if relayed and wrong and reply.status == 400:
            return ASKED_WRONGLY
        verdict = judge_rpc(reply.status, reply.headers, answer, by_rule=self._by_rule)
        by_status = reply.status == 429 or reply.status >= 500
        return None if by_status and verdict is not REFUSED else verdict


def hinted(reply: Reply, answer: object) -> Reply:
    """A reply that tells for how long, and for whom, the server lets its answer be kept.

    A hint that cannot be understood says: not at all, for nobody else.
    """
    if isinstance(answer, ToolResult):
        ms, scope = answer.ttl_ms, answer.cache_scope
        if ms is not None:
            reply.ttl = ms / 1000 if isinstance(ms, int | float) and ms > 0 else 0.0
        reply.private = scope not in (None, "public")
    return reply


def _says_unknown(answer: object, tool: str) -> bool:
    """The answer may mean that there is no such tool: protocol error, or the SDKs' own words."""
    if isinstance(answer, RpcError):
        return answer.code == jsonrpc.INVALID_PARAMS
    if not isinstance(answer, ToolResult) or not answer.is_error:
        return False
    said = answer.text[:300].casefold()
    return said.startswith("unknown tool") or f"tool {tool} not found".casefold() in said
