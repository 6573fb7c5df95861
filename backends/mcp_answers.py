"""What did an MCP server answer, in JSON or in a stream of events?"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, TypeAlias, TypeVar

from backends.base import close, read_whole
from proxy.core.dialects import jsonrpc, sse
from proxy.core.dialects.headers import media_type
from proxy.core.dialects.jsonrpc import RpcError, ToolResult
from proxy.core.model import Reply
from proxy.errors import UpstreamFailed

_T = TypeVar("_T")

_UNANSWERED: Final = "the stream ended without an answer"

STREAM_END: Final = 0.1
"""Seconds that a stream may take to end once it has answered; then its connection is dropped."""

COME_BACK_MS: Final = 100
"""Until a stream is taken up again whose server has not said when: nobody on the phone waits long.
"""

COME_BACK_LEAST_MS: Final = 10
"""What a server may ask for at the least: with 0 a client would do nothing but ask."""

Resume: TypeAlias = Callable[[bytes, float], Awaitable[Reply]]
"""Asks for what followed the event of that ID, in a stream that has ended, after so many seconds.
"""


async def read_tool_answer(
    reply: Reply, rpc_id: bytes, resume: Resume | None = None, *, complete: bool = True
) -> ToolResult | RpcError | None:
    """Read the answer to a `tools/call`, from JSON or from an event stream.

    A stream that ends early is taken up again by `resume`, if its server has made that possible.

    None only where a status other than 2xx came without a message.  Raises `UpstreamFailed` if a
    2xx holds no answer to the request `rpc_id`, or, with `complete`, one that asks for more.
    """
    parse = jsonrpc.parse_tool_answer
    return await read(reply, lambda message: parse(message, rpc_id, complete=complete), resume)


async def read_any_answer(
    reply: Reply, rpc_id: bytes, resume: Resume | None = None
) -> bytes | RpcError | None:
    """Like `read_tool_answer` for any method; a result stays raw JSON."""
    return await read(reply, lambda message: jsonrpc.parse_answer(message, rpc_id), resume)


async def read(
    reply: Reply, parse: Callable[[bytes], _T | None], resume: Resume | None = None
) -> _T | None:
    """The first message that `parse` takes for the answer; it raises ValueError for none at all."""
    good = 200 <= reply.status < 300
    if good and media_type(reply.headers) == b"text/event-stream":
        body = reply.body
        stream = _once(body) if isinstance(body, bytes) else body
        return await _from_events(stream, parse, resume)
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


async def _from_events(
    stream: AsyncIterator[bytes], parse: Callable[[bytes], _T | None], resume: Resume | None
) -> _T:
    """The answer, from this stream or from what takes it up; each resumption hears more.

    Source: MCP 2025-11-25, Streamable HTTP, "Sending Messages" 6 and "Resumability": a server may
    close a stream whose events have IDs, and its client then polls.
    """
    parser, failure = sse.Parser(), None
    while True:
        try:
            answer = await _from_stream(stream, parser, parse)
        except UpstreamFailed as broken:
            if broken.why != "reset":
                raise
            answer, failure = None, broken
        if answer is not None:
            return answer
        if resume is None or not parser.last_id:
            raise failure or UpstreamFailed("body", _UNANSWERED, sent=True)
        parser = parser.following()
        stream = await _taken_up(resume, parser)


async def _from_stream(
    stream: AsyncIterator[bytes], parser: sse.Parser, parse: Callable[[bytes], _T | None]
) -> _T | None:
    """Read up to the answer, then to the stream's end, so that its connection can be kept."""
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
    return None


async def _taken_up(resume: Resume, parser: sse.Parser) -> AsyncIterator[bytes]:
    """What follows; whatever goes wrong now, the request itself was sent long ago."""
    wait_ms = COME_BACK_MS if parser.retry_ms is None else parser.retry_ms
    try:
        reply = await resume(parser.last_id, max(wait_ms, COME_BACK_LEAST_MS) / 1000)
    except UpstreamFailed as failure:
        raise UpstreamFailed(failure.why, failure.detail, sent=True) from failure
    if reply.status != 200 or media_type(reply.headers) != b"text/event-stream":
        await leave(reply)
        raise UpstreamFailed("body", _UNANSWERED, sent=True)
    return _once(reply.body) if isinstance(reply.body, bytes) else reply.body


async def _to_end(stream: AsyncIterator[bytes]) -> None:
    """Whatever happens after a good answer does not unmake it."""
    try:
        async with asyncio.timeout(STREAM_END):
            async for _ in stream:
                pass
    except (TimeoutError, UpstreamFailed):
        return
