"""How does a call that speaks no MCP run an MCP server's tool, and what does it hear of it?"""

from __future__ import annotations

from functools import partial
from typing import Final

from backends.base import Send
from backends.mcp_answers import read_tool_answer
from backends.mcp_asking import Asking, Question
from backends.mcp_tools import Tools, hinted
from proxy.core.dialects import answers, jsonrpc
from proxy.core.dialects.headers import for_new_answer
from proxy.core.dialects.jsonrpc import Request, RpcError, ToolResult
from proxy.core.model import Call, Era, Kind, Reply
from proxy.core.targets import Targets

REQUESTS_KEPT: Final = 1024
"""For how many tools the unchanging part of a request is kept; names come from callers."""


class Translation:
    """Functions and the guide's own form, as `tools/call`."""

    def __init__(self, asking: Asking, tools: Tools, targets: Targets) -> None:
        self._asking = asking
        self._tools = tools
        self._targets = targets
        self._requests: dict[tuple[Era, str], Request] = {}

    async def handle(self, call: Call, send: Send) -> Reply:
        """Run the call's tool; its caller hears the text."""
        name = call.tool or ""
        tool, arguments = self._tools.here(name), call.arguments or b"{}"
        question = Question(
            partial(self._put, tool, arguments),
            self._targets.of(call),
            call.head.end_to_end,
            key=call.id,
            tool=tool,
            arguments=arguments,
            may_be_taken_back=self._tools.may_be_taken_back(name),
        )
        reply, answer = await self._asking.ask(question, send, read_tool_answer)
        verdict = await self._tools.judge(tool, reply, answer, send)
        content_type, body = _in_words(call.kind, answer)
        headers = for_new_answer(reply.headers, content_type)
        status = 200 if 200 <= reply.status < 300 else reply.status
        return hinted(Reply(status, headers, body, verdict=verdict), answer)

    def _put(self, tool: str, arguments: bytes, era: Era) -> tuple[Request, bytes]:
        request = self._requests.get((era, tool))
        if request is None:
            request = jsonrpc.tools_call(era, tool)
            if len(self._requests) < REQUESTS_KEPT:
                self._requests[era, tool] = request
        return request, arguments


def _in_words(kind: Kind, answer: ToolResult | RpcError | None) -> tuple[bytes, bytes]:
    """The answer in its caller's language; that of an error is never heard, but well-formed."""
    if isinstance(answer, ToolResult):
        return answers.from_mcp(kind, answer)
    return answers.from_mcp(kind, ToolResult("The backend failed.", is_error=True))
