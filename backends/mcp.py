"""How is a real MCP server asked to run a tool, and what of its answer does the caller hear?"""

from __future__ import annotations

from backends.base import BackendConfig, Send
from backends.mcp_peer import Peer, read_any_answer, read_tool_answer, refused_era
from proxy.core.dialects import answers, jsonrpc
from proxy.core.dialects.catalogue import Catalogue, Listed, Mirror
from proxy.core.dialects.headers import (
    AUTHORIZATION,
    SIGNATURE,
    bearer_fields,
    for_new_answer,
    for_new_body,
    for_same_body,
    media_type,
    value_of,
)
from proxy.core.dialects.jsonrpc import (
    Request,
    RpcError,
    ToolResult,
    header_text,
)
from proxy.core.dialects.members import with_text
from proxy.core.model import TOOL_KINDS, Call, Era, Kind, Outbound, Reply, Verdict
from proxy.core.targets import Targets
from proxy.core.verdict import BUSINESS_NO, REFUSALS, REFUSED, judge_rpc
from proxy.errors import ProbeFailed, UpstreamFailed

REQUESTS_KEPT = 1024
"""For how many tools the unchanging part of a request is kept; names come from callers."""

_NOT_THEIRS = AUTHORIZATION | SIGNATURE


class McpBackend:
    """Speaks MCP over Streamable HTTP: modern, or legacy without sessions."""

    kinds = TOOL_KINDS
    speaks_mcp = True

    def __init__(self, config: BackendConfig) -> None:
        self._config = config
        self._targets = Targets(config.path, config.query, config.paths)
        self._credential = bearer_fields(config.bearer)
        self._may_repeat = config.may_repeat
        self._names = {known: tool.name for known, tool in config.tools.items() if tool.name}
        query = f"?{config.query}" if config.query else ""
        self._peer = Peer(f"{config.path or '/mcp'}{query}", self._credential)
        self._requests: dict[tuple[Era, str], Request] = {}

    async def handle(self, call: Call, send: Send) -> Reply:
        """Relay what is MCP already, ask for the tool where the call is something else."""
        if call.kind is Kind.MCP:
            return await self._relay(call, send)
        return await self._translate(call, send)

    async def probe(self, send: Send) -> None:
        """Ask for something harmless; raises `ProbeFailed`."""
        try:
            await self._peer.check(send, listing=self._config.probe == "tools/list")
        except UpstreamFailed as failure:
            raise ProbeFailed(str(failure)) from failure

    @property
    def catalogue(self) -> Catalogue | None:
        """What the server lists and says of itself; None if it was never asked."""
        tools = self._peer.tools
        return Catalogue(tools, self._peer.listed_whole) if tools is not None else None

    async def refresh(self, send: Send) -> None:
        """Renew the catalogue; raises `ProbeFailed` or `UpstreamFailed`, and the old one stays."""
        await self._peer.list_tools(await self._peer.current_era(send), send)

    def is_read_only(self, tool: str) -> bool:
        """The server's own catalogue says that the tool changes nothing (readOnlyHint)."""
        listed = self._listed(self._names.get(tool, tool))
        return listed is not None and listed.read_only

    def _listed(self, tool: str) -> Listed | None:
        return self._peer.tools.get(tool) if self._peer.tools is not None else None

    def _mirrors(self, tool: str) -> tuple[Mirror, ...]:
        listed = self._listed(tool)
        return listed.mirrors if listed is not None else ()

    async def _translate(self, call: Call, send: Send) -> Reply:
        name = call.tool or ""
        tool = self._names.get(name, name)
        era = self._peer.era or await self._peer.learn_era(send)
        reply, answer = await self._ask(era, tool, call, send)
        if reply.status >= 400 and await self._can_mend(era, tool, reply.status, answer, send):
            era = self._peer.era or era
            reply, answer = await self._ask(era, tool, call, send)
        verdict = await self._judge(tool, reply, answer, send)
        content_type, body = _in_words(call.kind, answer)
        headers = for_new_answer(reply.headers, content_type)
        status = 200 if 200 <= reply.status < 300 else reply.status
        return _hinted(Reply(status, headers, body, verdict=verdict), answer)

    async def _ask(
        self, era: Era, tool: str, call: Call, send: Send
    ) -> tuple[Reply, ToolResult | RpcError | None]:
        request = self._request(era, tool)
        arguments = call.arguments or b"{}"
        own = [*request.headers, *self._credential]
        listed = self._listed(tool) if era is Era.MODERN else None
        if listed is not None:
            own += listed.param_headers(arguments)
        headers = for_new_body(call.head.end_to_end, own)
        return await self._peer.call_tool(
            request, arguments, target=self._targets.of(call), headers=headers, send=send
        )

    def _request(self, era: Era, tool: str) -> Request:
        request = self._requests.get((era, tool))
        if request is None:
            request = jsonrpc.tools_call(era, tool)
            if len(self._requests) < REQUESTS_KEPT:
                self._requests[era, tool] = request
        return request

    async def _can_mend(self, era: Era, tool: str, status: int, answer: object, send: Send) -> bool:
        """A request was turned away unread for how it was put: learn to put it better."""
        try:
            if refused_era(status, answer, era):
                return self._may_repeat() and await self._peer.learn_era(send) is not era
            mirrors = isinstance(answer, RpcError) and answer.code == jsonrpc.HEADER_MISMATCH
            if mirrors and self._may_repeat():
                before = self._mirrors(tool)
                await self._peer.list_tools(era, send)
                return self._mirrors(tool) != before
        except (UpstreamFailed, ProbeFailed):
            return False  # The refusal stands.
        return False

    async def _judge(
        self, tool: str, reply: Reply, answer: ToolResult | RpcError | None, send: Send
    ) -> Verdict | None:
        """None leaves a failing status to whoever knows what the arm promises of it."""
        if _says_unknown(answer, tool) and await self._lacks(tool, send):
            return REFUSED
        by_rule = self._config.by_rule
        verdict = judge_rpc(reply.status, reply.headers, answer, by_rule=by_rule)
        by_status = reply.status == 429 or reply.status >= 500
        return None if by_status and verdict is not REFUSED else verdict

    async def _lacks(self, tool: str, send: Send) -> bool:
        """The server's own catalogue does not have the tool either: so nothing ran.

        Asked for anew: in an older one a tool that the server has learned since, and has run,
        would be missing too.
        """
        try:
            await self._peer.list_tools(await self._peer.current_era(send), send)
        except (UpstreamFailed, ProbeFailed):
            return False
        return self._peer.listed_whole and self._listed(tool) is None

    async def _relay(self, call: Call, send: Send) -> Reply:
        """The caller's own bytes both ways, but never its credential."""
        runs = call.rpc_method == "tools/call"
        tool = call.tool or ""
        name = self._names.get(tool) if runs else None
        headers = for_same_body(call.head.end_to_end, self._credential, _NOT_THEIRS)
        body = call.body
        if name is not None:
            tool, body = name, with_text(body, ("params", "name"), name)
            headers = [
                (k, header_text(name) if k.lower() == b"mcp-name" else v) for k, v in headers
            ]
        reply = await send(Outbound(call.head.method, self._targets.of(call), headers, body))
        rpc_id = call.rpc_id
        if rpc_id is None or not _is_readable(reply):
            return reply
        if not runs:
            said = await read_any_answer(reply, rpc_id)
            reply.verdict = _judge_protocol(reply, said)
            return reply
        answer = await read_tool_answer(reply, rpc_id, complete=False)
        reply.verdict = await self._judge(tool, reply, answer, send)
        return _hinted(reply, answer)


def _says_unknown(answer: object, tool: str) -> bool:
    """The answer may mean that there is no such tool: protocol error, or the SDKs' own words."""
    if isinstance(answer, RpcError):
        return answer.code == jsonrpc.INVALID_PARAMS
    if not isinstance(answer, ToolResult) or not answer.is_error:
        return False
    said = answer.text[:300].casefold()
    return said.startswith("unknown tool") or f"tool {tool} not found".casefold() in said


def _hinted(reply: Reply, answer: object) -> Reply:
    """A reply that tells for how long, and for whom, the server lets its answer be kept.

    A hint that cannot be understood says: not at all, for nobody else.
    """
    if isinstance(answer, ToolResult):
        ms, scope = answer.ttl_ms, answer.cache_scope
        if ms is not None:
            reply.ttl = ms / 1000 if isinstance(ms, int | float) and ms > 0 else 0.0
        reply.private = scope not in (None, "public")
    return reply


def _is_readable(reply: Reply) -> bool:
    """An answer that is relayed can be judged by its content: whole, plain JSON."""
    whole = isinstance(reply.body, bytes) and media_type(reply.headers) != b"text/event-stream"
    return whole and not value_of(reply.headers, b"content-encoding")


def _judge_protocol(reply: Reply, answer: bytes | RpcError | None) -> Verdict:
    """Where no tool can run, an error is the server's to tell: the caller asked wrongly."""
    if (
        isinstance(answer, RpcError)
        and answer.code != jsonrpc.INTERNAL_ERROR
        and reply.status < 500
        and reply.status != 429
        and reply.status not in REFUSALS
    ):
        return BUSINESS_NO
    return judge_rpc(reply.status, reply.headers, answer)


def _in_words(kind: Kind, answer: ToolResult | RpcError | None) -> tuple[bytes, bytes]:
    """The answer in its caller's language; that of an error is never heard, but well-formed."""
    if isinstance(answer, ToolResult):
        return answers.from_mcp(kind, answer)
    return answers.from_mcp(kind, ToolResult("The backend failed.", is_error=True))
