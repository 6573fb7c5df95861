"""Rows of the black-box list that need a backend's worst moment: B3, B5, R7, R9, R10."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.functional.conftest import World
from tests.functional.kit import BOOK, SLOTS, event, function, tools_call
from tests.functional.wire import (
    JSON,
    Origin,
    Peer,
    Seen,
    answers,
    mcp,
    request,
    response,
    rpc,
    says_and_closes,
    text,
    until,
)

STOLEN = response(b'{"whose":"somebody else"}', JSON)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"


def asked(origin: Origin) -> list[Seen]:
    """What could run something there."""
    return origin.tools if origin.name == "mcp" else origin.seen


def good(origin: Origin, seen: Seen, said: str) -> bytes:
    """The answer of either arm."""
    return rpc(seen, text(said)) if origin.name == "mcp" else response(said.encode(), JSON)


def percent(origin: Origin) -> dict[str, Any]:
    """All calls to this one."""
    return {"percent": 100 if origin.name == "mcp" else 0}


@pytest.fixture(params=["mcp", "webhook"])
def arm(world: World, request: pytest.FixtureRequest) -> Origin:
    """Either arm, as the one that is asked."""
    return world.mcp if request.param == "mcp" else world.webhook


def play(origin: Origin, call: Any) -> None:
    origin.play = mcp(call) if origin.name == "mcp" else call


async def test_five_hundred_requests_around_the_idle_limit_are_answered_once(world: World) -> None:
    """B3: an arm that closes after 300 ms, callers who come back a little before and after."""
    world.webhook.idle = 0.3
    sidecar = await world.sidecar(backends={"webhook": {"keepalive": "150ms"}})

    async def caller(number: int) -> set[int]:
        got = set()
        for turn in range(10):
            await asyncio.sleep(0.1 + (number * 7 + turn * 3) % 25 / 100)
            got.add((await sidecar.post("/retell", event(call_id=f"{number}-{turn}"))).status)
        return got

    got = await asyncio.gather(*[caller(number) for number in range(50)])

    assert got == [{200}] * 50
    delivered = [seen.json["call"]["call_id"] for seen in world.webhook.seen]
    assert (len(delivered), len(set(delivered))) == (500, 500)
    assert 1 < world.webhook.connections < 500


async def test_a_booking_is_never_written_to_a_connection_that_the_arm_has_closed(
    world: World, arm: Origin
) -> None:
    """B3, its hard half: the arm hangs up behind its answer, and nobody has noticed yet.

    The next request finds it out before it leaves, not after: so it may go elsewhere.
    """
    closed = asyncio.Event()

    async def answers_and_leaves(peer: Peer, seen: Seen) -> bool:
        await peer.send(good(arm, seen, '{"booked":true}'))
        peer.writer.close()
        closed.set()
        return False

    play(arm, answers_and_leaves)
    sidecar = await world.sidecar(split=percent(arm))
    caller = await sidecar.connect()
    connections = arm.connections
    statuses = set()
    for number in range(500):
        closed.clear()
        answer = await caller.ask(request("POST", "/retell", function(BOOK, f"id_{number}")))
        statuses.add((answer.status, answer.body, answer.arm))
        await closed.wait()

    assert statuses == {(200, b'{"booked":true}', arm.name)}
    assert len(asked(arm)) == 500
    assert len({seen.value(b"x-callsplit-call-id") for seen in asked(arm)}) == 500
    assert arm.connections - connections >= 500
    assert (await sidecar.breaker(arm.name))["failures"] == 0


@pytest.mark.parametrize("status", [400, 401, 402, 404, 405, 409, 413, 415, 422, 451])
async def test_a_4xx_never_opens_a_breaker(world: World, status: int) -> None:
    """B5: whoever asked wrongly, it was not the arm that broke."""
    world.mcp.play = answers(b"{}", JSON, status=b"%d E" % status)
    sidecar = await world.sidecar(backends={"mcp": {"handler": "webhook"}})

    for number in range(12):
        await sidecar.call(SLOTS, f"id_{number}")

    breaker = await sidecar.breaker()
    assert (breaker["state"], breaker["failures"]) == ("closed", 0)
    assert len(world.mcp.seen) == 12


CUT = {
    "of a length": HEAD + b"Content-Length: 9000\r\n\r\n: working\n\n",
    "in a chunk": HEAD + b"Transfer-Encoding: chunked\r\n\r\n400\r\n: working\n\n",
    "between chunks": HEAD + b"Transfer-Encoding: chunked\r\n\r\nb\r\n: working\n\n\r\n",
}


@pytest.mark.row("R7", "R8")
@pytest.mark.parametrize("begun", CUT.values(), ids=CUT)
async def test_a_booking_whose_stream_is_cut_at_its_caller_is_never_made_twice(
    world: World, begun: bytes
) -> None:
    """R7, R8 for an MCP caller, who is told as it comes: the stream still comes to an answer."""
    world.mcp.play = mcp(says_and_closes(begun))
    sidecar = await world.sidecar()
    client = await sidecar.connect()

    answer = await client.ask(request("POST", "/mcp/call_a", tools_call(BOOK)))

    (said,) = [line for line in answer.body.splitlines() if line.startswith(b"data: ")]
    message = json.loads(said.removeprefix(b"data: "))
    assert (message["id"], message["result"]["isError"]) == (7, True)
    assert (len(world.mcp.tools), len(world.webhook.seen)) == (1, 0)
    assert (await sidecar.breaker())["failures"] == 1
    (line,) = await sidecar.lines(1)
    assert (line["outcome"], line["flags"]) == ("last_answer", ["streamed", "say_pending"])


@pytest.mark.row("R9")
@pytest.mark.parametrize("surplus", [b"\r\n", b"x", STOLEN], ids=["line end", "byte", "answer"])
@pytest.mark.parametrize("later", [False, True], ids=["same segment", "later segment"])
async def test_surplus_behind_a_bookings_answer_costs_only_the_connection(
    world: World, arm: Origin, surplus: bytes, later: bool
) -> None:
    """R9: the answer is right, so it is given, nobody else is asked, and nothing is a failure."""
    told = asyncio.Event()

    async def says_too_much(peer: Peer, seen: Seen) -> bool:
        answer = good(arm, seen, '{"booked":true}')
        if later:
            await peer.send(answer)
            await told.wait()
            await peer.send(surplus)
        else:
            await peer.send(answer + surplus)
        return True

    play(arm, says_too_much)
    sidecar = await world.sidecar(split=percent(arm), fallback={"both_ways": True})

    answer = await sidecar.call(BOOK)
    told.set()
    await until(lambda: arm.open == 0, "its connection is dropped")

    assert (answer.status, answer.body, answer.arm) == (200, b'{"booked":true}', arm.name)
    assert len(world.mcp.tools) + len(world.webhook.seen) == 1
    assert (await sidecar.breaker(arm.name))["failures"] == 0
    (line,) = await sidecar.lines(1)
    assert (line["outcome"], len(line["attempts"])) == ("ok", 1)


@pytest.mark.row("R10")
@pytest.mark.parametrize("later", [False, True], ids=["same segment", "later segment"])
async def test_a_second_answer_to_one_request_reaches_nobody(
    world: World, arm: Origin, later: bool
) -> None:
    """R10: fifty canaries, each right behind a request that was answered twice."""
    sent = asyncio.Event()

    async def answers_twice(peer: Peer, seen: Seen) -> bool:
        call_id = (seen.value(b"x-callsplit-call-id") or b"").decode()
        answer = good(arm, seen, json.dumps({"whose": call_id}))
        if call_id.startswith("canary"):
            await peer.send(answer)
            return True
        await peer.send(answer if later else answer + STOLEN)
        if later:
            await heard.wait()
            await peer.send(STOLEN)
        sent.set()
        return True

    heard = asyncio.Event()
    play(arm, answers_twice)
    sidecar = await world.sidecar(split=percent(arm))
    whose: list[Any] = []
    for number in range(50):
        heard.clear()
        sent.clear()
        twice = await sidecar.call(SLOTS, f"twice-{number}")
        heard.set()
        await sent.wait()
        canary = await sidecar.call(SLOTS, f"canary-{number}")
        whose += [twice.json["whose"], canary.json["whose"]]

    assert whose == [f"{one}-{n}" for n in range(50) for one in ("twice", "canary")]
    assert len(asked(arm)) == 100
