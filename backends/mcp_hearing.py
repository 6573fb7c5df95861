"""What does an MCP caller hear of a server's own bytes, and how are they judged?"""

from __future__ import annotations

from typing import Final

from msgspec import Raw

from backends.base import Send
from backends.mcp_answers import read_any_answer, read_tool_answer
from backends.mcp_tools import SESSION_LOST, Tools, hinted
from proxy.core.dialects import jsonrpc
from proxy.core.dialects.headers import media_type, value_of
from proxy.core.dialects.jsonrpc import RpcError, ToolResult
from proxy.core.dialects.members import document_of, members_of
from proxy.core.model import Call, Form, Reply, Verdict
from proxy.core.verdict import BUSINESS_NO, judge_rpc
from proxy.errors import UpstreamFailed

_NOT_YOURS: Final = frozenset({b"www-authenticate"})  # It would invite the caller to our tokens.
_CONFIG_FAULTS: Final = frozenset({401, 403, 407, 421, 508})
_CALLERS_FAULTS: Final = frozenset({406, 413, 415})


async def judged(call: Call, reply: Reply, tool: str, tools: Tools, send: Send) -> Reply:
    """The answer for the caller, with the verdict on it; never with a strange ID.

    Raises `UpstreamFailed` for a 2xx that is whole, and no answer to the call.
    """
    reply.headers = [field for field in reply.headers if field[0].lower() not in _NOT_YOURS]
    rpc_id = call.rpc_id
    if rpc_id is None or call.form is Form.ANSWER:
        reply.verdict = _judge_unheard(reply)
        return reply
    if not _is_readable(reply):
        return reply
    answer: ToolResult | RpcError | bytes | None
    if call.rpc_method == "tools/call":
        answer = said = await read_tool_answer(reply, rpc_id, complete=False)
        reply.verdict = await tools.judge(tool, reply, said, send, relayed=True)
    else:
        answer = said_any = await read_any_answer(reply, rpc_id)
        reply.verdict = judge_protocol(reply, said_any)
    if answer is not None:
        reply.body = _with_id(text_of(reply), rpc_id)
    return hinted(reply, answer)


def judge_protocol(reply: Reply, answer: bytes | RpcError | None) -> Verdict:
    """Where no tool can run, an error is the server's to tell: the caller asked wrongly."""
    status = reply.status
    tells = status < 500 and status != 429 and status not in _CONFIG_FAULTS
    if isinstance(answer, RpcError):
        wrong = tells and answer.code != jsonrpc.INTERNAL_ERROR
    else:
        wrong = answer is None and status in _CALLERS_FAULTS
    return BUSINESS_NO if wrong else judge_rpc(status, reply.headers, answer)


def lost(reply: Reply) -> Reply:
    """An answer that says that the caller's session is no more, and that nobody should hear."""
    reply.verdict = SESSION_LOST
    return reply


def text_of(reply: Reply) -> bytes:
    """The body of an answer, as far as it is here."""
    return reply.body if isinstance(reply.body, bytes) else b""


async def error_in(reply: Reply, rpc_id: bytes | None) -> RpcError | None:
    """The error that an answer brings, if it can be read before it is relayed."""
    if not _is_readable(reply) or not reply.body:
        return None
    answer = await read_any_answer(reply, rpc_id or b"null")
    return answer if isinstance(answer, RpcError) else None


def _is_readable(reply: Reply) -> bool:
    """An answer that is relayed can be judged by its content: whole, plain JSON."""
    whole = isinstance(reply.body, bytes) and media_type(reply.headers) != b"text/event-stream"
    return whole and not value_of(reply.headers, b"content-encoding")


def _with_id(message: bytes, rpc_id: bytes) -> bytes:
    """The message with the caller's own ID: servers refuse with null, or one of their making.

    Who reads only what answers does not look at all of it; raises `UpstreamFailed` for no UTF-8.
    """
    try:
        members = members_of(message)
    except ValueError:
        raise UpstreamFailed("body", "the answer is no JSON-RPC answer", sent=True) from None
    if bytes(members.get("id", b"")) == rpc_id:
        return message
    members["id"] = Raw(rpc_id)
    return document_of(members)


def _judge_unheard(reply: Reply) -> Verdict | None:
    """Where nobody waits for a result, a "no" is the server's to say; None: judge the status."""
    by_status = not 400 <= reply.status < 500 or reply.status in (429, *_CONFIG_FAULTS)
    return None if by_status else BUSINESS_NO
