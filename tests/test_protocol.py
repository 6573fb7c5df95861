"""MCP's own messages on the path: relayed where the arm speaks MCP, else said here."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from proxy.core.breaker_values import State
from proxy.core.model import Headers, Outbound, Reply
from tests.fakes import FakeIncoming
from tests.path_kit import DIED, REFUSED, Network, World, header, read, said

LIST = {"jsonrpc": "2.0", "id": 5, "method": "tools/list"}
HANDSHAKE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}},
}
LISTED = (200, b'{"jsonrpc":"2.0","id":5,"result":{"tools":[{"name":"theirs"}]}}')
EVENTS = [(b"content-type", b"text/event-stream")]


class Server(Network):
    """An MCP server that does as it is told; with `headers` of its own."""

    def __init__(self, *answers: Any, headers: Headers | None = None) -> None:
        super().__init__(*answers)
        self.headers = headers or [(b"content-type", b"application/json")]

    async def send(self, outbound: Outbound, extra: Headers, **kind: Any) -> Reply:
        reply = await super().send(outbound, extra, **kind)
        reply.headers = list(self.headers)
        return reply


def world(mcp: Network, **options: Any) -> World:
    made = World(mcp=mcp, **options)
    made.arms["mcp"].speaks_mcp = True
    return made


async def ask(place: World, message: object, *headers: tuple[bytes, bytes], **kind: Any) -> Reply:
    own = ((b"x-call-id", b"call_7"), (b"accept", b"application/json, text/event-stream"), *headers)
    body = b"" if message is None else orjson.dumps(message)
    return await place.handler.handle(FakeIncoming(target="/mcp", headers=own, body=body, **kind))


async def test_an_arm_that_speaks_mcp_answers_for_itself() -> None:
    place = world(Server(LISTED))
    reply = await ask(place, LIST)

    assert reply.body == LISTED[1]
    assert (place.exchange.arm, place.exchange.outcome) == ("mcp", "ok")
    assert place.exchange.flags == []


async def test_its_no_is_the_callers_and_no_failure() -> None:
    error = b'{"jsonrpc":"2.0","id":5,"error":{"code":-32602,"message":"no such cursor"}}'
    place = world(Server((404, error)))
    reply = await ask(place, LIST)

    assert (reply.status, reply.body) == (404, error)
    assert (place.exchange.arm, place.exchange.outcome) == ("mcp", "business_no")


async def test_where_the_arm_speaks_no_mcp_the_face_answers() -> None:
    place = World(percent=0.0)
    reply = await ask(place, LIST)

    assert said(reply)["id"] == 5
    assert "tools" in said(reply)["result"]
    assert place.deliveries == (0, 0)
    assert (place.exchange.arm, place.exchange.outcome) == ("webhook", "ok")
    assert place.exchange.flags == ["face"]


@pytest.mark.parametrize("failure", [REFUSED, DIED, (503, b"")])
async def test_an_arm_that_is_away_is_stood_in_for(failure: Any) -> None:
    place = world(Server(failure))
    reply = await ask(place, HANDSHAKE)

    assert said(reply)["result"]["protocolVersion"] == "2025-06-18"
    assert place.exchange.outcome == "rescued"
    assert place.exchange.arm == "webhook"
    assert place.deliveries == (1, 0)


async def test_a_session_begins_even_while_its_arm_is_away() -> None:
    place = world(Server(REFUSED, LISTED))
    token = header(await ask(place, HANDSHAKE), b"mcp-session-id")
    assert len(token) == 1

    reply = await ask(place, LIST, (b"mcp-session-id", token[0]))
    assert reply.body == LISTED[1]
    assert b"mcp-session-id" not in {name for name, _ in place.mcp.seen[-1][0].headers}


async def test_a_listener_whose_server_is_away_is_told_to_come_back() -> None:
    place = world(Server(REFUSED))
    reply = await ask(place, None, method="GET")

    assert reply.status == 503
    assert header(reply, b"retry-after")
    assert place.exchange.arm == "none"


async def test_a_stream_for_listeners_is_no_work_in_flight_and_ends_with_us() -> None:
    server = Server((200, b""), headers=EVENTS)
    server.chunks = [b": here\n\n"]
    place = world(server)
    reply = await ask(place, None, method="GET")

    assert (place.handler.inflight, len(place.handler.lasting)) == (0, 1)
    assert all(each.state is State.CLOSED for each in place.arms["mcp"].breaker.each())
    place.handler.lasting.end()
    assert await read(reply) == b": here\n\n"
    assert len(place.handler.lasting) == 0
    assert "lasting" in place.exchange.flags


async def test_the_breaker_hears_nothing_of_how_such_a_stream_ended() -> None:
    server = Server((200, b""), headers=EVENTS)
    place = world(server)
    for _ in range(20):
        server.chunks = [DIED]
        reply = await ask(place, None, method="GET")
        with pytest.raises(type(DIED)):
            await read(reply)

    assert place.arms["mcp"].breaker.is_passing


@pytest.mark.parametrize(
    ("method", "tells"), [("tools/list", b'"tools"'), ("prompts/list", b"-32603")]
)
async def test_a_streamed_answer_that_breaks_off_comes_to_an_end(method: str, tells: bytes) -> None:
    server = Server((200, b""), headers=EVENTS)
    server.chunks = [b"data: {}\n\ndata: {", DIED]
    place = world(server)
    events = await read(await ask(place, LIST | {"method": method}))

    assert events.startswith(b"data: {}\n\nevent: message\ndata: ")
    assert tells in events
    assert b'"id":5' in events


@pytest.mark.parametrize("method", ["tools/call", "tools/list"])
async def test_a_bug_is_told_in_mcps_own_words(method: str) -> None:
    """A failing status would end a legacy client's whole session."""
    place = world(Server(LISTED))

    def bug(*_: Any) -> None:
        raise KeyError("a bug of ours")

    place.line.splitter.decide = bug  # type: ignore[assignment]
    reply = await ask(place, LIST | {"method": method, "params": {"name": "book"}})

    assert reply.status == 200
    assert said(reply)["id"] == 5
    assert place.exchange.outcome == "failed"
    assert ("error" in said(reply)) is (method == "tools/list")
