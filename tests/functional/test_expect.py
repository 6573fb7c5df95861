"""Who waits for leave to send his body, and when he gets it.  Rows E1-E5."""

from __future__ import annotations

import asyncio
import re

import pytest

from tests.functional.conftest import World
from tests.functional.kit import event
from tests.functional.test_edge import AUTH, SECRETS, TOKEN, authorization, signed
from tests.functional.wire import (
    JSON,
    Client,
    Peer,
    Seen,
    answers,
    request,
    response,
    until,
)

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
EXPECT = b"Expect: 100-continue"
MB = 2**20


def head_of(raw: bytes) -> bytes:
    return raw[: raw.index(b"\r\n\r\n") + 4]


async def everything(client: Client) -> bytes:
    """All that comes until the other side closes."""
    async with asyncio.timeout(20):
        return await client.reader.read(-1)


targets = pytest.mark.parametrize("target", ["/retell", "/page"])


@pytest.mark.row("E1")
@targets
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunks"])
@pytest.mark.parametrize("spelling", [b"100-continue", b"100-Continue"])
async def test_who_may_ask_is_told_once_to_go_on(
    world: World, target: str, chunked: bool, spelling: bytes
) -> None:
    """Twice on one connection; not a byte of the wish goes up, and all of the body."""
    sidecar = await world.sidecar(passthrough="webhook")
    client = await sidecar.connect()
    for number in range(2):
        raw = request(
            "POST", target, event(call_id=f"id_{number}"), b"Expect: " + spelling, chunked=chunked
        )
        head = head_of(raw)

        await client.send(head)
        interim = await client.reader.readexactly(len(CONTINUE))
        await client.send(raw[len(head) :])
        answer = await client.answer()

        assert interim == CONTINUE
        assert answer.status == 200
        assert world.webhook.seen[-1].body == event(call_id=f"id_{number}")
        assert b"expect" not in world.webhook.seen[-1].names
    assert len(world.webhook.seen) == 2


@pytest.mark.row("E1")
@targets
async def test_who_does_not_wait_is_not_told(world: World, target: str) -> None:
    """The body is here: leave to send it would be taken for the answer by a simple caller."""
    sidecar = await world.sidecar(passthrough="webhook")

    answer = await sidecar.post(target, event(), EXPECT)

    assert (answer.status, len(world.webhook.seen)) == (200, 1)
    assert b"expect" not in world.webhook.seen[0].names


OTHERS = {
    "another": [b"Expect: 200-ok"],
    "nothing": [b"Expect:"],
    "more": [b"Expect: 100-continue, x"],
    "a parameter": [b"Expect: 100-continue;q=1"],
    "part of it": [b"Expect: 100"],
    "two": [b"Expect: 200-ok", EXPECT],
    "two, the other way": [EXPECT, b"Expect: 200-ok"],
    "the same twice": [EXPECT, EXPECT],
}


@pytest.mark.row("E2")
@targets
@pytest.mark.parametrize("here", [False, True], ids=["head alone", "with its body"])
async def test_any_other_expectation_fails(world: World, target: str, here: bool) -> None:
    sidecar = await world.sidecar(passthrough="webhook")
    for name, fields in OTHERS.items():
        client = await sidecar.connect()
        raw = request("POST", target, event(), *fields)

        answer = await client.ask(raw if here else head_of(raw))

        assert (answer.status, answer.code) == (417, "expectation_failed"), name
        assert here or await client.closed()
    assert world.webhook.connections == 0


REFUSED = {
    "no token": ([], 2, 401),
    "a wrong token": ([authorization("wrong")], 2, 401),
    "a doubled token": ([authorization(TOKEN), authorization(TOKEN)], 2, 401),
    "a token, but too much": ([authorization(TOKEN)], 10 * MB + 1, 413),
    "nothing, and too much": ([], 10 * MB + 1, 413),
}


@pytest.mark.row("E3", "L1")
@pytest.mark.parametrize(("fields", "length", "status"), REFUSED.values(), ids=REFUSED)
async def test_who_may_not_ask_hears_it_without_sending(
    world: World, fields: list[bytes], length: int, status: int
) -> None:
    sidecar = await world.sidecar(SECRETS, auth=AUTH)
    client = await sidecar.connect()
    whole = request("POST", "/mcp/call_a", b"", EXPECT, *fields)
    head = whole.replace(b"Content-Length: 0", b"Content-Length: %d" % length)

    answer = await client.ask(head)

    assert (answer.status, answer.value(b"connection")) == (status, b"close")
    assert await client.closed()
    assert world.mcp.connections == world.webhook.connections == 0


@pytest.mark.row("E3")
async def test_a_signature_is_judged_when_its_body_is_here(world: World) -> None:
    """It could be right: so the body is asked for, and nothing goes up if it is not."""
    sidecar = await world.sidecar(SECRETS, auth=AUTH)
    client = await sidecar.connect()
    body = event()
    raw = request("POST", "/retell", body, EXPECT, signed(body + b" "))

    await client.send(head_of(raw))
    interim = await client.reader.readexactly(len(CONTINUE))
    answer = await client.ask(body)

    assert (interim, answer.status) == (CONTINUE, 401)
    assert world.webhook.connections == 0


@pytest.mark.row("E4")
@targets
@pytest.mark.parametrize("status", [b"200 OK", b"417 Expectation Failed", b"413 Too Large"])
async def test_an_answer_before_its_body_ends_the_arms_connection(
    world: World, target: str, status: bytes
) -> None:
    """The arm reads the head alone, answers, and takes what still comes for requests.

    It gets none of ours on that connection: what it reads there ends inside the body.
    """
    read: list[bytes] = []
    go, ended = asyncio.Event(), asyncio.Event()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        read.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(response(b"early", JSON, status=status))
        await go.wait()
        try:
            while data := await reader.read(MB):
                read.append(data)
        except ConnectionError:
            pass
        writer.close()
        ended.set()

    server = await asyncio.start_server(accept, "127.0.0.1", 0, limit=2**16)
    port = server.sockets[0].getsockname()[1]
    sidecar = await world.sidecar(
        passthrough="webhook",
        listen={"body_limit": "64MB"},
        backends={"webhook": {"url": f"http://127.0.0.1:{port}/hook"}},
    )
    smuggled = b"POST /smuggled HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"
    body = b'{"event":"call_ended","call":{"call_id":"a"},"t":"' + b"x" * 48 * MB + b'"}' + smuggled
    client = await sidecar.connect()

    await client.send(head_of(request("POST", target, body, EXPECT)))
    await client.reader.readexactly(len(CONTINUE))
    answer = await client.ask(body)
    go.set()
    await ended.wait()
    server.close()

    assert (answer.status, answer.body) == (int(status[:3]), b"early")
    rest = b"".join(read[1:])
    assert len(rest) < len(body)
    assert body.startswith(rest)
    assert len(read[0].split(b"\r\n\r\n")) == 2


@pytest.mark.row("E4")
async def test_after_an_early_answer_the_next_caller_gets_his_own(world: World) -> None:
    """An arm that answers on the head, and only then reads the body, keeps its connection."""

    async def early(peer: Peer, seen: Seen) -> bool:
        await peer.send(response(b"early", JSON, status=b"417 Expectation Failed"))
        return True

    world.webhook.play = early
    sidecar = await world.sidecar()
    client = await sidecar.connect()
    got = []
    for number in range(20):
        world.webhook.play = early if number % 2 == 0 else answers(b"canary", JSON)
        body = event(call_id=f"id_{number}")
        raw = request("POST", "/retell", body, EXPECT)
        await client.send(head_of(raw))
        await client.reader.readexactly(len(CONTINUE))
        got.append((await client.ask(body)).body)

    assert got == [b"early", b"canary"] * 10
    assert all(seen.target == b"/hook" for seen in world.webhook.seen)


@pytest.mark.row("E5")
@targets
@pytest.mark.parametrize("expectation", [b"100-continue", b"100-Continue"])
async def test_http_1_0_is_never_told_to_go_on(
    world: World, target: str, expectation: bytes
) -> None:
    """It would take a 100 for the answer: RFC 9110, 10.1.1."""
    sidecar = await world.sidecar(passthrough="webhook")
    client = await sidecar.connect()
    raw = request("POST", target, event(), b"Expect: " + expectation).replace(
        b"HTTP/1.1", b"HTTP/1.0"
    )

    await client.send(head_of(raw))
    await until(lambda: sidecar.app.handler.inflight == 1, "it waits for the body")
    await client.send(event())
    said = await everything(client)

    assert len(re.findall(rb"HTTP/1\.1 ", said)) == 1
    assert said.startswith(b"HTTP/1.1 200 ")
    assert b"expect" not in world.webhook.seen[0].names
