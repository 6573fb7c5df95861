"""What an arm may do to its callers: nothing.  Rows R1-R16, for a kind of ours and for a page.

An arm is a raw server here.  "A page" is what `passthrough` forwards: its answer is relayed as it
comes, where that to one of our kinds is judged as a whole first.
"""

from __future__ import annotations

import asyncio
import gzip
import itertools
import socket
from collections.abc import Mapping
from typing import NamedTuple

import pytest

from tests.functional.conftest import World
from tests.functional.kit import BOOK, Sidecar, event
from tests.functional.wire import (
    JSON,
    Answer,
    Client,
    Peer,
    Play,
    Seen,
    answers,
    request,
    response,
    says,
    says_and_closes,
    until,
)

OK = b"HTTP/1.1 200 OK\r\n"
TWO = b"Content-Length: 2\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
CANARY = b"canary"
CALLS = itertools.count()


class Way(NamedTuple):
    """How a request reaches the webhook, and what its caller hears when that fails."""

    target: str
    status: int
    said: bytes

    def request(self, method: str = "POST", *fields: bytes) -> bytes:
        """Each of a call of its own."""
        body = event(call_id=f"call_{next(CALLS)}") if method == "POST" else None
        return request(method, self.target, body, *fields)


EVENT = Way("/retell", 503, b"No backend can answer right now.")
PAGE = Way("/page", 502, b"The application gave no answer.")
ways = pytest.mark.parametrize("way", [EVENT, PAGE], ids=["event", "page"])


class Stand:
    """A sidecar before an arm that plays what it is given, whose breaker never opens."""

    def __init__(self, world: World, sidecar: Sidecar, way: Way) -> None:
        self.arm, self.sidecar, self.way = world.webhook, sidecar, way

    @classmethod
    async def before(cls, world: World, way: Way, play: Play | None = None) -> Stand:
        webhook = {"breaker": {"enabled": False}}
        sidecar = await world.sidecar(passthrough="webhook", backends={"webhook": webhook})
        world.webhook.play = play or world.webhook.play
        return cls(world, sidecar, way)

    async def ask(self, method: str = "POST", *fields: bytes) -> Answer:
        return await self.sidecar.ask(self.way.request(method, *fields))

    async def is_left(self) -> None:
        """The arm's connection is closed."""
        await until(lambda: self.arm.open == 0, "the arm's connection is closed")

    async def canaries(self, client: Client) -> list[bytes]:
        """What is heard next, on this connection if it is open still, and on a new one."""
        self.arm.play = answers(CANARY, JSON)
        other = await self.sidecar.connect()
        asked = [client, other] if client.usable else [other]
        heard = [(await each.ask(self.way.request())).body for each in asked]
        await other.close()
        return heard

    async def failing(self, raw: bytes) -> list[object]:
        """Play this to one caller; what he hears, and those after him."""
        client = await self.sidecar.connect()
        self.arm.play = says(raw)
        answer = await client.ask(self.way.request())
        await self.is_left()
        heard = [answer.status, self.way.said in answer.body, await self.canaries(client)]
        await client.close()
        await self.sidecar.hang_up()
        return heard


async def assert_failures(world: World, table: Mapping[str, bytes], way: Way) -> None:
    """A whole answer of ours, the arm's connection gone, a failure counted, nobody else hurt."""
    stand = await Stand.before(world, way)
    as_it_should = [way.status, True, [CANARY, CANARY]]

    heard = {name: await stand.failing(raw) for name, raw in table.items()}

    assert {name: told for name, told in heard.items() if told != as_it_should} == {}
    code = "upstream_failed" if way is PAGE else None
    failed = await stand.sidecar.lines(len(table), status=way.status, code=code)
    assert len(failed) == len(table)
    if way is EVENT:
        metrics = await stand.sidecar.metrics()
        assert metrics.total("attempts_total", arm="webhook", verdict="failed") == len(table)


DOUBTFUL = {
    "length with a plus": OK + b"Content-Length: +2\r\n\r\n{}",
    "length with a minus": OK + b"Content-Length: -2\r\n\r\n{}",
    "length in hex": OK + b"Content-Length: 0x2\r\n\r\n{}",
    "length with a blank": OK + b"Content-Length: 2 2\r\n\r\n{}",
    "length as a list": OK + b"Content-Length: 2, 2\r\n\r\n{}",
    "length of nothing": OK + b"Content-Length:\r\n\r\n{}",
    "length in other digits": OK + "Content-Length: \u0662\r\n\r\n{}".encode(),
    "length of 20 digits": OK + b"Content-Length: 00000000000000000002\r\n\r\n{}",
    "two lengths": OK + TWO + b"Content-Length: 3\r\n\r\n{}",
    "one length twice": OK + TWO + TWO + b"\r\n{}",
    "length and chunks": OK + TWO + CHUNKED + b"\r\n2\r\n{}\r\n0\r\n\r\n",
    "chunks and length": OK + CHUNKED + TWO + b"\r\n2\r\n{}\r\n0\r\n\r\n",
    "unknown coding": OK + b"Transfer-Encoding: xchunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "no coding": OK + b"Transfer-Encoding: identity\r\n\r\n{}",
    "empty coding": OK + b"Transfer-Encoding:\r\n\r\n{}",
    "gzip, chunked": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "chunked, chunked": OK + b"Transfer-Encoding: chunked, chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "comma chunked": OK + b"Transfer-Encoding: , chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "chunked;q=1": OK + b"Transfer-Encoding: chunked;q=1\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "chunked twice": OK + CHUNKED + CHUNKED + b"\r\n2\r\n{}\r\n0\r\n\r\n",
    "gzip and chunked": OK + b"Transfer-Encoding: gzip\r\n" + CHUNKED + b"\r\n0\r\n\r\n",
    "chunks in HTTP/1.0": b"HTTP/1.0 200 OK\r\n" + CHUNKED + b"\r\n2\r\n{}\r\n0\r\n\r\n",
    **{
        f"chunk size {size!r}": OK + CHUNKED + b"\r\n" + size + b"\r\n{}\r\n0\r\n\r\n"
        for size in (b"0x2", b"+2", b"-2", b"2_0", b" 2", b"2 ", b"", b"g", b"1" + 16 * b"0")
    },
    "chunk size line ended by LF": OK + CHUNKED + b"\r\n2\n{}\r\n0\r\n\r\n",
    "chunk ended by LF": OK + CHUNKED + b"\r\n2\r\n{}\n0\r\n\r\n",
    "chunk without an end": OK + CHUNKED + b"\r\n2\r\n{}0\r\n\r\n",
    "chunk longer than it says": OK + CHUNKED + b"\r\n2\r\n{}}\r\n0\r\n\r\n",
    "LF in a chunk extension": OK + CHUNKED + b"\r\n2;a\nb\r\n{}\r\n0\r\n\r\n",
    "CR in a chunk extension": OK + CHUNKED + b"\r\n2;a\rb\r\n{}\r\n0\r\n\r\n",
    "chunks ended by LF": OK + CHUNKED + b"\r\n2\r\n{}\r\n0\n\n",
}


@pytest.mark.row("R1")
@ways
async def test_doubtful_framing_is_a_failure_of_the_arm(world: World, way: Way) -> None:
    await assert_failures(world, DOUBTFUL, way)


MALFORMED = {
    "a folded line": OK + b"X-A: one\r\n two\r\n" + TWO + b"\r\n{}",
    "a folded line by tab": OK + b"X-A: one\r\n\ttwo: 2\r\n" + TWO + b"\r\n{}",
    "a folded first line": OK + b" X-A: one\r\n" + TWO + b"\r\n{}",
    "LF behind a field": OK + b"X-A: 1\n" + TWO + b"\r\n{}",
    "LF only": b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}",
    "LF behind the status": b"HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\n{}",
    "CR in a value": OK + b"X-A: 1\rX-B: 2\r\n" + TWO + b"\r\n{}",
    "CR behind the status": b"HTTP/1.1 200 OK\rX-A: 1\r\n" + TWO + b"\r\n{}",
    **{
        f"byte {byte:#04x} in a value": OK + b"X-A: a%cb\r\n" % byte + TWO + b"\r\n{}"
        for byte in (*range(9), *range(11, 13), *range(14, 32), 127)
    },
    "a control byte in the reason": b"HTTP/1.1 200 O\x00K\r\n" + TWO + b"\r\n{}",
    "blank before the colon": OK + b"X-A : 1\r\n" + TWO + b"\r\n{}",
    "blank in a name": OK + b"X A: 1\r\n" + TWO + b"\r\n{}",
    "no name": OK + b": 1\r\n" + TWO + b"\r\n{}",
    "no colon": OK + b"X-A\r\n" + TWO + b"\r\n{}",
    "a name of other letters": OK + b"X-\xe9: 1\r\n" + TWO + b"\r\n{}",
    "a name in brackets": OK + b"[x]: 1\r\n" + TWO + b"\r\n{}",
    "a name with a control byte": OK + b"X\x00A: 1\r\n" + TWO + b"\r\n{}",
}


@pytest.mark.row("R2")
@ways
async def test_a_malformed_head_is_a_failure_of_the_arm(world: World, way: Way) -> None:
    await assert_failures(world, MALFORMED, way)


NO_STATUS = {
    "status 099": b"HTTP/1.1 099 Odd\r\n",
    "status 000": b"HTTP/1.1 000 Odd\r\n",
    "status 600": b"HTTP/1.1 600 Odd\r\n",
    "status 999": b"HTTP/1.1 999 Odd\r\n",
    "four digits": b"HTTP/1.1 2000 Odd\r\n",
    "two digits": b"HTTP/1.1 20 Odd\r\n",
    "no digits": b"HTTP/1.1 OK\r\n",
    "a sign": b"HTTP/1.1 +20 Odd\r\n",
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\n",
    "HTTP/1.2": b"HTTP/1.2 200 OK\r\n",
    "HTTP/1.10": b"HTTP/1.10 200 OK\r\n",
    "http/1.1": b"http/1.1 200 OK\r\n",
    "two blanks": b"HTTP/1.1  200 OK\r\n",
    "a tab": b"HTTP/1.1\t200 OK\r\n",
    "a leading blank": b" HTTP/1.1 200 OK\r\n",
    "a leading line": b"\r\nHTTP/1.1 200 OK\r\n",
    "another protocol": b"ICY 200 OK\r\n",
    "a request": b"POST /retell HTTP/1.1\r\n",
}


@pytest.mark.row("R16")
@ways
async def test_a_status_line_that_is_none_is_a_failure_of_the_arm(world: World, way: Way) -> None:
    whole = {name: first + TWO + b"\r\n{}" for name, first in NO_STATUS.items()}

    await assert_failures(world, whole, way)


@pytest.mark.row("R16")
@ways
@pytest.mark.parametrize("first", [b"HTTP/1.1 200\r\n", b"HTTP/1.1 200 \r\n"])
async def test_a_status_needs_no_reason(world: World, first: bytes, way: Way) -> None:
    stand = await Stand.before(world, way, says(first + TWO + b"\r\n{}"))

    answer = await stand.ask()

    assert (answer.status, answer.body) == (200, b"{}")


TRAILERS = {
    "a field": b"X-T: 1",
    "a cookie": b"Set-Cookie: a=1",
    "the end": b"Connection: close",
    "another coding": b"Transfer-Encoding: gzip, chunked",
    "an upgrade": b"Connection: upgrade\r\nUpgrade: x",
    "our own word": b"X-Callsplit-Arm: mcp",
}


@pytest.mark.row("R1", "R14")
@ways
async def test_trailers_of_an_answer_are_dropped_and_frame_nothing(world: World, way: Way) -> None:
    stand = await Stand.before(world, way)
    for name, trailer in TRAILERS.items():
        chunks = OK + CHUNKED + b"\r\n2\r\nok\r\n0\r\n" + trailer + b"\r\n\r\n"
        stand.arm.play = says(chunks)
        client = await stand.sidecar.connect()

        answer = await client.ask(way.request())

        assert answer.body == b"ok", name
        assert answer.names.isdisjoint({b"x-t", b"set-cookie", b"connection", b"upgrade"}), name
        assert answer.values(b"x-callsplit-arm") == [b"webhook"]
        assert await stand.canaries(client) == [CANARY, CANARY], name


@pytest.mark.row("R1")
async def test_trailers_that_are_malformed_are_a_failure_of_the_arm(world: World) -> None:
    chunks = OK + CHUNKED + b"\r\n2\r\nok\r\n0\r\n%b\r\n\r\n"
    bad = {"a length": b"Content-Length: 5", "a control byte": b"X: \x01", "a blank": b"X : 1"}

    await assert_failures(world, {name: chunks % trailer for name, trailer in bad.items()}, EVENT)


# -- Before the answer.

SWITCH = b"HTTP/1.1 101 Switching Protocols\r\n"
UNASKED = {
    "101": SWITCH + b"Upgrade: x\r\nConnection: Upgrade\r\n\r\n",
    "101 with a body": SWITCH + TWO + b"\r\n{}",
    "101 behind 100": b"HTTP/1.1 100 Continue\r\n\r\n" + SWITCH + b"\r\n",
}


@pytest.mark.row("R4")
@ways
async def test_no_arm_switches_protocols(world: World, way: Way) -> None:
    await assert_failures(world, UNASKED, way)


@pytest.mark.row("R4", "H4")
@ways
async def test_no_arm_switches_protocols_although_the_caller_wished_for_it(
    world: World, way: Way
) -> None:
    """Nobody passed the wish on."""
    stand = await Stand.before(world, way, says(UNASKED["101"]))

    answer = await stand.ask("POST", b"Connection: Upgrade", b"Upgrade: x")

    assert answer.status == way.status
    assert b"upgrade" not in answer.names
    assert stand.arm.seen[0].names.isdisjoint({b"upgrade", b"connection"})
    await stand.is_left()


INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"
EARLY = b"HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n"


@pytest.mark.row("R5")
@ways
@pytest.mark.parametrize("interim", [INTERIM, EARLY, INTERIM + 5 * EARLY], ids=["100", "103", "6"])
async def test_interim_answers_are_skipped(world: World, interim: bytes, way: Way) -> None:
    stand = await Stand.before(world, way, says(interim + response(CANARY)))
    client = await stand.sidecar.connect()

    heard = [await client.ask(way.request()) for _ in range(3)]

    assert [(answer.status, answer.body) for answer in heard] == [(200, CANARY)] * 3
    assert b"link" not in heard[0].names
    assert stand.arm.connections == 1


@pytest.mark.row("R5")
@ways
async def test_a_flood_of_interim_answers_is_a_failure_of_the_arm(world: World, way: Way) -> None:
    floods = {"100": INTERIM * 1000, "103": EARLY * 1000}

    await assert_failures(
        world, {name: flood + response(b"late") for name, flood in floods.items()}, way
    )


TOO_LONG = {
    "a field of 20 kB": OK + b"X-A: " + b"x" * 20_000 + b"\r\n" + TWO + b"\r\n{}",
    "500 fields": OK + b"".join(b"X-%d: 1\r\n" % n for n in range(500)) + TWO + b"\r\n{}",
    "1 MB of fields": OK + b"".join(b"X: %01000d\r\n" % n for n in range(1000)) + b"\r\n",
    "1 MB of one field": OK + b"X: " + b"x" * 1_000_000 + b"\r\n\r\n",
    "1 MB of reason": b"HTTP/1.1 200 " + b"x" * 1_000_000 + b"\r\n\r\n",
}


@pytest.mark.row("R11")
@ways
async def test_a_head_too_long_is_a_failure_of_the_arm(world: World, way: Way) -> None:
    """What has come of it is never more than 64 kB and a segment."""
    await assert_failures(world, TOO_LONG, way)


# -- Where an answer ends.


class Bodiless(NamedTuple):
    """An answer that has no body, whatever it says; `surplus`: with one all the same."""

    method: str
    raw: bytes
    surplus: bool = False


HEAD_ONLY = {
    "HEAD": Bodiless("HEAD", OK + b"Content-Length: 12\r\n\r\n"),
    "HEAD in chunks": Bodiless("HEAD", OK + CHUNKED + b"\r\n"),
    "HEAD of no length": Bodiless("HEAD", OK + b"\r\n"),
    "HEAD with its body": Bodiless("HEAD", OK + b"Content-Length: 4\r\n\r\nbody", True),
    "204": Bodiless("POST", b"HTTP/1.1 204 No Content\r\n\r\n"),
    "204 with a length": Bodiless("POST", b"HTTP/1.1 204 N\r\nContent-Length: 4\r\n\r\n"),
    "204 in chunks": Bodiless("POST", b"HTTP/1.1 204 N\r\n" + CHUNKED + b"\r\n"),
    "204 with a body": Bodiless("POST", b"HTTP/1.1 204 N\r\nContent-Length: 4\r\n\r\nbody", True),
    "204 with an answer behind": Bodiless(
        "POST", b"HTTP/1.1 204 N\r\n\r\n" + response(b"stolen"), True
    ),
}
NOT_MODIFIED = {
    "304": Bodiless("GET", b"HTTP/1.1 304 N\r\n\r\n"),
    "304 with a length": Bodiless("GET", b"HTTP/1.1 304 N\r\nContent-Length: 4\r\n\r\n"),
    "304 in chunks": Bodiless("GET", b"HTTP/1.1 304 N\r\n" + CHUNKED + b"\r\n"),
    "304 with a body": Bodiless("GET", b"HTTP/1.1 304 N\r\nContent-Length: 4\r\n\r\nbody", True),
}  # of pages only: a redirect of our kinds is a failure


@pytest.mark.row("R6")
@ways
async def test_what_has_no_body_has_none_and_spoils_nothing(world: World, way: Way) -> None:
    stand = await Stand.before(world, way)
    table = HEAD_ONLY | (NOT_MODIFIED if way is PAGE else {})
    for name, each in table.items():
        client = await stand.sidecar.connect()
        stand.arm.play = says(each.raw)

        answer = await client.ask(way.request(each.method))

        assert (answer.status, answer.body) == (int(each.raw[9:12]), b""), name
        assert client.usable, name
        assert b"transfer-encoding" not in answer.names or each.method == "HEAD", name
        if answer.status == 204:  # RFC 9110, 8.6
            assert b"content-length" not in answer.names, name
        if name == "HEAD":
            assert answer.values(b"content-length") == [b"12"]
        if each.surplus:
            await stand.is_left()
        assert await stand.canaries(client) == [CANARY, CANARY], name


CUT = {
    "of a length": OK + b"Content-Length: 200\r\n\r\n{}",
    "at its beginning": OK + b"Content-Length: 200\r\n\r\n",
    "in a chunk": OK + CHUNKED + b"\r\n5\r\nhel",
    "in a chunk's size": OK + CHUNKED + b"\r\n5",
    "between chunks": OK + CHUNKED + b"\r\n5\r\nhello\r\n",
    "in the last chunk": OK + CHUNKED + b"\r\n5\r\nhello\r\n0\r\n",
    "in the trailers": OK + CHUNKED + b"\r\n5\r\nhello\r\n0\r\nX-A: 1\r\n",
}


@pytest.mark.row("R7", "R8")
@pytest.mark.parametrize("version", [b"HTTP/1.1", b"HTTP/1.0"])
async def test_a_page_that_is_cut_never_ends_cleanly(world: World, version: bytes) -> None:
    """Its beginning has been relayed: all that is left is to break off, and hard.

    An HTTP/1.0 caller would take a mere end of the connection for the end of the page.
    """
    stand = await Stand.before(world, PAGE)
    for name, raw in CUT.items():
        client = await stand.sidecar.connect()
        stand.arm.play = says_and_closes(raw)

        with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
            await client.ask(PAGE.request().replace(b"HTTP/1.1", version))

        assert await stand.canaries(await stand.sidecar.connect()) == [CANARY, CANARY], name
    failed = await stand.sidecar.lines(len(CUT), outcome="failed")
    assert len(failed) == len(CUT)


@pytest.mark.row("R7", "R8")
async def test_an_answer_that_is_cut_before_it_was_relayed_is_a_failure(world: World) -> None:
    stand = await Stand.before(world, EVENT)
    for name, raw in CUT.items():
        stand.arm.play = says_and_closes(raw)

        answer = await stand.ask()

        assert (answer.status, EVENT.said in answer.body) == (503, True), name


@pytest.mark.row("R9", "R10")
@pytest.mark.parametrize("later", [False, True], ids=["same segment", "later segment"])
async def test_a_second_answer_to_one_page_reaches_nobody(world: World, later: bool) -> None:
    """Fifty canaries, each right behind a request that was answered twice."""
    heard, sent = asyncio.Event(), asyncio.Event()

    async def twice(peer: Peer, seen: Seen) -> bool:
        good = response(b"mine", b"X-Connection: %d" % seen.connection)
        if later:
            await peer.send(good)
            await heard.wait()
            await peer.send(response(b"stolen"))
        else:
            await peer.send(good + response(b"stolen"))
        sent.set()
        return True

    stand = await Stand.before(world, PAGE)
    client = await stand.sidecar.connect()
    got = []
    for _ in range(50):
        heard.clear()
        sent.clear()
        stand.arm.play = twice
        got.append((await client.ask(PAGE.request())).body)
        heard.set()
        await sent.wait()
        got += await stand.canaries(client)

    assert got == [b"mine", CANARY, CANARY] * 50


# -- Sizes.


MOST = 64 * 2**20
"""What sockets of this machine may hold at most: two of them, one buffer each way."""


@pytest.mark.row("R12")
@ways
async def test_an_endless_answer_waits_for_its_reader(world: World, way: Way) -> None:
    """The arm can write as much as the sockets hold, however long the caller does not read."""
    written, full = 0, asyncio.Event()

    async def endless(peer: Peer, _: Seen) -> bool:
        nonlocal written
        await peer.send(OK + CHUNKED + b"\r\n")
        while True:
            try:
                async with asyncio.timeout(0.3):
                    await peer.send(b"10000\r\n" + b"x" * 65_536 + b"\r\n")
            except TimeoutError:
                full.set()
                await peer.left()
                return False
            written += 65_536

    stand = await Stand.before(world, way, endless)
    with socket.create_connection(("127.0.0.1", stand.sidecar.port)) as caller:
        caller.sendall(way.request())
        await full.wait()
    await stand.is_left()

    assert written < MOST, written
    (line,) = await stand.sidecar.lines(1)
    assert line["outcome"] == "gone"


# -- What goes with it.


@pytest.mark.row("R13")
@ways
@pytest.mark.parametrize(
    "asked", [[], [b"identity"], [b"gzip;q=0.5, br"], [b"gzip", b"br"]], ids=str
)
async def test_encodings_are_nobodys_business(world: World, asked: list[bytes], way: Way) -> None:
    """What is called gzip and is none is not looked into either."""
    stand = await Stand.before(world, way)
    wishes = [b"Accept-Encoding: " + each for each in asked]
    for body in (gzip.compress(b"{}", mtime=0), b"no gzip at all", b""):
        stand.arm.play = answers(body, b"Content-Encoding: gzip")

        answer = await stand.ask("POST", *wishes)

        assert answer.body == body
        assert answer.values(b"content-encoding") == [b"gzip"]
        assert stand.arm.seen[-1].values(b"accept-encoding") == asked


OWN = {b"x-callsplit-arm", b"x-callsplit-reason", b"x-request-id"}


@pytest.mark.row("R14")
@ways
async def test_no_field_of_an_answer_is_invented_merged_or_doubled(world: World, way: Way) -> None:
    bare, full = (
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n-",
        response(
            b"-",
            b"Set-Cookie: a=1; Path=/",
            b"Date: Thu, 01 Jan 2026 00:00:00 GMT",
            b"Set-Cookie: b=2, c",
            b"Server: theirs/1",
        ),
    )
    stand = await Stand.before(world, way, says(bare))

    plain = await stand.ask()
    stand.arm.play = says(full)
    rich = await stand.ask()

    assert plain.names - OWN <= {b"content-length", b"transfer-encoding"}
    assert rich.values(b"set-cookie") == [b"a=1; Path=/", b"b=2, c"]
    assert rich.values(b"date") == [b"Thu, 01 Jan 2026 00:00:00 GMT"]
    assert rich.values(b"server") == [b"theirs/1"]
    assert len(rich.fields) == len(plain.fields) + 4


REDIRECTS = [b"301 Moved", b"302 Found", b"303 See Other", b"307 T", b"308 P", b"300 Choose"]


@pytest.mark.row("R15")
@pytest.mark.parametrize("status", REDIRECTS)
async def test_a_redirect_is_relayed_and_not_followed(world: World, status: bytes) -> None:
    elsewhere = await world.origin("elsewhere", answers(b"{}"))
    location = b"Location: " + elsewhere.url.encode() + b"/x"
    stand = await Stand.before(world, PAGE, answers(b"", location, status=status))

    answer = await stand.ask("GET")

    assert answer.status == int(status[:3])
    assert answer.values(b"location") == [elsewhere.url.encode() + b"/x"]
    assert elsewhere.connections == 0


@pytest.mark.row("R15")
async def test_retell_is_never_sent_elsewhere(world: World) -> None:
    """Nor do we go there: not for an event, not for a booking, not with its credentials."""
    elsewhere = await world.origin("elsewhere", answers(b"{}"))
    redirect = answers(b"", b"Location: " + elsewhere.url.encode(), status=b"307 Temporary")
    stand = await Stand.before(world, EVENT, redirect)
    world.mcp.play = redirect

    told = await stand.ask()
    booked = await stand.sidecar.call(BOOK)

    assert told.status == 503
    assert (booked.status, booked.json["success"]) == (200, False)
    assert not (told.names | booked.names) & {b"location"}
    assert elsewhere.connections == 0
