"""A late answer from the arm's socket to the caller's and back: everything in between is real."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Any

import pytest

from backends.base import BackendConfig
from backends.mcp import McpBackend
from proxy.adapters.clock import LoopClock
from proxy.adapters.listener import Listener, Options
from proxy.adapters.upstream import Endpoint, HttpUpstream, Sweep
from proxy.core.model import Kind, Reply
from proxy.errors import UpstreamFailed
from proxy.ports import Incoming
from proxy.relay import Sender
from tests.backends.kit import make_call
from tests.functional.conftest import World
from tests.functional.wire import JSON, Client, Peer, Seen, freezes, mcp, request, text, until

PENDING = Reply(200, [], b"pending")
BOOK = request("POST", "/book", b"{}")
OTHER = request("POST", "/other", b"{}")
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: working\n\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"


class Path:
    """A path in small: `/book` goes to the MCP arm, whatever else is answered here."""

    def __init__(self, upstream: HttpUpstream, linger: float) -> None:
        self.ends: list[object] = []
        self.asked = 0
        self.says = True
        self._arm = McpBackend(BackendConfig("mcp", path="/mcp"))
        self._upstream = upstream
        self._linger = linger

    async def __call__(self, incoming: Incoming) -> Reply:
        now = asyncio.get_running_loop().time()
        await incoming.read(1000, now + 10)
        if incoming.target != "/book":
            return Reply(200, [], b"other")
        late = partial(self._late, incoming)
        send = Sender(self._upstream, [], deadline=now + 0.3, linger=self._linger, late=late)
        try:
            reply = await self._arm.handle(make_call(Kind.FUNCTION), send)
        except UpstreamFailed as failure:
            self.ends.append((failure.why, failure.sent))
            return Reply(502)
        self.ends.append(reply.body)
        return reply

    def _late(self, incoming: Incoming) -> bool:
        self.asked += 1
        return self.says and incoming.answer(PENDING)


class Small:
    """The path between a listener and an upstream."""

    def __init__(self, port: int, *, linger: float = 30.0) -> None:
        clock = LoopClock()
        endpoint = Endpoint.from_url(f"http://127.0.0.1:{port}/mcp")
        self.upstream = HttpUpstream(endpoint, clock=clock, sweep=Sweep(clock))
        self.path = Path(self.upstream, linger)
        self.listener = Listener(self.path, Reply, options=Options(tick=0.01))

    async def __aenter__(self) -> Small:
        await self.listener.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        assert await self.listener.drain(0.1) == 0
        await self.upstream.aclose(0.0)

    async def client(self) -> Client:
        return await Client.connect(self.listener.address[1])


def framed(seen: Seen) -> bytes:
    """The result, as JSON."""
    return json.dumps(
        {"jsonrpc": "2.0", "id": json.loads(seen.body)["id"], "result": text("booked")}
    ).encode()


def plain(seen: Seen) -> list[bytes]:
    body = framed(seen)
    return [b"HTTP/1.1 200 OK\r\n%b\r\nContent-Length: %d\r\n\r\n%b" % (JSON, len(body), body)]


def in_two(seen: Seen) -> list[bytes]:
    (whole,) = plain(seen)
    return [whole[:-20], whole[-20:]]


def in_chunks(seen: Seen) -> list[bytes]:
    body = framed(seen)
    return [
        CHUNKED + b"5\r\n%b\r\n" % body[:5],
        b"%x\r\n%b\r\n0\r\n\r\n" % (len(body) - 5, body[5:]),
    ]


def events(seen: Seen) -> list[bytes]:
    return [EVENTS, b"data: %b\n\n" % framed(seen)]


def cut(pieces: Callable[[Seen], list[bytes]]) -> Callable[[Seen], list[bytes]]:
    def half(seen: Seen) -> list[bytes]:
        *most, last = pieces(seen)
        return [*most, last[:-20]]

    return half


def begun(pieces: Callable[[Seen], list[bytes]]) -> Callable[[Seen], list[bytes]]:
    """Its first piece comes in time."""

    def with_a_mark(seen: Seen) -> list[bytes]:
        return [b"", *pieces(seen)]

    return with_a_mark


BOOKED = b"booked"
RESET = ("reset", True)
ROWS: dict[str, tuple[Callable[[Seen], list[bytes]], object]] = {
    "in one piece": (plain, BOOKED),
    "in two": (in_two, BOOKED),
    "the first half in time": (begun(in_two), BOOKED),
    "chunked": (in_chunks, BOOKED),
    "events": (events, BOOKED),
    "events, the head in time": (begun(events), BOOKED),
    "cut half way": (cut(plain), RESET),
    "cut half way, the head in time": (begun(cut(in_two)), RESET),
    "nothing but a cut": (lambda _: [], RESET),
}


@pytest.fixture
async def go() -> AsyncIterator[asyncio.Event]:
    event = asyncio.Event()
    yield event
    event.set()


def books(go: asyncio.Event, pieces: Callable[[Seen], list[bytes]]) -> Any:
    """Finish once told to, with these pieces; what stands behind an empty one comes at once."""

    async def play(peer: Peer, seen: Seen) -> bool:
        told = pieces(seen)
        if told and not told[0]:
            await peer.send(told[1])
            told = told[2:]
        await go.wait()
        for piece in told:
            await peer.send(piece)
            await asyncio.sleep(0.002)
        return False

    return mcp(play)


@pytest.mark.parametrize(("pieces", "end"), ROWS.values(), ids=ROWS)
async def test_the_caller_hears_in_time_and_the_path_hears_in_the_end(
    world: World, go: asyncio.Event, pieces: Callable[[Seen], list[bytes]], end: object
) -> None:
    world.mcp.play = books(go, pieces)
    async with Small(world.mcp.port) as small:
        client = await small.client()
        assert (await client.ask(BOOK)).body == b"pending"
        assert (await client.ask(OTHER)).body == b"other"
        assert (small.path.ends, small.path.asked, small.listener.late) == ([], 1, 1)

        go.set()
        await until(lambda: small.listener.late == 0, "the handler has ended")

        assert (small.path.ends, small.path.asked) == ([end], 1)
        assert (await client.ask(OTHER)).body == b"other"
        await client.close()
    assert len(world.mcp.tools) == 1


@pytest.mark.parametrize("first", [b"", EVENTS], ids=["silence", "a stream that goes silent"])
async def test_an_arm_that_never_ends_is_given_up_when_it_may_linger_no_more(
    world: World, first: bytes
) -> None:
    async def play(peer: Peer, seen: Seen) -> bool:
        await peer.send(first)
        return await freezes(peer, seen)

    world.mcp.play = mcp(play)
    async with Small(world.mcp.port, linger=0.2) as small:
        client = await small.client()
        assert (await client.ask(BOOK)).body == b"pending"
        await until(lambda: small.listener.late == 0, "the handler has ended")

        assert (small.path.ends, small.path.asked) == ([("timeout", True)], 1)
        await until(lambda: world.mcp.open == 0, "the connection is closed")
        await client.close()


@pytest.mark.parametrize("first", [b"", EVENTS], ids=["silence", "a stream that goes silent"])
async def test_an_arm_may_finish_even_if_nobody_will_wait_for_it(
    world: World, go: asyncio.Event, first: bytes
) -> None:
    ends: list[str] = []

    async def play(peer: Peer, seen: Seen) -> bool:
        await peer.send(first)
        await go.wait()
        ends.append("finished")
        return False

    world.mcp.play = mcp(play)
    async with Small(world.mcp.port) as small:
        small.path.says = False
        client = await small.client()
        assert (await client.ask(BOOK)).status == 502
        assert (small.path.ends, small.path.asked) == ([("timeout", True)], 1)
        assert world.mcp.open == 1
        go.set()
        await until(lambda: ends == ["finished"] and not world.mcp.open, "the arm has finished")
        await client.close()


async def test_a_caller_who_has_left_is_not_answered_and_the_arm_is_not_cut(
    world: World, go: asyncio.Event
) -> None:
    world.mcp.play = books(go, plain)
    async with Small(world.mcp.port) as small:
        client = await small.client()
        await client.send(BOOK)
        await until(lambda: len(world.mcp.tools) == 1, "the tool is asked for")
        client.abort()
        await until(lambda: bool(small.path.ends), "the handler has ended")

        assert (small.path.ends, small.path.asked) == ([("timeout", True)], 1)
        assert world.mcp.open == 1
        go.set()
        await until(lambda: world.mcp.open == 0, "the arm has finished")
