"""Who is turned away, and that nothing of it reaches an arm."""

from __future__ import annotations

import asyncio
import gzip
import time
from typing import Any

import pytest

from tests.functional.conftest import World
from tests.functional.kit import BOOK, SLOTS, Sidecar, event, function, tools_call
from tests.functional.test_bytes import KEY, signature
from tests.functional.wire import JSON, Answer, request, until

TOKEN, BACKUP = "primary-token-0123456789", "backup-token-9876543210"
SECRETS = {"KEY": KEY, "OLD_KEY": "key_before_rotation", "T1": TOKEN, "T2": BACKUP}
AUTH: dict[str, Any] = {
    "tokens": ["env:T1", "env:T2"],
    "retell_keys": ["env:KEY", "env:OLD_KEY"],
    "require": {
        "event": ["signature"],
        "inbound": ["signature"],
        "alert": ["signature"],
        "function": ["signature"],
        "args": ["signature", "token"],
        "tools": ["token"],
        "mcp": ["token"],
    },
}
RPC = tools_call(SLOTS)


def authorization(token: str | bytes) -> bytes:
    return b"Authorization: Bearer " + (token.encode() if isinstance(token, str) else token)


def signed(body: bytes, **more: Any) -> bytes:
    return b"X-Retell-Signature: " + signature(body, **more)


def nothing_arrived(world: World) -> bool:
    return world.mcp.connections == world.webhook.connections == 0


# -- Tokens.


WRONG: dict[str, list[bytes]] = {
    "none": [],
    "a wrong one": [authorization("wrong")],
    "a shorter one": [authorization(TOKEN[:-1])],
    "a longer one": [authorization(TOKEN + "x")],
    "an empty one": [b"Authorization: Bearer "],
    "nothing at all": [b"Authorization:"],
    "another scheme": [f"Authorization: Basic {TOKEN}".encode()],
    "no scheme": [f"Authorization: {TOKEN}".encode()],
    "two, both right": [authorization(TOKEN), authorization(TOKEN)],
    "not ASCII": [authorization(b"t\xc3\xb6ken\xff")],
    "another case": [authorization(TOKEN.upper())],
    "the key of signatures": [authorization(KEY)],
    "a signature instead": [signed(RPC)],
    "8 kB": [authorization("x" * 8000)],
}


@pytest.mark.parametrize("fields", WRONG.values(), ids=WRONG)
@pytest.mark.row("A1")
async def test_without_the_token_nothing_reaches_an_arm(world: World, fields: list[bytes]) -> None:
    """A1: always the same answer, and it does not tell how near one came."""
    sidecar = await world.sidecar(SECRETS, auth=AUTH)

    answer = await sidecar.post("/mcp/call_a", RPC, *fields)

    assert (answer.status, answer.code) == (401, "unauthorised")
    assert answer.value(b"www-authenticate") == b"Bearer"
    assert answer.json["error"]["message"] == "The credentials are missing or wrong."
    assert nothing_arrived(world)
    assert (await sidecar.metrics()).total("auth_failures_total") == 1


@pytest.mark.parametrize("token", [TOKEN, BACKUP])
@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
@pytest.mark.row("A2")
async def test_each_token_opens(world: World, token: str, scheme: str) -> None:
    sidecar = await world.sidecar(SECRETS, auth=AUTH)

    answer = await sidecar.post("/mcp/call_a", RPC, f"Authorization: {scheme} {token}".encode())

    assert (answer.status, answer.arm) == (200, "mcp")
    assert b"authorization" not in world.mcp.seen[-1].names


@pytest.mark.row("A2")
async def test_tokens_rotate_by_reload_and_no_valid_request_fails(world: World) -> None:
    """A2: a file that changes, and a signal; the connections stay."""
    file = world.folder / "token"
    file.write_text("first-token\n")
    auth = {"tokens": [f"file:{file}"], "require": {"tools": ["token"], "mcp": ["token"]}}
    sidecar = await world.sidecar(auth=auth)
    got: list[Answer] = []
    stop = asyncio.Event()

    async def caller() -> None:
        while not stop.is_set():
            got.append(
                await sidecar.post("/mcp/call_a", RPC, authorization(file.read_text().strip()))
            )

    assert (await sidecar.post("/mcp/call_a", RPC, authorization("first-token"))).status == 200
    assert (await sidecar.post("/mcp/call_a", RPC, authorization("second-token"))).status == 401
    file.write_text("second-token\n")
    assert await sidecar.app.rules_watch.reload(force=True)
    calling = asyncio.create_task(caller())
    await until(lambda: len(got) > 20, "some calls")
    old = await sidecar.post("/mcp/call_a", RPC, authorization("first-token"))
    stop.set()
    await calling

    assert {answer.status for answer in got} == {200}
    assert old.status == 401


# -- Signatures.


def flipped(proof: bytes) -> bytes:
    return proof[:-1] + (b"1" if proof.endswith(b"0") else b"0")


NOW_WRONG: dict[str, list[bytes] | Any] = {
    "none": lambda body: [],
    "of another body": lambda body: [signed(body + b" ")],
    "of another key": lambda body: [signed(body, key="key_other")],
    "one bit flipped": lambda body: [flipped(signed(body))],
    "in upper case": lambda body: [b"X-Retell-Signature: " + signature(body).upper()],
    "cut": lambda body: [signed(body)[:-1]],
    "twice": lambda body: [signed(body), signed(body)],
    "not ASCII": lambda body: [b"X-Retell-Signature: v=1,d=\xff\xfe"],
    "empty": lambda body: [b"X-Retell-Signature:"],
    "plain HMAC": lambda body: [b"X-Retell-Signature: " + signature(body).partition(b"d=")[2]],
    "long ago": lambda body: [signed(body, wall_ms=time.time_ns() // 1_000_000 - 301_000)],
    "long ahead": lambda body: [signed(body, wall_ms=time.time_ns() // 1_000_000 + 301_000)],
    "in seconds": lambda body: [signed(body, wall_ms=time.time_ns() // 1_000_000_000)],
    "of a huge time": lambda body: [signed(body, wall_ms=10**30)],
    "under another name": lambda body: [signed(body).replace(b"Retell-", b"Retell_")],
    "a token instead": lambda body: [authorization(TOKEN)],
}  # fmt: skip


@pytest.mark.parametrize("fields", NOW_WRONG.values(), ids=NOW_WRONG)
@pytest.mark.row("A4", "A5", "A6")
async def test_without_retells_signature_nothing_reaches_an_arm(world: World, fields: Any) -> None:
    """A4, A5, A6."""
    body = event()
    sidecar = await world.sidecar(SECRETS, auth=AUTH)

    answer = await sidecar.post("/retell", body, *fields(body))

    assert (answer.status, answer.code) == (401, "unauthorised")
    assert nothing_arrived(world)


SIGNED_BODIES = {
    "spaced": b'{ "event":"call_ended" ,\n "call":{"call_id" : "a"} }\r\n',
    "escaped": b'{"event":"call_ended","call":{"call_id":"\\u0061"},"t":"\\/"}',
    "UTF-8": '{"event":"call_ended","call":{"call_id":"ü"}}'.encode(),
    "gzip": gzip.compress(event(), mtime=0),
    "empty": b"",
    "unknown shape": b"[1,2]",
}


@pytest.mark.parametrize("body", SIGNED_BODIES.values(), ids=SIGNED_BODIES)
@pytest.mark.parametrize("key", [KEY, "key_before_rotation"], ids=["key", "old key"])
@pytest.mark.parametrize("age", [0, -299_000, 299_000])
@pytest.mark.row("A4")
async def test_a_signature_holds_over_the_raw_bytes(
    world: World, body: bytes, key: str, age: int
) -> None:
    """A4.  An unknown shape needs every rule of its path together: here also the token."""
    sidecar = await world.sidecar(SECRETS, auth=AUTH)
    proof = signed(body, key=key, wall_ms=time.time_ns() // 1_000_000 + age)

    answer = await sidecar.post("/retell", body, proof, authorization(TOKEN))

    assert answer.status == 200
    assert world.webhook.seen[0].body == body


async def test_an_unknown_shape_needs_every_rule_of_its_path(world: World) -> None:
    """Or a shape nobody foresaw would be the way in."""
    body = b"[1,2]"
    sidecar = await world.sidecar(SECRETS, auth=AUTH)

    alone = await sidecar.post("/retell", body, signed(body))

    assert alone.status == 401
    assert nothing_arrived(world)


@pytest.mark.row("E3")
async def test_a_path_out_of_reach_is_refused_before_its_body(world: World) -> None:
    sidecar = await world.sidecar(SECRETS, auth=AUTH)
    client = await sidecar.connect()
    head = (
        b"POST /mcp HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\nExpect: 100-continue\r\n\r\n"
    )

    answer = await client.ask(head)

    assert (answer.status, answer.value(b"connection")) == (401, b"close")


@pytest.mark.parametrize(
    ("target", "body", "fields", "status"),
    [
        (f"/retell/fn/{SLOTS}", b"{}", [authorization(TOKEN)], 200),
        (f"/retell/fn/{SLOTS}", b"{}", [signed(b"{}")], 200),
        (f"/retell/fn/{SLOTS}", b"{}", [], 401),
        (f"/retell/fn/{SLOTS}", function(SLOTS), [authorization(TOKEN)], 401),
        (f"/retell/fn/{SLOTS}", function(SLOTS), [signed(function(SLOTS))], 200),
        ("/retell", function(SLOTS), [signed(function(SLOTS))], 200),
        ("/retell", RPC, [signed(RPC)], 401),
        ("/retell", RPC, [authorization(TOKEN)], 200),
        ("/api/mcp/retell/tools", b'{"tool":"t"}', [authorization(BACKUP)], 200),
        ("/api/mcp/retell/tools", b'{"tool":"t"}', [signed(b'{"tool":"t"}')], 401),
    ],
)
async def test_each_kind_has_its_own_requirement(
    world: World, target: str, body: bytes, fields: list[bytes], status: int
) -> None:
    sidecar = await world.sidecar(SECRETS, auth=AUTH)

    answer = await sidecar.post(target, body, b"X-Call-ID: call_a", *fields)

    assert answer.status == status
    if status == 401:
        assert nothing_arrived(world)


async def test_both_can_be_asked_for(world: World) -> None:
    auth = {**AUTH, "require": {"event": {"all": ["token", "signature"]}}}
    sidecar = await world.sidecar(SECRETS, auth=auth)
    body = event()

    assert (await sidecar.post("/retell", body, signed(body))).status == 401
    assert (await sidecar.post("/retell", body, authorization(TOKEN))).status == 401
    assert (await sidecar.post("/retell", body, signed(body), authorization(TOKEN))).status == 200


@pytest.mark.row("A8")
async def test_no_secret_shows_anywhere(world: World) -> None:
    """A8."""
    sidecar = await world.sidecar(SECRETS, auth=AUTH)
    body = event(from_number="+14155550100", transcript="my card is 4111")
    for fields in ([], [signed(body)], [authorization(TOKEN)], [authorization("nearly")]):
        await sidecar.post("/retell", body, *fields)

    pages = [
        (await sidecar.admin(page)).body.decode()
        for page in ("/status", "/config", "/metrics", "/breakers", "/explain?call_id=a")
    ]
    lines = str(await sidecar.lines(4))
    log = sidecar.log
    for secret in (*SECRETS.values(), "nearly", "14155550100", "4111"):
        assert not [page for page in pages if secret in page]
        assert secret not in lines
        assert secret not in log


# -- Addresses.


@pytest.mark.row("A7")
async def test_a_strange_address_is_turned_away_whatever_it_presents(world: World) -> None:
    """A7."""
    sidecar = await world.sidecar(SECRETS, auth={**AUTH, "allow": ["192.0.2.0/24"]})

    answer = await sidecar.post("/mcp", RPC, authorization(TOKEN))

    assert (answer.status, answer.code) == (403, "address_not_allowed")
    assert nothing_arrived(world)


@pytest.mark.row("H5")
@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"192.0.2.7", 200),
        (b"6.6.6.6, 192.0.2.7", 200),
        (b"192.0.2.7, 6.6.6.6", 403),
        (b"unknown", 403),
        (b"x" * 5000, 403),
        (b"::ffff:192.0.2.7", 200),
    ],
)
async def test_behind_a_trusted_proxy_the_clients_own_address_counts(
    world: World, said: bytes, status: int
) -> None:
    """H5: the last hop that no trusted proxy added, never what the client wrote before it."""
    sidecar = await world.sidecar(
        listen={"trusted_proxies": ["127.0.0.1/32"]}, auth={"allow": ["192.0.2.0/24"]}
    )

    answer = await sidecar.post("/retell", event(), b"X-Forwarded-For: " + said)

    assert answer.status == status
    if status == 200:
        assert world.webhook.seen[0].values(b"x-forwarded-for") == [b"192.0.2.7"]


# -- Limits.


@pytest.mark.row("L11")
async def test_a_tool_over_its_limit_hears_a_sentence(world: World) -> None:
    """A 429 would be a broken tool to the agent, and a try again to Retell."""
    sidecar = await world.sidecar(limits={"tools_per_minute": 3, "burst": 1})

    got = [await sidecar.call(BOOK, f"id_{n}") for n in range(4)]
    other = await sidecar.call(SLOTS, "other")
    rpc = [await sidecar.post("/mcp/x", tools_call(BOOK)) for _ in range(2)]

    assert [answer.arm for answer in got] == ["mcp"] * 3 + ["none"]
    assert (got[3].status, got[3].json["success"], got[3].reason) == (200, False, "last_answer")
    assert "cannot reach" in got[3].json["message"]
    assert other.arm == "mcp"
    assert rpc[1].json["result"]["isError"] is True
    assert len([seen for seen in world.mcp.tools if BOOK.encode() in seen.body]) == 3
    metrics = await sidecar.metrics()
    assert metrics.total("rate_limited_total", scope="tool") == 3
    (line,) = [one for one in await sidecar.lines(4) if one["code"]][:1]
    assert (line["code"], line["outcome"]) == ("tool_limit", "last_answer")


async def test_a_credentials_tools_do_not_use_up_anothers(world: World) -> None:
    sidecar = await world.sidecar(SECRETS, auth=AUTH, limits={"tools_per_minute": 1, "burst": 1})

    first = [await sidecar.post("/mcp/a", RPC, authorization(TOKEN)) for _ in range(2)]
    second = await sidecar.post("/mcp/a", RPC, authorization(BACKUP))

    assert [answer.arm for answer in (*first, second)] == ["mcp", "none", "mcp"]


@pytest.mark.row("L11")
async def test_an_address_over_its_limit_is_told_when_to_come_back(world: World) -> None:
    sidecar = await world.sidecar(limits={"ip_per_minute": 3, "burst": 1})

    got = [await sidecar.post("/retell", event(call_id=f"id_{n}")) for n in range(5)]

    assert [answer.status for answer in got] == [200] * 3 + [429] * 2
    assert got[3].code == "ip_limit"
    assert 0 < int(got[3].value(b"retry-after") or 0) <= 60
    assert len(world.webhook.seen) == 3
    assert (await sidecar.metrics()).total("rate_limited_total", scope="ip") == 2


async def test_the_address_limit_spares_whoever_proves_himself(world: World) -> None:
    """Retell calls from one address."""
    sidecar = await world.sidecar(SECRETS, auth=AUTH, limits={"ip_per_minute": 2, "burst": 1})

    good = []
    for number in range(6):
        body = event(call_id=f"id_{number}")
        good.append((await sidecar.post("/retell", body, signed(body))).status)
        good.append((await sidecar.post("/mcp/a", RPC, authorization(TOKEN))).status)
    bad = [(await sidecar.post("/mcp/a", RPC)).status for _ in range(4)]
    still = await sidecar.post("/mcp/a", RPC, authorization(TOKEN))

    assert set(good) == {200}
    assert bad == [401, 401, 429, 429]
    assert still.status == 200


# -- Size.


MB = 2**20


async def ask_head(sidecar: Sidecar, head: bytes) -> tuple[Answer, bool]:
    """The answer to a head alone, and whether the connection was closed behind it."""
    client = await sidecar.connect()
    answer = await client.ask(head)
    return answer, await client.closed()


@pytest.mark.row("L1")
async def test_a_declared_size_over_the_limit_is_refused_at_once(world: World) -> None:
    """L1: nothing of the body is waited for."""
    sidecar = await world.sidecar()
    head = b"POST /retell HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (10 * MB + 1)

    answer, closed = await ask_head(sidecar, head)

    assert (answer.status, answer.code, closed) == (413, "body_too_large", True)
    assert nothing_arrived(world)


@pytest.mark.row("L2")
async def test_chunks_are_refused_on_crossing_the_limit(world: World) -> None:
    """L2."""
    sidecar = await world.sidecar(listen={"body_limit": "1MB"})
    client = await sidecar.connect()
    chunk = b"10000\r\n" + b"x" * 65_536 + b"\r\n"

    await client.send(b"POST /retell HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    for _ in range(17):
        await client.send(chunk)
    answer = await client.answer()

    assert (answer.status, answer.code) == (413, "body_too_large")
    assert answer.value(b"connection") == b"close"
    assert nothing_arrived(world)


@pytest.mark.row("L3")
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunks"])
async def test_exactly_the_limit_passes(world: World, chunked: bool) -> None:
    """L3."""
    start = b'{"event":"call_ended","call":{"call_id":"a"},"t":"'
    body = start + b"x" * (10 * MB - len(start) - 2) + b'"}'
    sidecar = await world.sidecar()

    answer = await sidecar.ask(request("POST", "/retell", body, JSON, chunked=chunked))

    assert len(body) == 10 * MB
    assert answer.status == 200
    assert world.webhook.seen[0].body == body


@pytest.mark.row("L4")
async def test_a_bomb_is_relayed_as_it_is(world: World) -> None:
    """L4: nobody here unpacks it."""
    bomb = gzip.compress(b"\0" * 50_000_000)
    sidecar = await world.sidecar()

    answer = await sidecar.post("/retell", bomb, b"Content-Encoding: gzip")

    assert answer.status == 200
    assert world.webhook.seen[0].body == bomb


@pytest.mark.row("L4")
@pytest.mark.parametrize("field", [b"Content-Encoding: gzip", b"Content-Type: text/plain"])
@pytest.mark.parametrize("target", ["/mcp", "/mcp/call_a", "/api/mcp/retell/tools"])
async def test_what_must_be_read_and_cannot_be_is_refused(
    world: World, target: str, field: bytes
) -> None:
    """L4: before the body is asked for; MCP's callers hear it in JSON-RPC."""
    sidecar = await world.sidecar()

    answer = await sidecar.ask(request("POST", target, b"{}", field))

    assert answer.status == 415
    assert answer.about["code"] == "unsupported_media_type"
    assert ("jsonrpc" in answer.json) == target.startswith("/mcp")
    assert nothing_arrived(world)


@pytest.mark.row("L4")
@pytest.mark.parametrize(("target", "body"), [("/retell", event()), ("/retell/fn/book", b"{}")])
async def test_what_need_not_be_read_goes_on_whatever_it_says(
    world: World, target: str, body: bytes
) -> None:
    """L4."""
    sidecar = await world.sidecar()

    answer = await sidecar.ask(
        request("POST", target, body, b"Content-Type: text/plain", b"Content-Encoding: x")
    )

    assert answer.status == 200
    assert not nothing_arrived(world)


TOO_MUCH = {
    "a long field": (request("POST", "/retell", b"", b"X-A: " + b"x" * 9000), 431),
    "many fields": (request("POST", "/retell", b"", *[b"X-%d: 1" % n for n in range(130)]), 431),
    "a long target": (request("POST", "/retell?" + "x" * 9000, b""), 414),
}


@pytest.mark.row("L5")
@pytest.mark.parametrize(("raw", "status"), TOO_MUCH.values(), ids=TOO_MUCH)
async def test_a_head_too_large_is_refused(world: World, raw: bytes, status: int) -> None:
    """L5."""
    sidecar = await world.sidecar()

    answer, closed = await ask_head(sidecar, raw)

    assert (answer.status, closed) == (status, True)
    assert nothing_arrived(world)


def raw(*lines: bytes, body: bytes = b"", first: bytes = b"POST /retell HTTP/1.1") -> bytes:
    return b"\r\n".join((first, *lines, b"", body))


CHUNKED, EMPTY, NONE = b"Transfer-Encoding: chunked", b"0\r\n\r\n", b"Content-Length: 0"
BROKEN = {
    "two lengths": raw(b"Host: a", b"Content-Length: 2", b"Content-Length: 3", body=b"{}"),
    "length and chunks": raw(b"Host: a", b"Content-Length: 2", CHUNKED, body=EMPTY),
    "gzip, chunked": raw(b"Host: a", b"Transfer-Encoding: gzip, chunked", body=EMPTY),
    "no host": raw(NONE),
    "two hosts": raw(b"Host: a", b"Host: b", NONE),
    "a bare line feed": b"POST /retell HTTP/1.1\nHost: a\nContent-Length: 0\n\n",
    "a control byte": raw(b"Host: a", b"X: a\x01b", NONE),
    "another origin": raw(b"Host: a", NONE, first=b"POST http://evil.test/retell HTTP/1.1"),
    "HTTP/2": raw(b"Host: a", NONE, first=b"POST /retell HTTP/2.0"),
    "noise": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03secret-noise\r\n\r\n",
}


@pytest.mark.parametrize("sent", BROKEN.values(), ids=BROKEN)
async def test_broken_framing_is_refused_and_accounted_for(world: World, sent: bytes) -> None:
    sidecar = await world.sidecar()

    answer, closed = await ask_head(sidecar, sent)

    assert answer.status in (400, 421, 501, 505)
    assert closed
    error = answer.json["error"]
    assert error["request_id"].encode() == answer.value(b"x-request-id")
    assert b"secret" not in answer.body
    assert nothing_arrived(world)
    (line,) = await sidecar.lines(1)
    assert (line["outcome"], line["status"]) == ("refused", answer.status)
    assert line["request_id"] == error["request_id"]
    assert (await sidecar.metrics()).total("requests_total", outcome="refused") == 1


@pytest.mark.row("L7")
async def test_a_body_that_does_not_come_is_waited_for_only_so_long(world: World) -> None:
    """L7."""
    sidecar = await world.sidecar(listen={"body_timeout": "200ms"})
    head = b"POST /retell HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n{"

    answer, _ = await ask_head(sidecar, head)

    assert (answer.status, answer.code) == (408, "body_timeout")
    assert nothing_arrived(world)


@pytest.mark.row("L6", "L8")
async def test_connections_that_say_nothing_are_closed_in_time(world: World) -> None:
    """L6, L8: one that never spoke, one that stopped in its head, one between two requests."""
    sidecar = await world.sidecar(listen={"header_timeout": "150ms", "idle_timeout": "200ms"})
    silent, half, idle = [await sidecar.connect() for _ in range(3)]

    await half.send(b"POST /retell HTTP/1.1\r\nHo")
    answer = await idle.ask(request("POST", "/retell", event()))

    assert answer.value(b"connection") is None
    assert await silent.closed()
    assert await idle.closed()
    assert ((await half.answer()).status, await half.closed()) == (408, True)
    assert len(await sidecar.lines(2)) == 2


@pytest.mark.row("L10")
async def test_many_idle_connections_hold_up_nobody(world: World) -> None:
    """L10."""
    sidecar = await world.sidecar()
    for _ in range(40):
        await asyncio.gather(*[sidecar.connect() for _ in range(50)])

    assert (await sidecar.admin("/ready")).status == 200
    assert (await sidecar.call(SLOTS)).arm == "mcp"
    assert (await sidecar.status())["connections"] == 2001


@pytest.mark.row("H4")
@pytest.mark.parametrize("protocol", [b"websocket", b"h2c"])
async def test_nobody_gets_a_tunnel_by_asking_for_one(world: World, protocol: bytes) -> None:
    """H4: an ordinary answer, the whole body, and nothing of the wish goes on."""
    sidecar = await world.sidecar()
    wish = [b"Connection: Upgrade", b"Upgrade: " + protocol, b"Sec-WebSocket-Version: 13"]

    answer = await sidecar.post("/retell", event(), *wish)
    socket = await sidecar.get("/llm/call_a", *wish)

    assert (answer.status, socket.status) == (200, 501)
    (seen,) = world.webhook.seen
    assert seen.body == event()
    assert not seen.names & {b"upgrade", b"connection"}


@pytest.mark.row("H5", "H6")
async def test_a_trusted_proxy_tells_what_its_client_asked_for(world: World) -> None:
    sidecar = await world.sidecar(listen={"trusted_proxies": ["127.0.0.1/32"]})
    told = [b"X-Forwarded-Proto: https", b"X-Forwarded-Host: voice.example"]

    await sidecar.post("/retell", event(), b"X-Forwarded-For: 203.0.113.9", *told)

    (seen,) = world.webhook.seen
    assert seen.values(b"x-forwarded-for") == [b"203.0.113.9"]
    assert seen.values(b"x-forwarded-proto") == [b"https"]
    assert seen.values(b"x-forwarded-host") == [b"voice.example"]
    (line,) = await sidecar.lines(1)
    assert line["peer"] == "203.0.113.9"


@pytest.mark.row("E1", "E3")
async def test_a_body_is_asked_for_only_once_it_is_welcome(world: World) -> None:
    """E1, E3."""
    sidecar = await world.sidecar()
    client = await sidecar.connect()
    body = event()
    head = request("POST", "/retell", body, b"Expect: 100-continue")[: -len(body)]

    await client.send(head)
    interim = await client.reader.readuntil(b"\r\n\r\n")
    answer = await client.ask(body)
    refused, _ = await ask_head(
        sidecar, head.replace(b"Content-Length: %d" % len(body), b"Content-Length: 99999999")
    )

    assert interim == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert answer.status == 200
    assert b"expect" not in world.webhook.seen[0].names
    assert refused.status == 413


async def test_a_trailer_is_never_a_header_not_even_the_next_ones(world: World) -> None:
    """F12: behind a proxy that shares connections, the next request is somebody else's."""
    sidecar = await world.sidecar(SECRETS, auth=AUTH)
    chunks = raw(b"Host: a", CHUNKED, body=b"2\r\n{}\r\n0\r\n")
    proof = authorization(TOKEN) + b"\r\n"

    for trailer in (proof, b"X-Mine: 1\r\n" + proof):
        client = await sidecar.connect()
        await client.send(chunks.replace(b"/retell", b"/mcp/a") + trailer + b"\r\n")
        await client.send(request("POST", "/mcp/a", RPC))
        statuses = [(await client.answer()).status for _ in range(2)]
        assert statuses == [401, 401]

    assert nothing_arrived(world)


async def test_pipelined_requests_are_answered_in_order_each_by_its_own_arm(world: World) -> None:
    """F19, F20."""
    override = {"when": {"agent_id": {"in": ["old"]}}, "to": "webhook"}
    sidecar = await world.sidecar(split={"overrides": [override]})
    agents = ["old" if number % 3 else "new" for number in range(30)]
    client = await sidecar.connect()

    bodies = [function(SLOTS, f"id_{n}", agent_id=agent) for n, agent in enumerate(agents)]
    await client.send(b"".join(request("POST", "/retell", body) for body in bodies))
    got = [(await client.answer()).arm for _ in agents]

    assert got == ["webhook" if agent == "old" else "mcp" for agent in agents]
