"""What goes in comes out: bodies and header fields, byte for byte, both ways."""

from __future__ import annotations

import asyncio
import gzip
import hmac
import json
import re
import time

import pytest
from retell.lib import webhook_auth

from tests.functional.conftest import World
from tests.functional.kit import event, function
from tests.functional.wire import (
    JSON,
    Answer,
    Peer,
    Seen,
    answers,
    mcp,
    request,
    response,
    rpc,
    says,
    says_and_closes,
    text,
    until,
)

KEY = "key_0123456789abcdef"
GZIPPED = gzip.compress(b'{"event":"call_ended","call":{"call_id":"call_a"}}', mtime=0)
LONG = json.dumps(
    {
        "event": "call_ended",
        "call": {"call_id": "call_a", "transcript": "Gr\u00fc\u00df Gott \u260e " * 100_000},
    },
    ensure_ascii=False,
).encode()

BODIES = {
    "odd spacing": b'{ "event":"call_ended" ,\n\t"call" :{"call_id":  "call_a"}  }\r\n',
    "keys in an order of their own": b'{"call":{"x":1,"call_id":"call_a"},"event":"call_ended"}',
    "escapes": b'{"event":"call_\\u0065nded","call":{"call_id":"call_a"},"t":"\\ud83d\\ude00\\/"}',
    "UTF-8": '{"event":"call_ended","call":{"call_id":"call_a"},"t":"早 ☎ ü"}'.encode(),
    "numbers no float can hold": b'{"event":"call_ended","call":{"call_id":"c"},"n":1.10e+400}',
    "equal keys": b'{"event":"call_ended","call":{"call_id":"a"},"call":{"call_id":"b"}}',
    "not UTF-8": b'{"event":"call_ended","call":{"call_id":"call_a"},"t":"caf\xe9"}',
    "no JSON": b"\x00\x01\xff not json \r\n\r\n",
    "nothing": b"",
    "what looks like a request": b"POST /smuggled HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
    "1.5 MB": LONG,
}


def signature(body: bytes, *, key: str = KEY, wall_ms: int | None = None) -> bytes:
    """Retell's signature as its documentation computes it."""
    stamp = wall_ms if wall_ms is not None else time.time_ns() // 1_000_000
    digest = hmac.new(key.encode(), body + str(stamp).encode(), "sha256").hexdigest()
    return f"v={stamp},d={digest}".encode()


def verified(body: str, sent: bytes) -> bool:
    """What Retell's own SDK says of it, as an app behind us would ask."""
    return bool(webhook_auth.verify(body, KEY, sent.decode()))  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunks"])
async def test_the_webhook_gets_the_callers_body(world: World, body: bytes, chunked: bool) -> None:
    sidecar = await world.sidecar()

    answer = await sidecar.ask(request("POST", "/retell", body, JSON, chunked=chunked))

    (seen,) = world.webhook.seen
    assert answer.status == 200
    assert seen.body == body
    assert seen.values(b"content-length") == [b"%d" % len(body)]
    assert b"transfer-encoding" not in seen.names


ANSWERS = {
    "odd spacing": b'{ "a" :1.10 ,\r\n"b":"\\u00fc"}\n',
    "no JSON": b"\x00\xff\r\n\r\n",
    "nothing": b"",
    "1.5 MB": LONG,
    "gzip": GZIPPED,
}


@pytest.mark.parametrize("body", ANSWERS.values(), ids=ANSWERS)
async def test_the_caller_gets_the_webhooks_body(world: World, body: bytes) -> None:
    world.webhook.play = answers(body, b"Content-Type: x/y")
    sidecar = await world.sidecar()

    assert (await sidecar.post("/retell", event())).body == body


async def test_an_answer_in_chunks_keeps_its_bytes(world: World) -> None:
    raw = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"5;ext=1\r\nhel\r\n\r\n3\r\nlo!\r\n0\r\nX-Trailer: 1\r\n\r\n"
    )
    world.webhook.play = says(raw)
    sidecar = await world.sidecar()

    answer = await sidecar.post("/retell", event())

    assert answer.body == b"hel\r\nlo!"
    assert b"x-trailer" not in answer.names


async def test_an_answer_that_ends_with_its_connection_is_whole(world: World) -> None:
    world.webhook.play = says_and_closes(b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\n\r\nall of it")
    sidecar = await world.sidecar()

    answer = await sidecar.post("/retell", event())

    assert answer.body == b"all of it"
    assert answer.value(b"content-length") == b"9"


# -- Header fields.


OWN_UP = {
    b"x-request-id",
    b"x-forwarded-for",
    b"x-forwarded-proto",
    b"x-forwarded-host",
    b"x-callsplit-call-id",
    b"x-callsplit-attempt",
    b"x-callsplit-hops",
    b"x-callsplit-instance",
    b"traceparent",
    b"host",
    b"content-length",
}
OWN_DOWN = {b"x-callsplit-arm", b"x-callsplit-reason", b"x-request-id", b"content-length"}


@pytest.mark.row("R13")
async def test_no_header_is_invented_on_the_way_up(world: World) -> None:
    """No Accept, Accept-Encoding, User-Agent or Content-Type that the caller did not send."""
    sidecar = await world.sidecar()

    await sidecar.ask(request("POST", "/retell", event()))

    assert world.webhook.seen[0].names == OWN_UP


@pytest.mark.row("R14")
async def test_no_header_is_invented_on_the_way_down(world: World) -> None:
    """No Date, Server or Content-Type that the arm did not send."""
    world.webhook.play = says(response(b"plain"))
    sidecar = await world.sidecar()

    assert (await sidecar.post("/retell", event())).names == OWN_DOWN


async def test_what_callsplit_adds_can_be_switched_off(world: World) -> None:
    world.webhook.play = says(response(b"plain"))
    sidecar = await world.sidecar(listen={"expose_headers": False})

    assert (await sidecar.post("/retell", event())).names == {b"content-length"}


@pytest.mark.row("R3")
async def test_fields_keep_their_bytes_their_case_and_their_order(world: World) -> None:
    mine = [
        b"X-Retell-Signature: v=1,d=00",
        b"x-LOWER: caf\xe9 \xff\xfe",
        b"X-Utf: \xe6\x97\xa9",
        b"X-Twice: one",
        b"x-twice: two, three",
        b"X-Empty:",
        b"X-Inner: a  b\tc",
        b"Accept-Encoding: gzip;q=0.1",
        b"User-Agent: axios/1.15.2",
        b"Content-Type: application/json; charset=utf-8",
        b"Authorization: Bearer abc",
        b"Cookie: a=1; b=2",
    ]
    sidecar = await world.sidecar()

    await sidecar.post("/retell", event(), *mine)

    seen = world.webhook.seen[0]
    lines = seen.head.split(b"\r\n")
    assert [line for line in lines if line in mine or line == b"X-Empty: "] == [
        line.replace(b"X-Empty:", b"X-Empty: ") for line in mine
    ]


@pytest.mark.row("R3", "R13", "R14")
async def test_fields_of_an_answer_keep_their_bytes(world: World) -> None:
    theirs = [
        b"Set-Cookie: a=1; Path=/",
        b"Set-Cookie: b=2",
        b"Date: Thu, 01 Jan 2026 00:00:00 GMT",
        b"Server: nginx",
        b"X-Bytes: caf\xe9 \xff",
        b"X-Mixed-CASE: 1",
        b"Content-Encoding: gzip",
        b"Content-Type: application/json",
        b'ETag: W/"1"',
    ]
    world.webhook.play = says(response(GZIPPED, *theirs))
    sidecar = await world.sidecar()

    answer = await sidecar.post("/retell", event())

    assert answer.head.split(b"\r\n")[1 : len(theirs) + 1] == theirs
    assert answer.body == GZIPPED


async def test_a_compressed_request_is_not_opened(world: World) -> None:
    """Who unpacks it sees other bytes than were signed."""
    sidecar = await world.sidecar()

    await sidecar.post("/retell", GZIPPED, b"Content-Encoding: gzip", JSON)

    (seen,) = world.webhook.seen
    assert seen.body == GZIPPED
    assert seen.value(b"content-encoding") == b"gzip"


async def test_the_status_line_of_the_arm_is_the_callers(world: World) -> None:
    world.webhook.play = answers(b"{}", status=b"207 Quite Fine")
    sidecar = await world.sidecar()

    answer = await sidecar.post("/retell", event())

    assert answer.head.startswith(b"HTTP/1.1 207 Quite Fine\r\n")


HOPS = {
    "H1: nominated": ([b"Connection: close, X-S", b"X-S: 1"], {b"connection", b"x-s"}),
    "H3: hop by hop": (
        [
            b"Keep-Alive: timeout=5",
            b"Proxy-Connection: keep-alive",
            b"Proxy-Authorization: Basic YTpi",
            b"TE: trailers",
            b"Trailer: X-T",
            b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
            b"Upgrade: h2c",
        ],
        {
            b"keep-alive",
            b"proxy-connection",
            b"proxy-authorization",
            b"te",
            b"trailer",
            b"http2-settings",
            b"upgrade",
        },
    ),
    "claims about the way": (
        [
            b"X-Forwarded-Port: 1",
            b"Forwarded: for=6.6.6.6",
            b"X-Real-IP: 6.6.6.6",
            b"X-Original-URL: /admin",
            b"X-Rewrite-URL: /admin",
            b"X_Forwarded_For: 6.6.6.6",
            b"X-Callsplit-Arm: mcp",
            b"X-Callsplit-Attempt: 9",
            b"Idempotency-Key: mine",
        ],
        {
            b"x-forwarded-port",
            b"forwarded",
            b"x-real-ip",
            b"x-original-url",
            b"x-rewrite-url",
            b"x_forwarded_for",
            b"x-callsplit-arm",
            b"idempotency-key",
        },
    ),
}


@pytest.mark.row("H1", "H3", "H6", "H7")
@pytest.mark.parametrize(("mine", "gone"), HOPS.values(), ids=HOPS)
async def test_fields_that_end_here_do_not_go_up(
    world: World, mine: list[bytes], gone: set[bytes]
) -> None:
    sidecar = await world.sidecar()

    answer = await sidecar.post("/retell", event(), *mine)

    assert answer.status == 200
    assert not world.webhook.seen[0].names & gone


@pytest.mark.row("H5", "H7")
async def test_a_caller_cannot_speak_in_our_name(world: World) -> None:
    sidecar = await world.sidecar()
    forged = [b"X-Forwarded-For: 6.6.6.6", b"X-Request-Id: mine", b"X-Callsplit-Call-Id: other"]

    answer = await sidecar.post("/retell", event(), *forged)

    (seen,) = world.webhook.seen
    assert seen.values(b"x-forwarded-for") == [b"127.0.0.1"]
    assert seen.values(b"x-request-id") == answer.values(b"x-request-id") != [b"mine"]
    assert seen.values(b"x-callsplit-call-id") == [b"call_a"]


@pytest.mark.row("H2")
async def test_connection_cannot_nominate_what_we_need(world: World) -> None:
    """H2: the outcome of authentication and our own fields are not the caller's to strip."""
    body = event()
    signed = b"X-Retell-Signature: " + signature(body)
    sidecar = await world.sidecar(
        {"KEY": KEY},
        auth={"retell_keys": ["env:KEY"], "require": {"event": ["signature"]}},
    )
    nominated = b"Connection: X-Forwarded-For, X-Retell-Signature, Content-Length, Host"

    answer = await sidecar.post("/retell", body, signed, nominated)

    (seen,) = world.webhook.seen
    assert answer.status == 200
    assert seen.body == body
    assert seen.values(b"x-forwarded-for") == [b"127.0.0.1"]
    assert b"x-retell-signature" not in seen.names


@pytest.mark.row("H1", "H3")
async def test_hop_by_hop_fields_of_an_answer_end_here(world: World) -> None:
    theirs = [
        b"Connection: X-S",
        b"X-S: 1",
        b"Keep-Alive: timeout=5",
        b"Proxy-Authenticate: Basic",
        b"X-Callsplit-Arm: liar",
        b"X-Request-Id: liar",
        b"X-Fine: 1",
    ]
    world.webhook.play = says(response(b"{}", *theirs))
    sidecar = await world.sidecar()

    answer = await sidecar.post("/retell", event())

    assert answer.names == OWN_DOWN | {b"x-fine"}
    assert answer.values(b"x-callsplit-arm") == [b"webhook"]


# -- Retell's signature.


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
async def test_retells_own_sdk_verifies_at_the_webhook_what_was_sent_to_us(
    world: World, body: bytes
) -> None:
    """Retell's code takes text, so only what is UTF-8 can be signed by it at all."""
    sent = signature(body)
    sidecar = await world.sidecar()

    await sidecar.post("/retell", body, b"X-Retell-Signature: " + sent)

    (seen,) = world.webhook.seen
    assert seen.values(b"x-retell-signature") == [sent]
    try:
        text = seen.body.decode()
    except UnicodeDecodeError:
        assert seen.body == body
    else:
        assert verified(text, sent)


async def test_what_we_compose_for_the_webhook_verifies_with_retells_sdk(world: World) -> None:
    """An MCP call that the webhook answers was never signed by Retell; the webhook checks."""
    await world.mcp.refuse()
    sidecar = await world.sidecar({"KEY": KEY}, backends={"webhook": {"sign": "env:KEY"}})

    await sidecar.post(
        "/api/mcp/retell/tools", b'{"tool":"t","arguments":{"a":"\xc3\xbc"},"call_id":"call_a"}'
    )

    (seen,) = world.webhook.seen
    assert seen.json == {"name": "t", "call": {"call_id": "call_a"}, "args": {"a": "ü"}}
    (sent,) = seen.values(b"x-retell-signature")
    assert verified(seen.body.decode(), sent)


# -- Broken answers.


@pytest.mark.row("R9", "R10")
async def test_a_good_answer_with_surplus_bytes_is_delivered_and_its_connection_dropped(
    world: World,
) -> None:
    """R9, R10: a careless proxy calls it an error, falls back, and books twice."""
    good = response(b'{"booked":true}', JSON)
    world.webhook.play = says(good + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen")
    sidecar = await world.sidecar(split={"percent": 0}, fallback={"both_ways": True})

    bodies = [(await sidecar.call("book_appointment", f"id_{n}")).body for n in range(20)]

    assert bodies == [b'{"booked":true}'] * 20
    assert len(world.webhook.seen) == 20
    assert world.webhook.connections == 20
    assert not world.mcp.seen
    assert (await sidecar.breaker("webhook"))["failures"] == 0


@pytest.mark.row("R9")
async def test_surplus_bytes_behind_a_bookings_answer_book_nothing_twice(world: World) -> None:
    """R9 with another arm at hand: the answer is good, so nobody else is asked."""

    async def twice(peer: Peer, seen: Seen) -> bool:
        await peer.send(rpc(seen, text('{"booked":true}')) + b"\r\nsurplus")
        return True

    world.mcp.play = mcp(twice)
    sidecar = await world.sidecar()

    got = [await sidecar.call("book_appointment", f"id_{n}") for n in range(5)]

    assert {(answer.body, answer.arm) for answer in got} == {(b'{"booked":true}', "mcp")}
    assert len(world.mcp.tools) == 5
    assert world.mcp.connections == 5
    assert not world.webhook.seen
    assert (await sidecar.breaker())["failures"] == 0


@pytest.mark.row("R9", "R10")
async def test_surplus_bytes_that_come_later_meet_no_other_caller(world: World) -> None:
    async def play(peer: Peer, _: Seen) -> bool:
        await peer.send(response(b"good"))
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nstolen")
        return True

    world.webhook.play = play
    sidecar = await world.sidecar()

    for number in range(20):
        answer = await sidecar.post("/retell", event(call_id=f"id_{number}"))
        assert answer.body == b"good"

    assert len(world.webhook.seen) == 20


CUT = {
    "in the body": b"HTTP/1.1 200 OK\r\nContent-Length: 200\r\n\r\n{",
    "in a chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
    "before the last chunk": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    "in the head": b"HTTP/1.1 200 OK\r\nContent-",
}


@pytest.mark.row("R7", "R8")
@pytest.mark.parametrize("raw", CUT.values(), ids=CUT)
async def test_a_cut_answer_becomes_the_last_answer(world: World, raw: bytes) -> None:
    """R7, R8: nothing had been relayed yet, so the caller hears a whole answer of ours."""
    world.webhook.play = says_and_closes(raw)
    sidecar = await world.sidecar()

    answer = await sidecar.post("/retell", event())

    assert (answer.status, answer.reason) == (503, "last_answer")


@pytest.mark.row("R7", "R8")
@pytest.mark.parametrize("framing", [b"Content-Length: 900000", b"Transfer-Encoding: chunked"])
async def test_a_streamed_answer_that_is_cut_never_ends_cleanly(
    world: World, framing: bytes
) -> None:
    piece = b"x" * 300_000
    body = piece if b"Length" in framing else b"%x\r\n%b\r\n" % (len(piece), piece)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\n" + framing + b"\r\n\r\n"
    world.webhook.play = says_and_closes(head + body)
    sidecar = await world.sidecar()
    client = await sidecar.connect()

    with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
        await client.ask(request("POST", "/retell", event()))

    (line,) = await sidecar.lines(1)
    assert line["outcome"] == "failed"
    assert line["flags"] == ["streamed"]


@pytest.mark.row("R1", "R2", "R4", "R16")
@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nX-A: a\x00b\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n",
        b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 999 Odd\r\nContent-Length: 2\r\n\r\n{}",
        b"no HTTP at all\r\n\r\n",
    ],
)
async def test_an_answer_that_is_no_http_reaches_nobody(world: World, raw: bytes) -> None:
    world.webhook.play = says(raw)
    sidecar = await world.sidecar()

    answer = await sidecar.post("/retell", event())

    assert (answer.status, answer.reason) == (503, "last_answer")
    assert (await sidecar.metrics()).total("attempts_total", arm="webhook", verdict="failed") == 1


@pytest.mark.row("R6")
@pytest.mark.parametrize(
    ("method", "raw"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody"),
        ("POST", b"HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nbody"),
        ("POST", b"HTTP/1.1 204 No Content\r\n\r\n"),
    ],
)
async def test_answers_without_a_body_have_none(world: World, method: str, raw: bytes) -> None:
    """R6: and the next caller on either connection gets an answer of his own."""
    world.webhook.play = says(raw)
    sidecar = await world.sidecar()
    client = await sidecar.connect()

    first = await client.ask(request(method, "/retell", event() if method == "POST" else None))
    world.webhook.play = answers(b"canary")
    second = await client.ask(request("POST", "/retell", event("call_analyzed")))

    assert (first.body, second.body) == (b"", b"canary")
    if first.status == 204:
        assert b"content-length" not in first.names


# -- Large ones.


async def test_an_answer_larger_than_what_is_judged_streams(world: World) -> None:
    body = bytes(range(256)) * 20_000
    world.webhook.play = answers(body, b"Content-Type: a/b")
    sidecar = await world.sidecar(split={"percent": 0})

    answer = await sidecar.post("/retell", function("t"))

    assert answer.body == body
    (line,) = await sidecar.lines(1)
    assert (line["outcome"], line["bytes_out"], line["flags"]) == ("ok", len(body), ["streamed"])


PONG = b'data: {"jsonrpc":"2.0","id":1,"result":{}}\n\n'


async def test_events_stream_as_they_come(world: World) -> None:
    """An MCP server's stream is not held back until it is whole."""
    go_on = asyncio.Event()

    async def play(peer: Peer, _: Seen) -> bool:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
        await peer.send(head + b"data: 1\n\n")
        await go_on.wait()
        await peer.send(PONG)
        return False

    world.mcp.play = play
    sidecar = await world.sidecar()
    client = await sidecar.connect()
    ping = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'

    await client.send(request("POST", "/mcp/call_a", ping))
    head = await client.reader.readuntil(b"\r\n\r\n")
    first = await client.reader.readexactly(len(b"9\r\ndata: 1\n\n\r\n"))
    go_on.set()
    rest = await client.reader.readuntil(b"0\r\n\r\n")

    assert Answer(head, b"").value(b"content-type") == b"text/event-stream"
    assert first == b"9\r\ndata: 1\n\n\r\n"
    assert rest == b"%x\r\n%b\r\n0\r\n\r\n" % (len(PONG), PONG)


async def test_a_tool_asked_in_chunks_reaches_mcp_with_its_arguments(world: World) -> None:
    sidecar = await world.sidecar()
    body = b'{"name":"t","call":{"call_id":"call_a"},"args":{"n": 1.50, "t":"\\u00fc"}}'

    answer = await sidecar.ask(request("POST", "/retell", body, JSON, chunked=True))

    (seen,) = world.mcp.tools
    assert answer.status == 200
    assert b'"arguments":{"n": 1.50, "t":"\\u00fc"}' in seen.body
    assert re.search(rb"\r\nmcp-name: t\r\n", seen.head)


@pytest.mark.row("R12")
async def test_a_slow_reader_gets_everything(world: World) -> None:
    """Back-pressure: nothing is lost, and little is held, however late the caller reads."""
    body = b"0123456789abcdef" * 500_000
    world.webhook.play = answers(body, b"Content-Type: a/b")
    sidecar = await world.sidecar()
    client = await sidecar.connect()

    await client.send(request("POST", "/retell", event()))
    await until(lambda: world.webhook.seen, "the webhook was asked")
    answer = await client.answer()

    assert answer.body == body
