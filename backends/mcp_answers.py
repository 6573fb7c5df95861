"""What did an MCP server answer, in JSON or in a stream of events?"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from backends.base import close, read_whole
from proxy.core.dialects import jsonrpc, sse
from proxy.core.dialects.headers import media_type
from proxy.core.dialects.jsonrpc import RpcError, ToolResult
from proxy.core.model import Reply
from proxy.errors import UpstreamFailed

_T = TypeVar("_T")

STREAM_END = 0.1
"""Seconds that a stream may take to end once it has answered; then its connection is dropped."""


async def read_tool_answer(
    reply: Reply, rpc_id: bytes, *, complete: bool = True
) -> ToolResult | RpcError | None:
    """Read the answer to a `tools/call`, from JSON or from an event stream.

    None only where a status other than 2xx came without a message.  Raises `UpstreamFailed` if a
    2xx holds no answer to the request `rpc_id`, or, with `complete`, one that asks for more.
    """
    parse = jsonrpc.parse_tool_answer
    return await read(reply, lambda message: parse(message, rpc_id, complete=complete))


async def read_any_answer(reply: Reply, rpc_id: bytes) -> bytes | RpcError | None:
    """Like `read_tool_answer` for any method; a result stays raw JSON."""
    return await read(reply, lambda message: jsonrpc.parse_answer(message, rpc_id))


async def read(reply: Reply, parse: Callable[[bytes], _T | None]) -> _T | None:
    """The first message that `parse` takes for the answer; it raises ValueError for none at all."""
    good = 200 <= reply.status < 300
    if good and media_type(reply.headers) == b"text/event-stream":
        body = reply.body
        return await _from_events(_once(body) if isinstance(body, bytes) else body, parse)
    whole = await read_whole(reply)
    try:
        answer = parse(whole)
    except ValueError:
        answer = None
    if answer is None and good:
        raise UpstreamFailed("body", "the answer is no JSON-RPC answer", sent=True)
    return answer


async def leave(reply: Reply) -> None:
    """Nobody reads the rest of this answer."""
    if not isinstance(reply.body, bytes):
        await close(reply.body)


def told(method: str, reply: Reply, answer: object) -> str:
    """What became of a question, for the operator: numbers only, nothing that the server wrote."""
    code = f", error {answer.code}" if isinstance(answer, RpcError) else ""
    return f"{method}: status {reply.status}{code}"


async def _once(body: bytes) -> AsyncIterator[bytes]:
    yield body


def _find(events: list[sse.Event], parse: Callable[[bytes], _T | None]) -> _T | None:
    for event in events:
        if event.name == b"message" and event.data:  # Servers prime streams with empty events.
            answer = parse(event.data)
            if answer is not None:
                return answer
    return None


async def _from_events(stream: AsyncIterator[bytes], parse: Callable[[bytes], _T | None]) -> _T:
    """Read up to the answer, then to the stream's end, so that its connection can be kept."""
    parser = sse.Parser()
    try:
        async for chunk in stream:
            answer = _find(parser.feed(chunk), parse)
            if answer is not None:
                await _to_end(stream)
                return answer
    except ValueError as error:
        raise UpstreamFailed("body", "the stream holds no JSON-RPC", sent=True) from error
    finally:
        await close(stream)
    raise UpstreamFailed("body", "the stream ended without an answer", sent=True)


async def _to_end(stream: AsyncIterator[bytes]) -> None:
    """Whatever happens after a good answer does not unmake it."""
    try:
        async with asyncio.timeout(STREAM_END):
            async for _ in stream:
                pass
    except (TimeoutError, UpstreamFailed):
        return
