"""What is said for one leg ends with it, and nobody speaks in our name.  Rows H1-H7.

Each request goes three ways: as an event to a webhook that gets the caller's own bytes, as a page,
and as a function that an MCP server hears in its own words.
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.functional.conftest import World
from tests.functional.kit import SLOTS, Sidecar, event, function, tools_call
from tests.functional.test_edge import AUTH, SECRETS, TOKEN, authorization
from tests.functional.wire import (
    JSON,
    Answer,
    Seen,
    answers,
    request,
    response,
    says,
)

TARGETS = {"event": "/retell", "page": "/page?q=1", "function": "/retell"}
ways = pytest.mark.parametrize("way", TARGETS)
THROUGH: dict[str, Any] = {"passthrough": "webhook"}


async def sent(
    world: World, sidecar: Sidecar, way: str, *fields: bytes, chunked: bool = False
) -> tuple[Answer, Seen]:
    """What the caller hears, and what the arm saw."""
    body = function(SLOTS) if way == "function" else event("transcript_updated")
    answer = await sidecar.ask(request("POST", TARGETS[way], body, *fields, chunked=chunked))
    return answer, world.mcp.tools[-1] if way == "function" else world.webhook.seen[-1]


# -- One leg only.


NOMINATED = {
    "one": [b"Connection: close, X-S", b"X-S: 1"],
    "in another case": [b"connection: x-s", b"X-S: 1"],
    "in two fields": [b"Connection: keep-alive", b"X-S: 1", b"Connection: X-S"],
    "twice": [b"Connection: X-S", b"X-S: 1", b"X-S: 2"],
    "among nothing": [b"Connection: , ,X-S,,", b"X-S: 1"],
    "by its twin": [b"Connection: X-S", b"X_S: 1"],
}


@pytest.mark.row("H1")
@ways
async def test_what_connection_names_goes_no_further(world: World, way: str) -> None:
    sidecar = await world.sidecar(**THROUGH)
    for name, fields in NOMINATED.items():
        answer, seen = await sent(world, sidecar, way, *fields)

        assert answer.status == 200
        assert seen.names.isdisjoint({b"connection", b"x-s", b"x_s"}), name


@pytest.mark.row("H1")
@pytest.mark.parametrize("way", ["event", "page"])
async def test_what_an_arms_connection_names_goes_no_further(world: World, way: str) -> None:
    sidecar = await world.sidecar(**THROUGH)
    for name, fields in NOMINATED.items():
        theirs = [field.replace(b"X_S", b"X-S") for field in fields]
        world.webhook.play = says(response(b"{}", *theirs[:-1], b"X-Fine: 1", theirs[-1]))

        answer, _ = await sent(world, sidecar, way)

        assert answer.names.isdisjoint({b"connection", b"x-s"}), name
        assert answer.values(b"x-fine") == [b"1"]


NEEDED = b"""X-Forwarded-For, X-Forwarded-Host, X-Forwarded-Proto, Authorization,
 X-Retell-Signature, Content-Length, Transfer-Encoding, Host, X-Request-Id, Traceparent,
 X-Callsplit-Call-Id, X-Callsplit-Attempt, X-Callsplit-Hops, X-Call-Id, Content-Type""".replace(
    b"\n", b""
)


@pytest.mark.row("H2")
@ways
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunks"])
async def test_connection_names_away_nothing_that_we_need(
    world: World, way: str, chunked: bool
) -> None:
    """Host, the length of the body, who asked and for which call: all as without it."""
    sidecar = await world.sidecar(**THROUGH)
    plain, expected = await sent(world, sidecar, way, JSON, b"X-Call-ID: call_a")

    answer, seen = await sent(
        world, sidecar, way, JSON, b"Connection: " + NEEDED, b"X-Call-ID: call_a", chunked=chunked
    )

    assert (answer.status, answer.body, answer.arm) == (plain.status, plain.body, plain.arm)
    assert seen.body == expected.body or way == "function"
    assert seen.values(b"content-length") == [b"%d" % len(seen.body)]
    for name in (b"host", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto",
                 b"x-callsplit-call-id", b"x-callsplit-attempt", b"x-callsplit-hops"):  # fmt: skip
        assert seen.values(name) == expected.values(name), name
    assert len(seen.values(b"x-request-id")) == 1
    assert len(seen.values(b"traceparent")) == 1


@pytest.mark.row("H2")
@pytest.mark.parametrize(("token", "status"), [(TOKEN, 200), ("wrong", 401)])
async def test_connection_names_nobodys_token_away(world: World, token: str, status: int) -> None:
    """Neither is who has it refused, nor who has not let in; and the arm's own one is sent."""
    sidecar = await world.sidecar(
        {**SECRETS, "UP": "upstream-token"}, auth=AUTH, backends={"mcp": {"bearer": "env:UP"}}
    )
    nominated = b"Connection: Authorization, Content-Length, Host"

    answer = await sidecar.post(
        "/mcp/call_a", tools_call(SLOTS), authorization(token), nominated, JSON
    )

    assert answer.status == status
    if status == 200:
        assert world.mcp.tools[0].values(b"authorization") == [b"Bearer upstream-token"]
    else:
        assert world.mcp.connections == 0


@pytest.mark.row("H2")
@pytest.mark.parametrize("way", ["event", "page"])
async def test_an_arm_names_nothing_of_ours_away(world: World, way: str) -> None:
    nominated = b"Connection: Content-Length, X-Request-Id, X-Callsplit-Arm, X-Callsplit-Reason"
    world.webhook.play = says(response(b"{}", nominated))
    sidecar = await world.sidecar(**THROUGH)

    answer, seen = await sent(world, sidecar, way)

    assert answer.body == b"{}"
    assert answer.arm == "webhook"
    assert answer.values(b"x-request-id") == seen.values(b"x-request-id")


HOPS = [
    b"Connection: keep-alive, Upgrade, HTTP2-Settings",
    b"Keep-Alive: timeout=5, max=1000",
    b"Proxy-Connection: keep-alive",
    b"Proxy-Authorization: Basic YTpi",
    b"Proxy-Authenticate: Basic",
    b"TE: trailers, deflate",
    b"Trailer: X-T",
    b"Upgrade: h2c",
    b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
]


@pytest.mark.row("H3")
@ways
async def test_hop_by_hop_fields_do_not_go_up(world: World, way: str) -> None:
    sidecar = await world.sidecar(**THROUGH)

    answer, seen = await sent(world, sidecar, way, *HOPS)

    assert answer.status == 200
    assert seen.names.isdisjoint({field.partition(b":")[0].lower() for field in HOPS})


UPGRADES = {
    "websocket": [
        b"Connection: Upgrade",
        b"Upgrade: websocket",
        b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ],
    "h2c": [b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMA"],
    "both": [b"Connection: upgrade", b"Upgrade: h2c, websocket"],
    "TLS": [b"Connection: Upgrade", b"Upgrade: TLS/1.2"],
}
TUNNELLED = b"POST /retell HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.row("H4")
@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("fields", UPGRADES.values(), ids=UPGRADES)
async def test_no_wish_opens_a_tunnel(world: World, method: str, fields: list[bytes]) -> None:
    """What follows the request is not carried anywhere as it is: at most it is a request."""
    world.webhook.play = answers(b"page")
    sidecar = await world.sidecar(**THROUGH)
    client = await sidecar.connect()
    body = b"{}" if method == "POST" else None

    await client.send(request(method, "/page", body, *fields) + b"\x00raw\r\n\r\n" + TUNNELLED)
    answer = await client.answer()
    rest = await client.reader.read(-1)

    assert (answer.status, answer.body) == (200, b"page")
    assert answer.names.isdisjoint({b"upgrade", b"sec-websocket-accept"})
    (seen,) = world.webhook.seen
    assert seen.names.isdisjoint({b"upgrade", b"connection", b"http2-settings"})
    assert seen.body == (body or b"")
    assert not rest or rest.startswith(b"HTTP/1.1 400 ")


# -- Where it came from.


ENVOY = {
    # Envoy's documentation, "x-forwarded-for": who the client is behind so many trusted hops.
    "an edge": ([], "127.0.0.1"),
    "one proxy before it": (["127.0.0.1/32"], "203.0.113.1"),
    "two proxies": (["127.0.0.1/32", "203.0.113.1/32"], "203.0.113.10"),
    "three proxies": (["127.0.0.1/32", "203.0.113.1/32", "203.0.113.10/32"], "203.0.113.128"),
    "all of them": (["127.0.0.0/8", "203.0.113.0/24"], "203.0.113.128"),
}
HOPS_TOLD = b"X-Forwarded-For: 203.0.113.128, 203.0.113.10, 203.0.113.1"


@pytest.mark.row("H5")
@ways
@pytest.mark.parametrize(("trusted", "client"), ENVOY.values(), ids=ENVOY)
async def test_the_client_is_found_behind_so_many_trusted_hops(
    world: World, way: str, trusted: list[str], client: str
) -> None:
    sidecar = await world.sidecar(listen={"trusted_proxies": trusted}, **THROUGH)

    _, seen = await sent(world, sidecar, way, HOPS_TOLD)

    assert seen.values(b"x-forwarded-for") == [client.encode()]
    (line,) = await sidecar.lines(1)
    assert line["peer"] == client


@pytest.mark.row("H5")
async def test_a_forged_address_opens_nothing(world: World) -> None:
    """Nobody is a proxy here: the list of addresses is held against the peer."""
    sidecar = await world.sidecar(auth={"allow": ["192.0.2.0/24"]})

    for forged in (b"192.0.2.7", b"192.0.2.7, 127.0.0.1", b"::ffff:192.0.2.7"):
        answer = await sidecar.post("/retell", event(), b"X-Forwarded-For: " + forged)
        assert (answer.status, answer.code) == (403, "address_not_allowed")
    assert world.webhook.connections == 0


@pytest.mark.row("H5", "L11")
@pytest.mark.parametrize("trusted", [[], ["127.0.0.1/32"]], ids=["no proxy", "a proxy"])
async def test_a_forged_address_has_no_rate_of_its_own(world: World, trusted: list[str]) -> None:
    """What a client invents stands left of what the proxy adds: every request is the same one's."""
    sidecar = await world.sidecar(
        listen={"trusted_proxies": trusted}, limits={"ip_per_minute": 3, "burst": 1}
    )

    got = [
        await sidecar.post(
            "/retell", event(call_id=f"id_{n}"), b"X-Forwarded-For: 6.6.6.%d, 192.0.2.7" % n
        )
        for n in range(5)
    ]

    assert [answer.status for answer in got] == [200] * 3 + [429] * 2


@pytest.mark.row("H5")
async def test_two_clients_of_a_proxy_have_two_rates(world: World) -> None:
    sidecar = await world.sidecar(
        listen={"trusted_proxies": ["127.0.0.1/32"]}, limits={"ip_per_minute": 1, "burst": 1}
    )

    got = [
        await sidecar.post(
            "/retell", event("transcript_updated"), b"X-Forwarded-For: 192.0.2.%d" % last
        )
        for last in (7, 8, 7, 8)
    ]

    assert [answer.status for answer in got] == [200, 200, 429, 429]


GARBAGE: dict[str, tuple[list[bytes], str]] = {
    "a word": ([b"unknown"], "127.0.0.1"),
    "nothing": ([b""], "127.0.0.1"),
    "commas": ([b",,,"], "127.0.0.1"),
    "an open end": ([b"192.0.2.7,"], "127.0.0.1"),
    "bytes": ([b"\xff\xfe"], "127.0.0.1"),
    "mapped": ([b"::ffff:1.2.3.4"], "1.2.3.4"),
    "a zone": ([b"fe80::1%eth0"], "fe80::1"),
    "a zone of its own": ([b'fe80::1%"><script>'], "fe80::1"),
    "a port": ([b"192.0.2.7:99999"], "192.0.2.7"),
    "IPv6 and a port": ([b"[2001:db8::1]:443"], "2001:db8::1"),
    "too large": ([b"300.300.300.300"], "127.0.0.1"),
    "octal": ([b"0300.0.2.7"], "127.0.0.1"),
    "a number": ([b"3221225985"], "127.0.0.1"),
    "two fields": ([b"6.6.6.6", b"192.0.2.7"], "192.0.2.7"),
    "8 kB": ([b"1" * 8000], "127.0.0.1"),
    "a thousand hops": ([b",".join([b"1.1.1.1"] * 1000)], "1.1.1.1"),
}


@pytest.mark.row("H5")
async def test_garbage_for_an_address_fails_nothing(world: World) -> None:
    sidecar = await world.sidecar(listen={"trusted_proxies": ["127.0.0.1/32"]}, **THROUGH)
    for name, (values, client) in GARBAGE.items():
        fields = [b"X-Forwarded-For: " + value for value in values]

        answer, seen = await sent(world, sidecar, "page", *fields)

        assert answer.status == 200, name
        assert seen.values(b"x-forwarded-for") == [client.encode()], name


@pytest.mark.row("H5", "L5")
async def test_ten_kilobytes_of_addresses_are_refused(world: World) -> None:
    sidecar = await world.sidecar(listen={"trusted_proxies": ["127.0.0.1/32"]})

    answer = await sidecar.post("/retell", event(), b"X-Forwarded-For: " + b"1.1.1.1," * 1250)

    assert answer.status == 431
    assert world.webhook.connections == 0


CLAIMS = {
    b"X-Forwarded-Host": b"evil.test",
    b"X-Forwarded-Proto": b"https",
    b"X-Forwarded-Port": b"1",
    b"X-Forwarded-Server": b"evil.test",
    b"X-Forwarded-Prefix": b"/admin",
    b"Forwarded": b"for=6.6.6.6;host=evil.test;proto=https",
    b"X-Real-IP": b"6.6.6.6",
    b"X-Original-URL": b"/admin",
    b"X-Rewrite-URL": b"/admin",
    b"X_Forwarded_For": b"6.6.6.6",
    b"X_Forwarded_Host": b"evil.test",
    b"X-Forwarded_Proto": b"https",
    b"X_Real_IP": b"6.6.6.6",
}


@pytest.mark.row("H6")
@ways
@pytest.mark.parametrize("trusted", [[], ["127.0.0.1/32"]], ids=["no proxy", "a proxy"])
async def test_claims_about_the_way_are_rewritten_or_dropped(
    world: World, way: str, trusted: list[str]
) -> None:
    """One word each for who asked, for what and how, of which none is the caller's own."""
    sidecar = await world.sidecar(listen={"trusted_proxies": trusted}, **THROUGH)
    claims = dict(CLAIMS)
    if trusted:  # A proxy's word on these two is believed.
        claims |= {b"X-Forwarded-Host": b"sidecar.test", b"X-Forwarded-Proto": b"http"}

    _, seen = await sent(world, sidecar, way, *[b": ".join(claim) for claim in claims.items()])

    assert seen.values(b"x-forwarded-host") == [b"sidecar.test"]
    assert seen.values(b"x-forwarded-proto") == [b"http"]
    assert seen.values(b"x-forwarded-for") == [b"127.0.0.1"]
    about = {name for name in seen.names if b"forward" in name or b"url" in name or b"real" in name}
    assert about == {b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto"}
    assert b"evil" not in seen.head
    assert b"6.6.6.6" not in seen.head


INTERNAL: dict[bytes, bytes] = {
    b"X-Callsplit-Arm": b"webhook",
    b"X-Callsplit-Reason": b"forced",
    b"X-Callsplit-Call-Id": b"another",
    b"X-Callsplit-Attempt": b"9",
    b"X-Callsplit-Replayed": b"true",
    b"X-Callsplit-Force": b"webhook",
    b"X_Callsplit_Arm": b"webhook",
    b"x-callsplit_call-id": b"another",
    b"X-Request-Id": b"0" * 32,
    b"Idempotency-Key": b"mine",
}


@pytest.mark.row("H7")
@ways
async def test_our_own_words_from_outside_choose_nothing(world: World, way: str) -> None:
    sidecar = await world.sidecar(**THROUGH)
    plain, expected = await sent(world, sidecar, way)

    answer, seen = await sent(
        world, sidecar, way, *[b": ".join(field) for field in INTERNAL.items()]
    )

    assert (answer.arm, answer.status) == (plain.arm, plain.status)
    assert seen.names == expected.names
    assert seen.values(b"x-callsplit-call-id") == expected.values(b"x-callsplit-call-id")
    assert seen.values(b"x-callsplit-attempt") == expected.values(b"x-callsplit-attempt")
    assert seen.values(b"x-request-id") == answer.values(b"x-request-id") != [b"0" * 32]
    assert seen.values(b"idempotency-key") == expected.values(b"idempotency-key")


@pytest.mark.row("H7")
async def test_our_own_word_for_a_call_is_no_calls_id(world: World) -> None:
    """Else a caller could take another call's arm, records and answers."""
    sidecar = await world.sidecar()

    answer = await sidecar.post(
        "/retell", function(SLOTS, None), b"X-Callsplit-Call-Id: call_a", b"X_Call_Id: call_a"
    )

    assert (answer.arm, answer.reason) == ("webhook", "no_call_id")
    (line,) = await sidecar.lines(1)
    assert line["call_id"] is None


@pytest.mark.row("H7")
async def test_an_arm_cannot_speak_in_our_name(world: World) -> None:
    forged: list[Any] = [b": ".join(field) for field in INTERNAL.items()]
    world.webhook.play = says(response(b"{}", *forged, b"X-Fine: 1"))
    sidecar = await world.sidecar(**THROUGH)
    for way in ("event", "page"):
        answer, seen = await sent(world, sidecar, way)

        assert answer.values(b"x-callsplit-arm") == [b"webhook"]
        assert answer.values(b"x-request-id") == seen.values(b"x-request-id")
        assert b"x-callsplit-replayed" not in answer.names
        assert answer.values(b"x-fine") == [b"1"]
