"""TLS on a whole sidecar: callers, upstreams, certificates that change under traffic."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from proxy.errors import RulesError
from tests.authority import Authority, Judging, Pair
from tests.functional.conftest import World
from tests.functional.kit import BOOK, SLOTS, Crowd, Sidecar, function
from tests.functional.wire import (
    Client,
    Origin,
    mcp,
    request,
    runs,
    text,
    until,
)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def listening(pair: Pair, **more: Any) -> dict[str, Any]:
    return {"tls": {"cert_file": str(pair.cert), "key_file": str(pair.key), **more}}


async def connect(sidecar: Sidecar, context: ssl.SSLContext) -> Client:
    opened = asyncio.open_connection(
        "127.0.0.1", sidecar.port, ssl=context, server_hostname="sidecar.test", limit=2**25
    )
    return Client(*await opened)


def asking(tool: str = SLOTS, call_id: str = "call_a") -> bytes:
    return request("POST", "/retell", function(tool, call_id))


def shown(client: Client) -> str:
    """The serial number of the certificate that it was shown."""
    return str(client.writer.get_extra_info("peercert")["serialNumber"])


def serial(pair: Pair) -> str:
    number = f"{pair.certificate.serial_number:X}"
    return number.zfill(len(number) + len(number) % 2)


async def test_calls_come_in_by_tls_and_the_arm_hears_of_it(
    world: World, authority: Authority
) -> None:
    pair = authority.issue(days=90)
    sidecar = await world.sidecar(listen=listening(pair), split={"percent": 0})
    client = await connect(sidecar, authority.caller())
    answer = await client.ask(asking())
    await client.close()

    assert (answer.status, answer.body) == (200, b'{"from":"webhook"}')
    assert world.webhook.seen[0].values(b"x-forwarded-proto") == [b"https"]
    metrics = await sidecar.metrics()
    key = {"key": "listen.tls"}
    assert metrics.total("certificate_expires_timestamp_seconds", **key) == pair.ends
    assert metrics.total("certificate_last_reload_success", **key) == 1
    assert metrics.total("tls_handshakes_total", outcome="ok") == 1
    (line,) = (await sidecar.status())["certificates"]
    assert (line["key"], line["fingerprint"]) == ("listen.tls", pair.fingerprint)


async def test_operators_pages_speak_no_tls(world: World, authority: Authority) -> None:
    """They stand on loopback; what crosses a network needs a tunnel."""
    sidecar = await world.sidecar(listen=listening(authority.issue()))

    assert (await sidecar.admin("/live")).status == 200


# -- Certificates that change.


def calling(
    sidecar: Sidecar, authority: Authority, caller: int
) -> Callable[[Crowd], Coroutine[Any, Any, None]]:
    """Keeps its connection, but for the first one, who comes anew each time."""

    async def call(crowd: Crowd) -> None:
        context = authority.caller()
        client = await connect(sidecar, context)
        number = 0
        while not crowd.over:
            number += 1
            crowd.got.append(await client.ask(asking(SLOTS, f"{caller}-{number}")))
            if caller == 0:
                await client.close()
                client = await connect(sidecar, context)
        await client.close()

    return call


async def look(sidecar: Sidecar) -> None:
    """What the watch does in a second or two."""
    for _ in range(2):
        await sidecar.app.certificates.look()


async def renew(sidecar: Sidecar, new: Pair, old: Pair) -> None:
    new.over(old)
    await look(sidecar)
    assert sidecar.app.certificates.page()[0]["fingerprint"] == new.fingerprint


async def test_a_certificate_changes_under_traffic_and_nobody_notices(
    world: World, authority: Authority
) -> None:
    pair = authority.issue(key=1)
    sidecar = await world.sidecar(listen=listening(pair))
    crowd = Crowd(*[calling(sidecar, authority, caller) for caller in range(5)])
    kept = await connect(sidecar, authority.caller())
    assert shown(kept) == serial(pair)
    for number in range(2):
        newer = authority.issue(key=2 + number)
        await crowd.more(20)
        await renew(sidecar, newer, pair)
        fresh = await connect(sidecar, authority.caller())
        assert shown(fresh) == serial(newer)
        await fresh.close()
    answer = await kept.ask(asking())
    await kept.close()
    got = await crowd.stop()

    assert answer.status == 200
    assert {each.status for each in got} == {200}
    assert len(sidecar.events("certificate_taken")) == 3


async def test_a_bad_pair_and_a_change_of_the_rules_do_not_meet(
    world: World, authority: Authority
) -> None:
    """The share goes down although somebody broke the certificate; then it is mended."""
    pair = authority.issue()
    good = pair.cert.read_bytes()
    sidecar = await world.sidecar(listen=listening(pair))
    pair.cert.write_bytes(b"not yet")
    await look(sidecar)
    assert sidecar.events("certificate_refused")
    assert (await sidecar.metrics()).total("certificate_last_reload_success") == 0
    (line,) = (await sidecar.status())["certificates"]
    assert "no certificate in PEM" in line["fault"]

    await sidecar.write(world.rules(listen=listening(pair), split={"enabled": False}))
    client = await connect(sidecar, authority.caller())
    answer = await client.ask(asking(call_id="new"))
    await client.close()
    pair.cert.write_bytes(good)
    await look(sidecar)

    assert sidecar.app.certificates.page()[0]["fault"] is None
    assert answer.arm == "webhook"
    assert not sidecar.events("rules_refused")


async def test_rules_that_name_files_that_cannot_be_used_are_refused(
    world: World, authority: Authority
) -> None:
    pair = authority.issue()
    sidecar = await world.sidecar(listen=listening(pair))
    broken = listening(pair, client_ca_file="/nobody/has/this.pem")
    await sidecar.write(world.rules(listen=broken, split={"percent": 0}))

    (told,) = sidecar.events("rules_refused")
    assert "listen.tls.client_ca_file: /nobody/has/this.pem cannot be read" in told["faults"][0]
    client = await connect(sidecar, authority.caller())
    assert (await client.ask(asking())).arm == "mcp"
    await client.close()


async def test_tls_goes_on_and_off_by_the_rules(world: World, authority: Authority) -> None:
    sidecar = await world.sidecar()
    plain = await sidecar.connect()
    assert (await plain.ask(asking())).status == 200

    await sidecar.write(world.rules(listen=listening(authority.issue())))
    secure = await connect(sidecar, authority.caller())
    assert (await secure.ask(asking())).status == 200
    assert (await plain.ask(asking())).status == 200
    refused = await Client.connect(sidecar.port)
    await refused.send(asking())
    assert await refused.closed()
    await refused.close()

    await sidecar.write(world.rules())
    again = await sidecar.connect()
    assert (await again.ask(asking())).status == 200
    assert (await secure.ask(asking())).status == 200
    await secure.close()


async def test_callers_without_a_certificate_never_reach_the_edge(
    world: World, authority: Authority, tmp_path: Path
) -> None:
    callers = Authority(tmp_path, "callers")
    pair = authority.issue()
    sidecar = await world.sidecar(listen=listening(pair, client_ca_file=str(callers.ca)))

    client = await connect(sidecar, authority.caller(shows=callers.issue("agent")))
    assert (await client.ask(asking())).status == 200
    await client.close()

    async def without() -> None:
        await (await connect(sidecar, authority.caller())).ask(asking())

    with pytest.raises((OSError, asyncio.IncompleteReadError)):
        await without()
    await until(lambda: sidecar.app.certificates.handshakes()["certificate",])
    assert len(world.mcp.tools) == 1


async def test_a_drain_tells_tls_callers_to_leave(world: World, authority: Authority) -> None:
    sidecar = await world.sidecar(listen=listening(authority.issue()))
    client = await connect(sidecar, authority.caller())
    assert (await client.ask(asking())).values(b"connection") == []
    draining = asyncio.ensure_future(sidecar.app.listener.drain(5.0))
    acceptor = sidecar.app.listener._acceptor
    assert acceptor is not None
    await until(lambda: acceptor.draining)
    answer = await client.ask(asking(call_id="last"))
    assert await draining == 0
    await client.close()

    assert (answer.status, answer.value(b"connection")) == (200, b"close")


# -- Upstreams.


class SecureOrigin(Origin):
    """An origin behind TLS."""

    context: ssl.SSLContext

    async def listen(self) -> None:
        self.url = f"https://localhost:{self.port}"
        self._server = await asyncio.start_server(
            self._accept, sock=self._sock, limit=2**25, backlog=1024, ssl=self.context
        )


@contextlib.asynccontextmanager
async def origin(context: ssl.SSLContext) -> AsyncIterator[SecureOrigin]:
    made = SecureOrigin("secure", mcp(runs(text('{"from":"secure"}'))))
    made.context = context
    await made.listen()
    try:
        yield made
    finally:
        await made.stop()


def arm(made: SecureOrigin, **tls: Any) -> dict[str, Any]:
    files = {key: str(value) for key, value in tls.items()}
    return {"mcp": {"url": f"{made.url}/mcp", "tls": files}}


async def test_an_arm_that_asks_for_our_certificate_gets_it_and_each_new_one(
    world: World, authority: Authority, tmp_path: Path
) -> None:
    """Its CA changes, then our pair: no restart, no call lost."""
    ours, next_ours = Authority(tmp_path, "ours"), Authority(tmp_path, "next")
    pair = ours.issue("callsplit", key=1)
    async with origin(authority.server(asks=ours.ca)) as made:
        backends = arm(made, ca_file=authority.ca, cert_file=pair.cert, key_file=pair.key)
        sidecar = await world.sidecar(backends=backends)
        assert (await sidecar.call(SLOTS, "one")).arm == "mcp"

        made.context.load_verify_locations(cafile=str(next_ours.ca))
        newer = next_ours.issue("callsplit", key=2)
        await renew(sidecar, newer, pair)
        upstream = sidecar.app.wiring.upstreams["mcp"]
        assert upstream.idle == 0
        assert (await sidecar.call(SLOTS, "two")).arm == "mcp"
        assert upstream is sidecar.app.wiring.upstreams["mcp"]
        assert made.connections == 2

        stranger = Authority(tmp_path, "stranger")
        authority.ca.write_bytes(stranger.ca.read_bytes())
        await look(sidecar)
        answer = await sidecar.call(SLOTS, "three")
        assert (answer.arm, answer.reason) == ("webhook", "rescue_connect")


async def test_an_arm_that_refuses_our_certificate_ran_nothing_and_is_rescued(
    world: World, authority: Authority, tmp_path: Path
) -> None:
    """A write, even with TLS 1.3, where the refusal comes after the request has left."""
    theirs, ours = Authority(tmp_path, "theirs"), Authority(tmp_path, "ours")
    pair = ours.issue("callsplit")
    with Judging(authority.server(asks=theirs.ca)) as judging:
        tls = {"ca_file": authority.ca, "cert_file": pair.cert, "key_file": pair.key}
        files = {key: str(value) for key, value in tls.items()}
        backends = {"mcp": {"url": f"{judging.url}/mcp", "tls": files}}
        sidecar = await world.sidecar(backends=backends)
        answer = await sidecar.call(BOOK, "one")

    assert (answer.arm, answer.reason) == ("webhook", "rescue_connect")
    assert judging.read == []


# -- Starts.


async def test_a_certificate_that_cannot_be_used_is_no_start(
    world: World, authority: Authority
) -> None:
    pair = authority.issue()
    process = world.process()
    pair.key.unlink()
    await process.start(world.rules(listen=listening(pair)))

    assert await process.code() == 2
    assert f"listen.tls.key_file: {pair.key} cannot be read" in process.said
    assert "Traceback" not in process.said
    with pytest.raises(RulesError):
        await world.sidecar(listen=listening(pair))


async def test_an_old_certificate_is_warned_of_and_serves(
    world: World, authority: Authority
) -> None:
    pair = authority.issue(days=3.5)
    sidecar = await world.sidecar(listen=listening(pair))

    (told,) = sidecar.events("certificate_expires_soon")
    assert "in 3 days" in told["message"]
    assert any("in 3 days" in each for each in (await sidecar.status())["rules"]["warnings"])


async def test_sighup_reads_the_rules_and_the_files_go_on(
    world: World, authority: Authority
) -> None:
    """A process of its own, from end to end."""
    pair, newer = authority.issue(key=1), authority.issue(key=2)
    process = world.process()
    await process.start(world.rules(listen=listening(pair)))
    await process.up()
    newer.over(pair)
    await until(lambda: len(process.events("certificate_taken")) == 2, "it was taken")
    opened = await asyncio.open_connection(
        "127.0.0.1", process.port, ssl=authority.caller(), server_hostname="sidecar.test"
    )
    client = Client(*opened)

    assert shown(client) == serial(newer)
    assert (await client.ask(asking())).status == 200
    await client.close()
