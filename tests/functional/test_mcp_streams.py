"""Streams and cancellation of MCP callers on raw sockets: what lasts, what ends, and for whom."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.functional.conftest import World
from tests.functional.kit import BOOK, PENDING, SLOTS, tools_call
from tests.functional.wire import (
    JSON,
    Answer,
    Peer,
    Play,
    Seen,
    answers,
    mcp,
    method_of,
    request,
    response,
    rpc,
    text,
)

EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
MODERN = b"MCP-Protocol-Version: 2026-07-28"


def modern(tool: str) -> bytes:
    meta = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    params = {"name": tool, "arguments": {}, "_meta": meta}
    body = {"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}
    return request(
        "POST",
        "/mcp/call_a",
        json.dumps(body).encode(),
        MODERN,
        b"Mcp-Method: tools/call",
        b"Mcp-Name: " + tool.encode(),
    )


class Holding:
    """An MCP server that answers nothing, and knows who hung up."""

    def __init__(self, begin: bytes = b"") -> None:
        self.asked, self.left, self.go = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._begin = begin

    async def __call__(self, peer: Peer, _: Seen) -> bool:
        if self._begin:
            await peer.send(self._begin)
        self.asked.set()
        gone = asyncio.ensure_future(peer.reader.read(1))
        going = asyncio.ensure_future(self.go.wait())
        await asyncio.wait({gone, going}, return_when=asyncio.FIRST_COMPLETED)
        for each in (gone, going):
            each.cancel()
        if not self.go.is_set():
            self.left.set()
        return False


async def test_a_modern_caller_that_hangs_up_takes_a_read_back(world: World) -> None:
    """Closing the response stream is the cancel (2026-07-28, transports)."""
    server = Holding()
    world.mcp.play = mcp(server)
    sidecar = await world.sidecar()
    client = await sidecar.connect()
    await client.send(modern(SLOTS))
    await server.asked.wait()
    await client.close()

    await server.left.wait()
    (line,) = await sidecar.lines(1)
    assert line["outcome"] == "gone"
    assert not world.webhook.seen


async def test_a_modern_caller_that_hangs_up_does_not_cancel_a_write(world: World) -> None:
    server = Holding()
    world.mcp.play = mcp(server)
    sidecar = await world.sidecar()
    client = await sidecar.connect()
    await client.send(modern(BOOK))
    await server.asked.wait()
    await client.close()
    later = await sidecar.connect()
    await later.ask(request("GET", "/api/mcp/retell/health"))  # So that it has been noticed.

    assert not server.left.is_set()
    server.go.set()
    (line,) = (each for each in await sidecar.lines(2) if each["kind"] == "mcp")
    assert line["outcome"] == "gone"
    assert len(world.mcp.tools) == 1


@pytest.mark.parametrize("session", [b"", b"Last-Event-ID: 7"])
async def test_a_listener_hears_what_the_server_says_until_the_sidecar_ends(
    world: World, session: bytes
) -> None:
    """A drain does not wait for it, and its reader finds a whole answer."""
    server = Holding(EVENTS + b"data: 1\n\n")
    world.mcp.play = server
    sidecar = await world.sidecar()
    client = await sidecar.connect()
    fields = [b"Accept: text/event-stream", *([session] if session else [])]
    await client.send(request("GET", "/mcp/call_a", b"", *fields))
    head = await client.reader.readuntil(b"\r\n\r\n")
    first = await client.reader.readexactly(len(b"9\r\ndata: 1\n\n\r\n"))
    assert first == b"9\r\ndata: 1\n\n\r\n"
    assert b"text/event-stream" in head.lower()
    assert (sidecar.app.handler.inflight, len(sidecar.app.handler.lasting)) == (0, 1)

    drained = asyncio.ensure_future(sidecar.app.drain())
    assert await client.reader.read() == b"0\r\n\r\n"
    assert await drained == 0
    await server.left.wait()
    (seen,) = world.mcp.seen
    assert seen.value(b"last-event-id") == (b"7" if session else None)


def last_message(answer: Answer) -> Any:
    """The last event of an answer, or the whole of it."""
    lines = [line for line in answer.body.splitlines() if line.startswith(b"data: ")]
    return json.loads(lines[-1].removeprefix(b"data: ") if lines else answer.body)


def streams(*events: bytes, stays: bool = False) -> Play:
    """Begins a stream, says this, and closes it, or leaves it open."""

    async def play(peer: Peer, _: Seen) -> bool:
        await peer.send(EVENTS + b"".join(events))
        if stays:
            await peer.reader.read(1)
        return False

    return play


async def test_a_kept_reads_stream_has_a_last_word_too(world: World) -> None:
    world.mcp.play = mcp(streams(b": working\n\n"))
    sidecar = await world.sidecar(tools={SLOTS: {"effect": "read", "cache": "5m"}})
    client = await sidecar.connect()

    answer = await client.ask(modern(SLOTS))

    assert last_message(answer)["id"] == 7
    assert len(world.webhook.seen) == 1


@pytest.mark.parametrize("rpc_id", [b"null", b'"server-error"', b'"7"'])
async def test_a_refusal_in_a_stream_has_its_callers_id(world: World, rpc_id: bytes) -> None:
    said = b'data: {"jsonrpc":"2.0","id":%b,"error":{"code":-32000,"message":"no"}}\n\n'
    world.mcp.play = mcp(streams(b": hello\n\n", said % rpc_id))
    sidecar = await world.sidecar()
    client = await sidecar.connect()

    message = last_message(await client.ask(modern(SLOTS)))

    assert (message["id"], message["error"]["code"]) == (7, -32000)


RESULT = b'data: {"jsonrpc":"2.0","id":7,"result":{"content":[],"resultType":"complete"}}\n\n'


async def test_a_stream_that_stays_open_after_its_answer_ends_all_the_same(world: World) -> None:
    """It would hold its permit and its write for as long."""
    world.mcp.play = mcp(streams(RESULT, stays=True))
    sidecar = await world.sidecar()
    client = await sidecar.connect()

    first = last_message(await client.ask(modern(BOOK)))
    again = last_message(await (await sidecar.connect()).ask(modern(BOOK)))

    assert first == again
    assert len(world.mcp.tools) == 1
    assert (await sidecar.breaker())["failures"] == 0


@pytest.mark.parametrize(
    ("events", "failures"),
    [
        ([RESULT], 0),
        ([b": nothing\n\n"], 1),
        ([b'data: {"jsonrpc":"2.0","id":7,"error":{"code":-32603,"message":"no"}}\n\n'], 1),
    ],
)
async def test_the_breaker_hears_what_a_stream_says(
    world: World, events: list[bytes], failures: int
) -> None:
    world.mcp.play = mcp(streams(*events))
    sidecar = await world.sidecar()
    await (await sidecar.connect()).ask(modern(SLOTS))

    assert (await sidecar.breaker())["failures"] == failures


async def test_another_message_does_not_hang_where_its_stream_says_nothing(world: World) -> None:
    world.mcp.play = streams(b": here\n\n", stays=True)
    sidecar = await world.sidecar(backends={"mcp": {"timeout": "500ms"}})
    client = await sidecar.connect()
    body = b'{"jsonrpc":"2.0","id":5,"method":"resources/read","params":{"uri":"a:b"}}'

    message = last_message(await client.ask(request("POST", "/mcp/call_a", body)))

    assert (message["id"], message["error"]["code"]) == (5, -32603)


def handshake(rpc_id: object = 1) -> bytes:
    params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "a"}}
    body = {"jsonrpc": "2.0", "id": rpc_id, "method": "initialize", "params": params}
    return request("POST", "/mcp/call_a", json.dumps(body).encode())


def keeps_sessions(call: Play) -> Play:
    """A legacy server, whose sessions are called `up1`."""

    async def play(peer: Peer, seen: Seen) -> bool:
        method = method_of(seen)
        if method == "tools/call":
            return await call(peer, seen)
        if method == "initialize":
            about = {"protocolVersion": "2025-11-25", "capabilities": {}, "serverInfo": {}}
            answer = rpc(seen, about)
            head = b"\r\nMcp-Session-Id: up1\r\n\r\n"
            await peer.send(answer.replace(b"\r\n\r\n", head, 1))
        elif method == "server/discover":
            await peer.send(response(b"", status=b"400 Bad Request"))
        else:
            await peer.send(response(b"", status=b"202 Accepted"))
        return True

    return play


async def test_a_tools_own_404_is_no_lost_session(world: World) -> None:
    """Sent once more it would run twice, and a third time at the webhook."""
    error = b'{"jsonrpc":"2.0","id":7,"error":{"code":-32602,"message":"customer not found"}}'
    world.mcp.play = keeps_sessions(answers(error, JSON, status=b"404 Not Found"))
    sidecar = await world.sidecar()
    token = (await (await sidecar.connect()).ask(handshake())).value(b"mcp-session-id")
    assert token is not None
    fields = (b"MCP-Protocol-Version: 2025-11-25", b"Mcp-Session-Id: " + token)

    await sidecar.post("/mcp/call_a", tools_call(BOOK), *fields)

    assert (len(world.mcp.tools), len(world.webhook.seen)) == (1, 0)


async def test_no_session_begins_with_an_error(world: World) -> None:
    error = b'{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"not like this"}}'
    world.mcp.play = answers(error, JSON)
    sidecar = await world.sidecar()
    client = await sidecar.connect()

    answer = await client.ask(handshake().replace(b"/mcp/call_a", b"/mcp"))

    assert answer.value(b"mcp-session-id") is None


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_sessions_token_reaches_no_webhook(world: World, method: str) -> None:
    sidecar = await world.sidecar()
    client = await sidecar.connect()

    answer = await client.ask(request(method, "/retell", b"", b"Mcp-Session-Id: token"))

    assert answer.status == 404
    assert not world.webhook.seen


async def test_listeners_leave_connections_for_tools(world: World) -> None:
    world.mcp.play = mcp(answers(b""))
    told: Play = world.mcp.play
    listener = Holding(EVENTS + b": here\n\n")

    async def play(peer: Peer, seen: Seen) -> bool:
        return await (listener if seen.head.startswith(b"GET") else told)(peer, seen)

    world.mcp.play = play
    sidecar = await world.sidecar(backends={"mcp": {"connections": 4}})
    clients = [await sidecar.connect() for _ in range(3)]
    heads = []
    for client in clients:
        await client.send(request("GET", "/mcp/call_a", b"", b"Accept: text/event-stream"))
        heads.append(await client.reader.readuntil(b"\r\n"))

    assert [head.split()[1] for head in heads] == [b"200", b"200", b"503"]
    listener.go.set()


# -- A legacy server that closes its stream on purpose, and lets its client poll.


class Polled:
    """A legacy server: a tool's stream ends at once, its answer is there for who comes back."""

    def __init__(self, *, dies: bool = False) -> None:
        self.polls: list[Seen] = []
        self._asked = b""
        self._dies = dies

    async def __call__(self, peer: Peer, seen: Seen) -> bool:
        method = method_of(seen)
        if seen.method == b"GET":
            self.polls.append(seen)
            if self._dies:
                return False
            message = {"jsonrpc": "2.0", "id": self._asked, "result": text('{"booked":true}')}
            await peer.send(EVENTS + b"id: e2\ndata: " + json.dumps(message).encode() + b"\n\n")
            return False
        if method == "tools/call":
            self._asked = json.loads(seen.body)["id"]
            await peer.send(EVENTS + b"id: e1\nretry: 20\ndata:\n\n")
            return False
        return await legacy(peer, seen)


async def legacy(peer: Peer, seen: Seen) -> bool:
    """Handshake, catalogue, notifications."""
    about: dict[str, object] = {
        "initialize": {
            "protocolVersion": "2025-11-25",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "polled", "version": "1"},
        },
        "tools/list": {"tools": []},
    }
    method = method_of(seen)
    if method.startswith("notifications/"):
        await peer.send(response(b"", status=b"202 Accepted"))
    elif method in about:
        said = {"jsonrpc": "2.0", "id": json.loads(seen.body)["id"], "result": about[method]}
        await peer.send(response(json.dumps(said).encode(), JSON, b"Mcp-Session-Id: s1"))
    else:
        await peer.send(response(b"{}", JSON, status=b"400 Bad Request"))
    return True


async def test_a_function_hears_the_answer_that_its_server_lets_it_poll_for(world: World) -> None:
    server = Polled()
    world.mcp.play = server
    sidecar = await world.sidecar()

    answer = await sidecar.call(BOOK)

    assert (answer.arm, answer.json) == ("mcp", {"booked": True})
    (poll,) = server.polls
    assert poll.value(b"last-event-id") == b"e1"
    assert poll.value(b"mcp-session-id") == b"s1"
    assert poll.value(b"accept") == b"text/event-stream"
    assert len(world.mcp.tools) == 1
    assert not world.webhook.seen


async def test_a_booking_whose_server_dies_before_the_poll_is_not_made_again(world: World) -> None:
    server = Polled(dies=True)
    world.mcp.play = server
    sidecar = await world.sidecar()

    answer = await sidecar.call(BOOK)

    assert answer.reason == "last_answer"
    assert answer.json["message"] == PENDING
    assert len(world.mcp.tools) == 1
    assert server.polls
    assert not world.webhook.seen
