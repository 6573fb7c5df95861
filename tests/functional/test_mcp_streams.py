"""Streams and cancellation of MCP callers on raw sockets: what lasts, what ends, and for whom."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.functional.conftest import World
from tests.functional.kit import BOOK, SLOTS
from tests.functional.wire import Peer, Seen, mcp, request

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
