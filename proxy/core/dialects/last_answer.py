"""What does the caller get when no arm can answer, or none is asked again?"""

from __future__ import annotations

from proxy.core.dialects import answers, function, inbound, jsonrpc, tools
from proxy.core.dialects.jsonrpc import ToolResult
from proxy.core.fields import fields
from proxy.core.model import TOOL_KINDS, Call, Headers, Kind, Ran, Reply
from proxy.core.rules.tools import Tool

RETRY_AFTER = 5
"""Seconds after which Retell may try an event again; it has 10 s and three more tries."""

_JSON: Headers = [(b"content-type", answers.JSON)]
_NOBODY = "No backend can answer right now."


def last_answer(
    call: Call, *, ran: Ran, tool: Tool, language: str | None = None, retry_after: int = RETRY_AFTER
) -> Reply:
    """Answer in the caller's language, with a sentence that the agent can speak.

    `ran` is what is known of all attempts together: only NO promises that nothing happened.
    `language` is a tag such as `de-AT`.
    """
    if call.kind in TOOL_KINDS:
        sentence = tool.say if ran is Ran.NO else tool.say_pending
        return _spoken(call, sentence.in_language(language))
    if call.kind is Kind.INBOUND:
        return Reply(200, list(_JSON), inbound.no_instructions(call.event))
    later = (b"retry-after", b"%d" % retry_after)
    return Reply(503, [*_JSON, later], function.spoken(_NOBODY))


def language_of(call: Call, tool: Tool) -> str | None:
    """The caller's language, where the tool says how to find it."""
    spoken = fields(call).get(tool.language) if tool.language else None
    return spoken if isinstance(spoken, str) else None


def done_answer(call: Call, *, tool: Tool, language: str | None = None) -> Reply:
    """Answer the repeat of a write that succeeded, but whose own answer was too large to keep."""
    return _spoken(call, tool.say_done.in_language(language), done=True)


def _spoken(call: Call, sentence: str, *, done: bool = False) -> Reply:
    if call.kind is Kind.MCP:
        return _to_mcp(call, sentence, done=done)
    if call.kind is Kind.TOOLS:
        body = tools.render(sentence) if done else tools.failure(sentence, tools.UNAVAILABLE)
    else:
        body = function.spoken(sentence, success=done)
    return Reply(200, list(_JSON), body)


def _to_mcp(call: Call, sentence: str, *, done: bool) -> Reply:
    """Always status 200: on others whole client sessions die, and with them the call's tools."""
    if call.head.method != "POST":
        return Reply(405, [(b"allow", b"POST")])
    if call.rpc_id is None or call.rpc_method is None:
        return Reply(202)  # Nobody waits for an answer to a notification, or to an answer.
    if call.rpc_method == "tools/call":
        result = ToolResult(sentence, is_error=not done)
        era = jsonrpc.era_of(call.head.named)
        return answers.rpc_reply(call, jsonrpc.render_result(call.rpc_id, era, result))
    message = jsonrpc.render_error(call.rpc_id, jsonrpc.INTERNAL_ERROR, _NOBODY)
    return answers.rpc_reply(call, message)
