"""What tests of backends share: calls as the edge would hand them over, and ways to send."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any, TypeAlias

import aiohttp
import uvicorn

from proxy.core.model import Call, Head, Headers, Kind, Outbound, Reply
from proxy.errors import UpstreamFailed

JSON = b"application/json"
SECRET = b"Bearer downstream-secret"
ARGUMENTS = b'{"date": "2026-01-02", "n": 1.50}'
Answer: TypeAlias = Reply | UpstreamFailed | Callable[[Outbound], Reply]

HEADERS: Headers = [
    (b"Content-Type", b"application/json"),
    (b"Authorization", SECRET),
    (b"X-Retell-Signature", b"v=1,d=00"),
    (b"X-Tenant", b"t1"),
    (b"User-Agent", b"axios"),
]

BODIES: Mapping[Kind, dict[str, Any]] = {
    Kind.EVENT: {"event": "call_ended", "call": {"call_id": "call_1"}},
    Kind.INBOUND: {"event": "call_inbound", "call_inbound": {"from_number": "+1"}},
    Kind.ALERT: {"event": "alert_triggered", "alert": {}},
    Kind.FUNCTION: {"name": "book", "call": {"call_id": "call_1"}, "args": {"date": "2026-01-02"}},
    Kind.ARGS: {"date": "2026-01-02"},
    Kind.TOOLS: {"tool": "book", "arguments": {"date": "2026-01-02"}, "call_id": "call_1"},
    Kind.OTHER: {"unknown": "shape"},
}


def make_call(kind: Kind, body: bytes | None = None, **more: Any) -> Call:
    """A call of that kind, for tool `book` where it has one."""
    if kind is Kind.MCP:
        return mcp_call(**more)
    head = make_head(path=f"/retell/{kind}")
    raw = json.dumps(BODIES.get(kind, {})).encode() if body is None else body
    call = Call(kind, head, raw, "call_1")
    if kind in (Kind.FUNCTION, Kind.ARGS, Kind.TOOLS):
        call.tool, call.arguments = "book", ARGUMENTS
    call.event = BODIES.get(kind, {}).get("event")
    for name, value in more.items():
        setattr(call, name, value)
    return call


def make_head(
    *, method: str = "POST", path: str = "/retell", query: str = "", headers: Headers | None = None
) -> Head:
    fields = list(HEADERS if headers is None else headers)
    named = {name.lower(): value for name, value in fields}
    return Head(method, path, query, named, fields, b"callsplit.example", "192.0.2.7")


def mcp_call(
    method: str = "tools/call",
    params: Any = None,
    *,
    rpc_id: bytes | None = b'"own-1"',
    version: str = "2026-07-28",
    tool: str | None = "book",
    http: str = "POST",
) -> Call:
    """A JSON-RPC request in either era."""
    if params is None:
        params = {"name": tool, "arguments": json.loads(ARGUMENTS)} if tool else {}
    if version == "2026-07-28":
        about = "io.modelcontextprotocol/"
        meta = {f"{about}protocolVersion": version, f"{about}clientCapabilities": {}}
        params = {**params, "_meta": meta}
    id_part = b"" if rpc_id is None else b'"id":%b,' % rpc_id
    raw = b'{"jsonrpc":"2.0",%b"method":%b,"params":%b}' % (
        id_part,
        json.dumps(method).encode(),
        json.dumps(params).encode(),
    )
    fields = [
        *HEADERS,
        (b"Accept", b"application/json, text/event-stream"),
        (b"MCP-Protocol-Version", version.encode()),
        (b"Mcp-Method", method.encode()),
    ]
    if tool is not None and method == "tools/call":
        fields.append((b"Mcp-Name", tool.encode()))
    head = make_head(method=http, path="/mcp", headers=fields)
    call = Call(Kind.MCP, head, raw, "call_1", rpc_id=rpc_id, rpc_method=method)
    if method == "tools/call":
        call.tool, call.arguments = tool, ARGUMENTS
    return call


class ScriptedSend:
    """Gives one scripted answer per request; remembers what was sent and whether it could run."""

    def __init__(self, *answers: Answer) -> None:
        self.sent: list[Outbound] = []
        self.dispatched: list[bool] = []
        self._answers = list(answers)

    async def __call__(self, outbound: Outbound, *, dispatches: bool = True) -> Reply:
        self.sent.append(outbound)
        self.dispatched.append(dispatches)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        await asyncio.sleep(0)  # Let the requests of others in between.
        if isinstance(answer, UpstreamFailed):
            raise answer
        return answer(outbound) if callable(answer) else answer

    @property
    def headers(self) -> dict[str, str]:
        """The last request's, by lower-case name."""
        return {name.decode().lower(): value.decode() for name, value in self.sent[-1].headers}

    @property
    def message(self) -> Any:
        """The last request's body."""
        return json.loads(self.sent[-1].body)

    @property
    def methods(self) -> list[str]:
        """The JSON-RPC methods asked for, in order."""
        return [json.loads(outbound.body)["method"] for outbound in self.sent]


def json_reply(value: object, status: int = 200, *, headers: Headers | None = None) -> Reply:
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return Reply(status, [(b"content-type", JSON), *(headers or [])], body)


def rpc_result(result: object, *, extra: Headers | None = None) -> Callable[[Outbound], Reply]:
    """Whatever was asked: this result, with the ID that was asked with."""

    def answer(outbound: Outbound) -> Reply:
        asked = json.loads(outbound.body) if outbound.body else {}
        rpc_id = asked.get("id") if isinstance(asked, dict) else None
        message = {"jsonrpc": "2.0", "id": rpc_id, "result": result}
        return json_reply(message, headers=extra)

    return answer


def rpc_error(
    code: int, message: str = "no", *, status: int = 200, rpc_id: object = "server-error"
) -> Reply:
    error = {"code": code, "message": message}
    return json_reply({"jsonrpc": "2.0", "id": rpc_id, "error": error}, status)


def text_result(text: str, **more: Any) -> dict[str, Any]:
    return {"content": [{"type": "text", "text": text}], **more}


class Stream:
    """A streamed body that tells whether it was closed, and may break after its chunks."""

    def __init__(
        self,
        *chunks: bytes,
        failure: UpstreamFailed | None = None,
        hang: bool = False,
    ) -> None:
        self.closed = False
        self.taken = 0
        self._chunks = chunks
        self._failure = failure
        self._hang = hang

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> bytes:
        if self.taken < len(self._chunks):
            self.taken += 1
            return self._chunks[self.taken - 1]
        if self._failure is not None:
            raise self._failure
        if self._hang:
            await asyncio.Event().wait()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.closed = True


def body_of(reply: Reply) -> bytes:
    assert isinstance(reply.body, bytes)
    return reply.body


class HttpSend:
    """Sends for real, to one origin; answers of events come as a stream."""

    def __init__(self, session: aiohttp.ClientSession, origin: str) -> None:
        self.sent: list[Outbound] = []
        self.dispatched: list[bool] = []
        self._session = session
        self._origin = origin

    async def __call__(self, outbound: Outbound, *, dispatches: bool = True) -> Reply:
        self.sent.append(outbound)
        self.dispatched.append(dispatches)
        fields = [(name.decode(), value.decode()) for name, value in outbound.headers]
        url = f"{self._origin}{outbound.target}"
        response = await self._session.request(
            outbound.method, url, headers=fields, data=outbound.body or None
        )
        headers = [(name.lower(), value) for name, value in response.raw_headers]
        if response.content_type == "text/event-stream":
            return Reply(response.status, headers, _streamed(response))
        async with response:
            return Reply(response.status, headers, await response.read())


async def _streamed(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    async with response:
        async for chunk in response.content.iter_any():
            yield chunk


@contextlib.asynccontextmanager
async def http_send(origin: str) -> AsyncIterator[HttpSend]:
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        yield HttpSend(session, origin)


Scope: TypeAlias = Any
Receive: TypeAlias = Callable[[], Awaitable[Any]]
AsgiSend: TypeAlias = Callable[[Any], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, AsgiSend], Awaitable[None]]


@contextlib.contextmanager
def serving(app: App) -> Iterator[str]:
    """Serve an ASGI app on a thread and a port of its own; gives its origin."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()  # so that whoever is early waits in the queue
    config = uvicorn.Config(app, log_level="critical", lifespan="on", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
