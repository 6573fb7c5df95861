"""New connections: several addresses, TLS, unix sockets."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

from proxy.adapters.certificates import Side
from proxy.adapters.upstream import Endpoint
from proxy.adapters.upstream.dial import Dialer, _cause
from proxy.adapters.upstream.resolver import Resolver
from proxy.core.rules.tls_ends import TlsEnd
from tests.adapters.upstream.origin import (
    Client,
    Origin,
    Peer,
    answering,
    failing,
    ok,
    post,
    read,
    swallowing,
    until,
)
from tests.authority import Authority, Judging, Pair

Origins = Any


def names(*answers: list[tuple[str, int]]) -> Any:
    """A lookup that gives one answer after the other, the last one for ever."""
    asked = iter(range(1000))

    def lookup(*_: Any, **__: Any) -> list[tuple[Any, ...]]:
        found = answers[min(next(asked), len(answers) - 1)]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", address) for address in found]

    return lookup


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


async def test_the_next_address_is_tried_when_one_refuses(origins: Origins, client: Client) -> None:
    origin = await origins(answering(then=ok(b"second")))
    lookup = names([("127.0.0.1", closed_port()), ("127.0.0.1", origin.port)])
    upstream = client.upstream(0, url="http://app:81", lookup=lookup)
    assert (await client.send(upstream)).body == b"second"


async def test_an_address_that_swallows_leaves_time_for_the_next(
    origins: Origins, client: Client
) -> None:
    origin = await origins(answering(then=ok(b"second")))
    with swallowing() as port:
        lookup = names([("127.0.0.1", port), ("127.0.0.1", origin.port)])
        upstream = client.upstream(0, url="http://app:81", lookup=lookup, connect_timeout=0.4)
        assert (await client.send(upstream)).body == b"second"


async def test_when_all_addresses_fail_a_new_lookup_is_tried_at_once(
    origins: Origins, client: Client
) -> None:
    """A backend that moved: nothing was sent, so the same request may go to its new place."""
    origin = await origins(answering(then=ok(b"moved")))
    lookup = names([("127.0.0.1", closed_port())], [("127.0.0.1", origin.port)])
    upstream = client.upstream(0, url="http://app:81", lookup=lookup)
    assert not (await failing(client.send(upstream))).sent  # Looked up a moment ago.
    client.clock.ahead += 2.0
    assert (await client.send(upstream)).body == b"moved"


async def test_idle_connections_to_an_old_address_close_and_busy_ones_finish(
    origins: Origins, client: Client
) -> None:
    finish = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.request()
        await finish.wait()
        await answering(ok(b"old"), then=ok(b"old"))(peer)

    async def slow(peer: Peer) -> None:
        if b"/slow" in await peer.request():
            await finish.wait()
        await peer.send(ok(b"old"))
        await peer.gone()

    old = await origins(slow)
    new = await origins(answering(then=ok(b"new")))
    lookup = names([("127.0.0.1", old.port)], [("127.0.0.1", new.port)])
    upstream = client.upstream(0, url="http://app:81", lookup=lookup, keepalive=1000.0)
    busy = asyncio.create_task(client.send(upstream, post(target="/slow"), deadline=1e9))
    assert (await client.send(upstream)).body == b"old"
    assert upstream.idle == 1
    client.clock.ahead += 30.0
    await until(lambda: upstream.idle == 0)
    assert (await client.send(upstream)).body == b"new"
    finish.set()
    assert (await busy).body == b"old"
    assert upstream.idle == 1


async def test_a_unix_socket_is_an_upstream_too(client: Client, tmp_path: Path) -> None:
    path = str(tmp_path / "app.sock")
    origin = Origin(answering(then=ok(b"local")))
    server = await asyncio.start_unix_server(origin._accept, path)
    upstream = client.upstream(0, url=f"unix:{path}")
    for _ in range(2):
        assert (await client.send(upstream)).body == b"local"
    assert origin.connections == 1
    await upstream.aclose(0.0)
    server.close()
    missing = client.upstream(0, url=f"unix:{tmp_path}/none")
    assert (await failing(client.send(missing))).why == "connect"


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (ConnectionRefusedError(), "connection refused"),
        (TimeoutError(), "no connection in time"),
        (ssl.SSLError("x"), "TLS handshake failed"),
        (
            ConnectionResetError(104, "Connection reset by peer"),
            "no connection: Connection reset by peer",
        ),
        (OSError(), "no connection: OSError"),
    ],
)
def test_causes_are_told_in_plain_words(error: OSError, text: str) -> None:
    assert _cause(error) == text


# -- TLS.


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


def server(authority: Authority) -> ssl.SSLContext:
    return authority.server(authority.issue("localhost", "app.internal"))


async def test_tls_is_verified_and_its_connections_are_kept(
    origins: Origins, client: Client, authority: Authority
) -> None:
    context = server(authority)
    asked: list[Any] = []
    context.sni_callback = lambda _, name, __: asked.append(name)
    origin = await origins(answering(then=ok(b"secret" * 1000)), ssl=context)
    upstream = client.upstream(0, url=f"https://localhost:{origin.port}", ca_file=authority.ca)
    for _ in range(3):
        assert (await client.send(upstream)).body == b"secret" * 1000
        await asyncio.sleep(0.01)
    assert (asked, upstream.opened_total, origin.connections) == (["localhost"], 1, 1)


async def test_another_name_can_be_verified(
    origins: Origins, client: Client, authority: Authority
) -> None:
    origin = await origins(answering(then=ok()), ssl=server(authority))
    upstream = client.upstream(
        0, url=f"https://127.0.0.1:{origin.port}", ca_file=authority.ca, server_name="app.internal"
    )
    assert (await client.send(upstream)).status == 200


@pytest.mark.parametrize(
    ("trusted", "name"), [(False, "localhost"), (True, "other.internal"), (True, None)]
)
async def test_an_upstream_that_is_not_who_it_should_be_gets_nothing(
    origins: Origins, client: Client, authority: Authority, trusted: bool, name: str | None
) -> None:
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # The origin's own complaint.
    seen: list[bytes] = []

    async def script(peer: Peer) -> None:
        seen.append(await peer.request())

    origin = await origins(script, ssl=server(authority))
    ca, url = authority.ca if trusted else None, f"https://127.0.0.1:{origin.port}"
    upstream = client.upstream(0, url=url, ca_file=ca, server_name=name)
    failure = await failing(client.send(upstream))
    assert (failure.why, failure.sent) == ("connect", False)
    assert failure.detail.startswith("certificate refused")
    assert (seen, upstream.busy) == ([], 0)


async def test_an_upstream_without_tls_was_sent_nothing(
    origins: Origins, client: Client, authority: Authority
) -> None:
    async def script(peer: Peer) -> None:
        await peer.reader.read(10)
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    origin = await origins(script)
    upstream = client.upstream(0, url=f"https://localhost:{origin.port}", ca_file=authority.ca)
    failure = await failing(client.send(upstream))
    assert (failure.why, failure.sent) == ("connect", False)


async def test_a_silent_handshake_ends_in_time(
    origins: Origins, client: Client, authority: Authority
) -> None:
    origin = await origins(lambda peer: peer.gone())
    upstream = client.upstream(
        0, url=f"https://localhost:{origin.port}", ca_file=authority.ca, connect_timeout=0.05
    )
    failure = await failing(client.send(upstream))
    assert (failure.why, failure.sent, upstream.busy) == ("connect", False, 0)


async def test_tls_answers_stream_and_end_with_the_connection(
    origins: Origins, client: Client, authority: Authority
) -> None:
    body = b"x" * 3_000_000

    async def script(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n\r\n" + body)

    origin = await origins(script, ssl=server(authority))
    upstream = client.upstream(0, url=f"https://localhost:{origin.port}", ca_file=authority.ca)
    reply = await client.send(upstream)
    assert not isinstance(reply.body, bytes)
    assert await read(reply) == body
    assert (upstream.busy, upstream.idle) == (0, 0)


# -- Mutual TLS, and certificates that change.


def side(authority: Authority, shows: Pair | None = None, trusts: Path | None = None) -> Side:
    cert, key = (str(shows.cert), str(shows.key)) if shows else (None, None)
    return Side(TlsEnd("backends.mcp.tls", cert, key, str(trusts or authority.ca)), 0)


async def test_an_upstream_that_asks_is_shown_our_certificate(
    origins: Origins, client: Client, authority: Authority, tmp_path: Path
) -> None:
    ours = Authority(tmp_path, "ours")
    shown: list[str] = []

    async def script(peer: Peer) -> None:
        shown.append(peer.writer.get_extra_info("peercert")["subject"][0][0][1])
        await answering(then=ok())(peer)

    origin = await origins(script, ssl=authority.server(asks=ours.ca))
    tls = side(authority, ours.issue("callsplit"))
    upstream = client.upstream(0, url=f"https://localhost:{origin.port}", tls=tls)

    assert (await client.send(upstream)).status == 200
    assert shown == ["callsplit"]


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize("stranger", [False, True])
async def test_an_upstream_that_refuses_our_certificate_has_run_nothing(
    client: Client,
    authority: Authority,
    tmp_path: Path,
    stranger: bool,
    newest: ssl.TLSVersion,
) -> None:
    """With TLS 1.3 it says so after we think ourselves connected, and the request has left."""
    context = authority.server(asks=Authority(tmp_path, "theirs").ca)
    context.maximum_version = newest
    tls = side(authority, Authority(tmp_path, "x").issue("x") if stranger else None)
    with Judging(context) as judging:
        upstream = client.upstream(0, url=judging.url, tls=tls)
        failure = await failing(client.send(upstream))

    assert judging.read == []
    assert (failure.why, failure.sent) == ("connect", False)
    assert "certificate" in failure.detail or newest is ssl.TLSVersion.TLSv1_2


async def test_one_that_hangs_up_after_the_handshake_may_have_run_it(
    origins: Origins, client: Client, authority: Authority
) -> None:
    """Without an alert nobody knows."""

    async def script(peer: Peer) -> None:
        await peer.request()

    origin = await origins(script, ssl=server(authority))
    upstream = client.upstream(0, url=f"https://localhost:{origin.port}", tls=side(authority))
    failure = await failing(client.send(upstream))

    assert (failure.why, failure.sent) == ("reset", True)


async def test_a_renewed_pool_connects_anew_and_lets_finish_what_runs(
    origins: Origins, client: Client, authority: Authority, tmp_path: Path
) -> None:
    finish = asyncio.Event()

    async def script(peer: Peer) -> None:
        while request := await peer.request():
            if b"/slow" in request:
                await finish.wait()
            await peer.send(ok(str(origin.connections).encode()))

    origin = await origins(script, ssl=server(authority))
    tls = side(authority)
    upstream = client.upstream(0, url=f"https://localhost:{origin.port}", tls=tls, keepalive=1e6)
    running = asyncio.create_task(client.send(upstream, post(target="/slow"), deadline=1e9))
    await until(lambda: origin.connections == 1)
    assert (await client.send(upstream)).body == b"2"

    tls.material = side(authority, trusts=Authority(tmp_path, "other").ca).material
    upstream.renew()
    failure = await failing(client.send(upstream))
    finish.set()

    assert failure.detail.startswith("certificate refused")
    assert (await running).status == 200
    assert (upstream.idle, upstream.busy) == (0, 0)


async def test_a_connection_that_was_on_its_way_is_not_kept(
    origins: Origins, client: Client, authority: Authority
) -> None:
    """Its handshake may have been with what is no longer trusted."""
    context = server(authority)
    origin = await origins(answering(then=ok()), ssl=context)
    upstream = client.upstream(0, url=f"https://localhost:{origin.port}", tls=side(authority))
    context.sni_callback = lambda *_: upstream.renew()

    assert (await client.send(upstream)).status == 200
    assert (upstream.idle, upstream.busy) == (0, 0)
    context.sni_callback = None
    assert (await client.send(upstream)).status == 200
    assert upstream.idle == 1


@pytest.mark.parametrize("url", ["https://app", "http://app"])
async def test_tls_is_for_https_and_https_is_never_without(
    url: str, client: Client, authority: Authority
) -> None:
    endpoint = Endpoint.from_url(url)
    resolver = Resolver(endpoint, clock=client.clock, changed=lambda _: None)
    with pytest.raises(ValueError, match="TLS is for https"):
        Dialer(endpoint, resolver, None if url.startswith("https") else side(authority))
