"""Callers who hang up, and callers who do not listen."""

from __future__ import annotations

import asyncio

import pytest

from tests.functional.conftest import World
from tests.functional.kit import BOOK, SLOTS, Sidecar, event, function, tools_call
from tests.functional.wire import (
    Client,
    Peer,
    Play,
    Seen,
    answers,
    dies,
    finishes,
    mcp,
    request,
    response,
    rpc,
    text,
    until,
)


def slowly(go: asyncio.Event, done: list[bytes]) -> Play:
    """Run the tool when told to, and note that it ran to its end."""

    async def play(peer: Peer, seen: Seen) -> bool:
        await go.wait()
        await peer.send(rpc(seen, text("booked")))
        done.append(seen.body)
        return True

    return play


async def hangs_up(sidecar: Sidecar, client: Client) -> None:
    client.abort()
    await until(lambda: sidecar.app.listener.open_connections == 0, "the sidecar noticed")


@pytest.mark.parametrize("tool", [BOOK, SLOTS])
async def test_a_caller_who_hangs_up_in_mid_call_cancels_nothing(world: World, tool: str) -> None:
    """B8: the tool runs to its end, its connection is kept, the line says who left."""
    go, done = asyncio.Event(), list[bytes]()
    world.mcp.play = mcp(slowly(go, done))
    sidecar = await world.sidecar()
    client = await sidecar.connect()

    await client.send(request("POST", "/retell", function(tool)))
    await until(lambda: world.mcp.tools, "the tool runs")
    await hangs_up(sidecar, client)
    assert world.mcp.open == 1
    go.set()
    await sidecar.settled()

    (line,) = await sidecar.lines(1)
    assert (line["outcome"], line["status"], line["arm"]) == ("gone", 499, "mcp")
    assert [attempt["verdict"] for attempt in line["attempts"]] == ["success"]
    assert line["bytes_out"] == 0
    assert len(done) == 1
    assert sidecar.app.wiring.upstreams["mcp"].idle == 1
    assert (await sidecar.metrics()).total("requests_total", outcome="gone", code_class="4xx") == 1


async def test_a_caller_who_hangs_up_counts_against_an_arm_only_if_it_fails(world: World) -> None:
    """Cut attempts say nothing; failed ones are the arm's, whoever still listens."""
    go = asyncio.Event()

    async def fails(peer: Peer, seen: Seen) -> bool:
        await go.wait()
        return await dies(peer, seen)

    world.mcp.play = mcp(fails)
    sidecar = await world.sidecar()
    client = await sidecar.connect()

    await client.send(request("POST", "/retell", function(BOOK)))
    await until(lambda: world.mcp.tools, "the tool runs")
    await hangs_up(sidecar, client)
    go.set()
    await sidecar.settled()

    assert (await sidecar.breaker())["failures"] == 1
    assert not world.webhook.seen
    (line,) = await sidecar.lines(1)
    assert line["outcome"] == "gone"


async def test_a_caller_who_hangs_up_while_he_sends_reaches_no_arm(world: World) -> None:
    sidecar = await world.sidecar()
    client = await sidecar.connect()

    await client.send(b"POST /retell HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\n{")
    await until(lambda: sidecar.app.handler.inflight == 1, "it is being read")
    await hangs_up(sidecar, client)

    (line,) = await sidecar.lines(1)
    assert (line["outcome"], line["status"], line["arm"]) == ("gone", 499, "none")
    assert world.mcp.connections == world.webhook.connections == 0


async def test_a_trial_whose_caller_hangs_up_does_not_wedge_the_breaker(world: World) -> None:
    """B5: the permit of a half-open breaker always goes back."""
    world.mcp.play = mcp(dies)
    sidecar = await world.sidecar(backends={"mcp": {"breaker": {"open_for": "100ms"}}})
    for number in range(5):
        await sidecar.call(SLOTS, f"id_{number}")
    breaker = sidecar.app.handler.line.arms["mcp"].breaker
    go, done = asyncio.Event(), list[bytes]()
    world.mcp.play = mcp(slowly(go, done))
    await until(lambda: breaker.snapshot(sidecar.app.clock.now()).probed, "the probe passed")
    client = await sidecar.connect()

    await client.send(request("POST", "/retell", function(SLOTS, "trial")))
    await until(lambda: len(world.mcp.tools) == 6, "the trial is under way")
    client.abort()
    go.set()
    await until(lambda: sidecar.app.handler.inflight == 0)
    got = [await sidecar.call(SLOTS, f"next_{number}") for number in range(2)]

    assert [answer.arm for answer in got] == ["mcp", "mcp"]
    assert breaker.state == "closed"


async def test_a_caller_who_leaves_a_streamed_answer_frees_the_upstream(world: World) -> None:
    async def endless(peer: Peer, _: Seen) -> bool:
        await peer.send(
            b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        while True:
            await peer.send(b"10000\r\n" + b"x" * 65_536 + b"\r\n")

    world.webhook.play = endless
    sidecar = await world.sidecar()
    client = await sidecar.connect()

    await client.send(request("POST", "/retell", event()))
    await client.reader.readexactly(500_000)
    client.abort()
    await sidecar.settled()
    await until(lambda: world.webhook.open == 0, "the upstream's connection is closed")

    (line,) = await sidecar.lines(1)
    assert (line["outcome"], line["flags"]) == ("gone", ["streamed"])
    assert (await sidecar.breaker("webhook"))["failures"] == 0


async def test_a_caller_who_does_not_read_holds_little_of_an_endless_answer(world: World) -> None:
    """R12: back-pressure reaches the upstream; memory does not grow with its answer."""
    sent = 0

    async def endless(peer: Peer, _: Seen) -> bool:
        nonlocal sent
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\n\r\n")
        while True:
            await peer.send(b"x" * 65_536)
            sent += 65_536

    world.webhook.play = endless
    sidecar = await world.sidecar()
    client = await sidecar.connect()
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]

    await client.send(request("POST", "/retell", event()))
    before = -1
    while before != sent:
        before = sent
        await asyncio.sleep(0.1)

    assert 0 < sent < 30_000_000


async def test_an_answer_to_a_caller_who_is_gone_does_not_disturb_the_next(world: World) -> None:
    """The connection to the arm is kept, and the next caller hears his own answer on it."""
    go = asyncio.Event()

    async def late(peer: Peer, _: Seen) -> bool:
        await go.wait()
        await peer.send(response(b"for the one who left"))
        return True

    world.webhook.play = late
    sidecar = await world.sidecar()
    client = await sidecar.connect()
    await client.send(request("POST", "/retell", event(call_id="one")))
    await until(lambda: world.webhook.seen)
    await hangs_up(sidecar, client)
    go.set()
    await sidecar.settled()
    world.webhook.play = answers(b"for the next")

    answer = await sidecar.post("/retell", event(call_id="two"))

    assert answer.body == b"for the next"
    assert world.webhook.connections == 1


EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: working\n\n"


async def test_a_write_whose_stream_has_begun_outlives_its_caller(world: World) -> None:
    """An MCP server may open its stream long before the tool ends; hanging up would cancel it."""
    go, ends = asyncio.Event(), list[str]()
    world.mcp.play = mcp(finishes(go, ends, first=EVENTS))
    sidecar = await world.sidecar()
    client = await sidecar.connect()

    await client.send(request("POST", "/mcp/call_a", tools_call(BOOK)))
    await client.reader.readuntil(b": working\n\n")
    await hangs_up(sidecar, client)
    (line,) = await sidecar.lines(1)
    assert world.mcp.open == 1
    go.set()
    await sidecar.settled()

    assert line["outcome"] == "gone"
    assert ends == ["finished"]


async def test_a_read_whose_caller_leaves_its_stream_ends_with_him(world: World) -> None:
    go, ends = asyncio.Event(), list[str]()
    world.mcp.play = mcp(finishes(go, ends, first=EVENTS))
    sidecar = await world.sidecar()
    client = await sidecar.connect()

    await client.send(request("POST", "/mcp/call_a", tools_call(SLOTS)))
    await client.reader.readuntil(b": working\n\n")
    client.abort()
    await sidecar.settled()
    await until(lambda: ends, "the server was left")

    assert ends == ["cut"]
