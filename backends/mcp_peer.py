"""What is known of an MCP server, and how is it asked?

Its era is learned with a harmless `server/discover` and kept; its catalogue is kept from
the last `tools/list`.  Every request has an ID of its own, whoever it is for.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Mapping
from typing import TypeVar

from backends.base import Send, close, read_whole
from proxy.core.dialects import jsonrpc, sse
from proxy.core.dialects.catalogue import Listed, parse_page
from proxy.core.dialects.headers import media_type
from proxy.core.dialects.jsonrpc import Request, RpcError, ToolResult
from proxy.core.model import Era, Headers, Outbound, Reply
from proxy.errors import ProbeFailed, UpstreamFailed

_T = TypeVar("_T")

PAGES = 50
"""How far a `tools/list` is followed: a server that pages in a circle must not hang us."""

STREAM_END = 0.1
"""Seconds that a stream may take to end once it has answered; then its connection is dropped."""

_NOT_OF_ERA = frozenset({401, 403, 407, 408, 413, 421, 429})


class Peer:
    """One MCP server, as its client knows it; safe for concurrent use."""

    def __init__(self, target: str, credential: Headers) -> None:
        self.era: Era | None = None
        self.tools: Mapping[str, Listed] | None = None  # None: never listed
        self.listed_whole = False  # to its last page
        self._target = target
        self._credential = credential
        self._ids = itertools.count(1)

    async def call_tool(
        self, request: Request, arguments: bytes, *, target: str, headers: Headers, send: Send
    ) -> tuple[Reply, ToolResult | RpcError | None]:
        """Run a tool; `headers` are all that go with it.

        The answer is None only where a status other than 2xx speaks for itself.
        """
        rpc_id = b"%d" % next(self._ids)
        body = request.body(rpc_id, arguments)
        reply = await send(Outbound("POST", target, headers, body, whole=True))
        return reply, await read_tool_answer(reply, rpc_id)

    async def current_era(self, send: Send) -> Era:
        """The era that is known, or else what the server says now."""
        return self.era or await self.learn_era(send)

    async def learn_era(self, send: Send) -> Era:
        """Ask the server; what it says is kept, unless the question does not get that far."""
        reply, answer = await self._ask(jsonrpc.server_discover(), send)
        if isinstance(answer, bytes) or _is_modern_refusal(answer):
            self.era = Era.MODERN
        elif reply.status // 100 in (2, 4) and reply.status not in _NOT_OF_ERA:
            self.era = Era.LEGACY
        return self.era or Era.MODERN

    async def check(self, send: Send, *, listing: bool) -> None:
        """Ask for something harmless: the catalogue, or what the server's era has instead.

        Raises `ProbeFailed` once a newly learned era does not help, `UpstreamFailed`.
        """
        try:
            return await self._check(await self.current_era(send), send, listing=listing)
        except ProbeFailed:
            return await self._check(await self.learn_era(send), send, listing=listing)

    async def _check(self, era: Era, send: Send, *, listing: bool) -> None:
        if listing or era is Era.LEGACY:
            return await self.list_tools(era, send)
        reply, answer = await self._ask(jsonrpc.server_discover(), send)
        if not isinstance(answer, bytes):
            raise ProbeFailed(_told("server/discover", reply, answer))
        return None

    async def list_tools(self, era: Era, send: Send) -> None:
        """Renew the catalogue; raises `ProbeFailed`, `UpstreamFailed`."""
        tools: dict[str, Listed] = {}
        cursor: str | None = None
        for _ in range(PAGES):
            reply, answer = await self._ask(jsonrpc.tools_list(era, cursor), send)
            if not isinstance(answer, bytes):
                raise ProbeFailed(_told("tools/list", reply, answer))
            try:
                page = parse_page(answer)
            except ValueError as error:
                raise ProbeFailed("tools/list: no list of tools") from error
            tools |= {tool.name: tool for tool in page.tools}
            cursor = page.cursor
            if cursor is None:
                break
        self.tools, self.listed_whole = tools, cursor is None

    async def _ask(self, request: Request, send: Send) -> tuple[Reply, bytes | RpcError | None]:
        """A question that runs nothing."""
        rpc_id = b"%d" % next(self._ids)
        headers = [*request.headers, *self._credential]
        outbound = Outbound("POST", self._target, headers, request.body(rpc_id), whole=True)
        reply = await send(outbound, dispatches=False)
        return reply, await read_any_answer(reply, rpc_id)


def refused_era(status: int, answer: object, era: Era) -> bool:
    """The server turned a request away, unread, in a way that the other era could mend."""
    if not 400 <= status < 500 or status in _NOT_OF_ERA:
        return False
    if not isinstance(answer, RpcError):
        return True
    codes = {jsonrpc.INVALID_REQUEST, jsonrpc.UNSUPPORTED_VERSION}
    if era is Era.LEGACY:  # What a modern server misses in a request that does not describe itself.
        codes |= {jsonrpc.HEADER_MISMATCH, jsonrpc.INVALID_PARAMS}
    return answer.code in codes


async def read_tool_answer(
    reply: Reply, rpc_id: bytes, *, complete: bool = True
) -> ToolResult | RpcError | None:
    """Read the answer to a `tools/call`, from JSON or from an event stream.

    None only where a status other than 2xx came without a message.  Raises `UpstreamFailed` if a
    2xx holds no answer to the request `rpc_id`, or, with `complete`, one that asks for more.
    """
    parse = jsonrpc.parse_tool_answer
    return await _read(reply, lambda message: parse(message, rpc_id, complete=complete))


async def read_any_answer(reply: Reply, rpc_id: bytes) -> bytes | RpcError | None:
    """Like `read_tool_answer` for any method; a result stays raw JSON."""
    return await _read(reply, lambda message: jsonrpc.parse_answer(message, rpc_id))


async def _read(reply: Reply, parse: Callable[[bytes], _T | None]) -> _T | None:
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


def _is_modern_refusal(answer: object) -> bool:
    """An error code that only the modern revision defines, other than for an unknown version."""
    return (
        isinstance(answer, RpcError)
        and -32099 <= answer.code <= -32020
        and answer.code != jsonrpc.UNSUPPORTED_VERSION
    )


def _told(method: str, reply: Reply, answer: object) -> str:
    """A probe's finding for the operator: numbers only, nothing that the server wrote."""
    code = f", error {answer.code}" if isinstance(answer, RpcError) else ""
    return f"{method}: status {reply.status}{code}"
