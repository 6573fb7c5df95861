"""TLS on the listener: who gets through, who does not, and what it costs the others."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from proxy.adapters.listener.acceptor import Acceptor, Options
from proxy.adapters.listener.handshake import OUTCOMES, Handshake
from proxy.adapters.tls_files import load
from proxy.core.model import Reply
from proxy.core.rules.tls_ends import LISTENER, TlsEnd
from proxy.ports import Incoming
from tests.adapters.listener.raw import Client, Serve, Served, echo
from tests.authority import Authority, Pair

ASK = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}"


def context_of(pair: Pair, asks: Path | None = None, least: str = "1.2") -> ssl.SSLContext:
    """As it is made of files."""
    ca = str(asks) if asks else None
    end = TlsEnd(LISTENER, str(pair.cert), str(pair.key), ca, server=True, min_version=least)
    return load(end).context


class Shown:
    """What callers are met with, and how their handshakes ended."""

    def __init__(self, context: ssl.SSLContext | None) -> None:
        self.of_callers = context
        self.outcomes: Counter[str] = Counter()

    def shaken(self, outcome: str) -> None:
        assert outcome in OUTCOMES
        self.outcomes[outcome] += 1


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture
def shown(authority: Authority) -> Shown:
    return Shown(context_of(authority.issue()))


async def connect(served: Served, context: ssl.SSLContext, **options: Any) -> Client:
    host, port = served.listener.address
    options = {"server_hostname": "localhost", **options}
    client = Client(*await asyncio.open_connection(host, port, ssl=context, **options))
    served.clients.append(client)
    return client


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.001)


def acceptor_of(served: Served) -> Acceptor:
    acceptor = served.listener._acceptor
    assert acceptor is not None
    return acceptor


class Step:
    """A TLS client whose every segment the test sends itself."""

    def __init__(self, raw: Client, context: ssl.SSLContext) -> None:
        self.raw = raw
        self._in, self.out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self._in, self.out, server_hostname="localhost")

    async def shake(self) -> None:
        """Up to its last flight, which is left unsent in `out`."""
        while True:
            try:
                self.tls.do_handshake()
                return
            except ssl.SSLWantReadError:
                await self.raw.send(self.out.read())
                self._in.write(await self.raw.reader.read(65_536))

    async def read(self) -> bytes:
        while True:
            try:
                return self.tls.read(65_536)
            except ssl.SSLWantReadError:
                got = await self.raw.reader.read(65_536)
                if not got:
                    return b""
                self._in.write(got)


# -- Who gets through.


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_requests_are_answered_and_the_connection_is_kept(
    serve: Serve, shown: Shown, authority: Authority, newest: ssl.TLSVersion
) -> None:
    secure: list[bool] = []

    async def handler(incoming: Incoming) -> Reply:
        secure.append(incoming.secure)
        return await echo(incoming)

    served = await serve(handler, tls=shown)
    context = authority.caller(most=newest)
    context.set_alpn_protocols(["h2", "http/1.1"])
    client = await connect(served, context)
    for _ in range(3):
        await client.send(ASK)
        assert (await client.answer()).body == b"POST /a {}"

    tls = client.writer.get_extra_info("ssl_object")
    assert tls.version() == newest.name.replace("_", ".")
    assert tls.selected_alpn_protocol() == "http/1.1"
    assert tls.cipher()[0].startswith(("TLS_", "ECDHE-"))
    assert (served.listener.open_connections, shown.outcomes) == (1, {"ok": 1})
    assert secure == [True] * 3


async def test_a_request_in_the_segment_that_ends_the_handshake_is_heard(
    serve: Serve, shown: Shown, authority: Authority
) -> None:
    served = await serve(tls=shown)
    step = Step(await served.connect(), authority.caller())
    await step.shake()
    step.tls.write(ASK)
    await step.raw.send(step.out.read())

    assert b"POST /a {}" in await step.read()


async def test_a_hello_that_comes_byte_by_byte_is_heard(
    serve: Serve, shown: Shown, authority: Authority
) -> None:
    served = await serve(tls=shown)
    step = Step(await served.connect(), authority.caller())
    with contextlib.suppress(ssl.SSLWantReadError):
        step.tls.do_handshake()
    for byte in step.out.read():
        await step.raw.send(bytes([byte]))
        await asyncio.sleep(0)
    step._in.write(await step.raw.reader.read(65_536))
    await step.shake()
    step.tls.write(ASK)
    await step.raw.send(step.out.read())

    assert b"POST /a {}" in await step.read()


async def test_a_large_answer_streams(serve: Serve, shown: Shown, authority: Authority) -> None:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(50):
            yield b"x" * 100_000

    async def handler(incoming: Incoming) -> Reply:
        return Reply(200, [], parts())

    served = await serve(handler, tls=shown)
    client = await connect(served, authority.caller())
    await client.send(ASK)

    assert (await client.answer()).body == b"x" * 5_000_000


async def test_a_reader_who_takes_nothing_is_cut(
    serve: Serve, shown: Shown, authority: Authority
) -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 100_000

    async def handler(incoming: Incoming) -> Reply:
        return Reply(200, [], endless())

    served = await serve(handler, tls=shown, write_timeout=0.05)
    client = await connect(served, authority.caller())
    client.reader._transport.pause_reading()  # type: ignore[attr-defined]
    await client.send(ASK)
    await until(lambda: served.listener.inflight == 1)
    await until(lambda: served.listener.open_connections == 0)

    client.abort()


async def test_whoever_does_not_answer_the_goodbye_is_not_waited_for(
    serve: Serve, shown: Shown, authority: Authority
) -> None:
    served = await serve(tls=shown, linger=0.05)
    step = Step(await served.connect(), authority.caller())
    await step.shake()
    step.tls.write(ASK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    await step.raw.send(step.out.read())

    assert b"connection: close" in await step.read()
    await until(lambda: served.listener.open_connections == 0)


# -- Who does not.


async def refusal(served: Served, context: ssl.SSLContext) -> None:
    """A caller who is let in and served at once, or not at all."""

    async def ask() -> None:
        client = await connect(served, context)
        await client.send(ASK)  # With TLS 1.3 the server may refuse what the client thinks done.
        await client.answer()

    with pytest.raises((OSError, asyncio.IncompleteReadError)):
        await ask()


async def test_plain_http_is_no_request(serve: Serve, shown: Shown) -> None:
    served = await serve(tls=shown)
    client = await served.connect()
    await client.send(ASK)

    with contextlib.suppress(ConnectionError):
        assert b"HTTP" not in await client.rest()
    await until(lambda: shown.outcomes == {"plain": 1})
    assert (served.faults, served.listener.open_connections) == ([], 0)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
@pytest.mark.parametrize(
    ("least", "newest"), [("1.2", ssl.TLSVersion.TLSv1_1), ("1.3", ssl.TLSVersion.TLSv1_2)]
)
async def test_older_versions_are_not_spoken(
    serve: Serve, authority: Authority, least: str, newest: ssl.TLSVersion
) -> None:
    shown = Shown(context_of(authority.issue(), least=least))
    served = await serve(tls=shown)
    context = authority.caller(most=newest)
    context.set_ciphers("ALL:@SECLEVEL=0")
    await refusal(served, context)

    await until(lambda: shown.outcomes == {"version": 1})


async def test_weak_ciphers_are_not_spoken(
    serve: Serve, shown: Shown, authority: Authority
) -> None:
    served = await serve(tls=shown)
    context = authority.caller(most=ssl.TLSVersion.TLSv1_2)
    context.set_ciphers("ECDHE-ECDSA-AES128-SHA256:@SECLEVEL=0")
    await refusal(served, context)

    await until(lambda: shown.outcomes == {"version": 1})


async def test_only_callers_with_a_certificate_of_theirs_get_through(
    serve: Serve, authority: Authority, tmp_path: Path
) -> None:
    callers, strangers = Authority(tmp_path, "callers"), Authority(tmp_path, "strangers")
    shown = Shown(context_of(authority.issue(), callers.ca))
    served = await serve(tls=shown)

    await refusal(served, authority.caller())
    await refusal(served, authority.caller(shows=strangers.issue("agent", key=1)))
    await refusal(served, authority.caller(shows=callers.issue("agent", key=1, days=-0.5)))
    await until(lambda: shown.outcomes == {"certificate": 3})
    client = await connect(served, authority.caller(shows=callers.issue("agent", key=1)))
    await client.send(ASK)

    assert (await client.answer()).status == 200
    assert served.faults == []


async def test_callers_who_do_not_like_our_certificate_are_counted(
    serve: Serve, shown: Shown
) -> None:
    """The first sign that a new one is not trusted."""
    served = await serve(tls=shown)
    step = Step(await served.connect(), ssl.create_default_context())
    with pytest.raises(ssl.SSLCertVerificationError):
        await step.shake()
    await step.raw.send(step.out.read())

    await until(lambda: shown.outcomes == {"refused": 1})


async def test_a_caller_who_hangs_up_half_way_leaves_nothing(serve: Serve, shown: Shown) -> None:
    served = await serve(tls=shown)
    for data in (b"", b"\x16\x03\x01\x02\x00\x01"):
        client = await served.connect()
        await client.send(data)
        await until(lambda: acceptor_of(served).shaking)
        client.abort()
        await until(lambda: not acceptor_of(served).shaking)

    assert shown.outcomes == {"closed": 2}
    assert served.listener.open_connections == 0


# -- What it costs.


async def test_a_handshake_has_the_time_of_a_head_and_no_more(serve: Serve, shown: Shown) -> None:
    served = await serve(tls=shown, head_timeout=0.1)
    client = await served.connect()

    assert await client.rest() == b""
    await until(lambda: shown.outcomes == {"timeout": 1})


async def test_a_place_that_a_connection_has_is_not_left_twice(
    serve: Serve, authority: Authority
) -> None:
    """Room is sought between the end of a handshake and that of its task."""

    class Shoved(Shown):
        def shaken(self, outcome: str) -> None:
            super().shaken(outcome)
            asyncio.get_running_loop().call_soon(self.shove)

        def shove(self) -> None:
            for each in acceptor_of(served).shaking:
                if each.rank is not None:
                    each.evict()

    shown = Shoved(context_of(authority.issue()))
    served = await serve(tls=shown)
    client = await connect(served, authority.caller())
    await client.send(ASK)

    assert (await client.answer()).status == 200
    assert served.listener.open_connections == 1
    assert shown.outcomes == {"ok": 1}


async def test_who_comes_when_no_descriptor_is_left_takes_no_place(
    serve: Serve, shown: Shown
) -> None:
    class Poor(asyncio.Transport):
        aborted = False

        def dup(self) -> socket.socket:
            raise OSError(errno.EMFILE, "Too many open files")

        def get_extra_info(self, name: str, default: Any = None) -> Any:
            return {"socket": self, "peername": ("127.0.0.1", 9)}[name]

        def abort(self) -> None:
            self.aborted = True

    served = await serve(tls=shown)
    transport, acceptor = Poor(), acceptor_of(served)
    acceptor().connection_made(transport)

    assert transport.aborted
    assert (acceptor.open, shown.outcomes) == (0, {"crowded": 1})


async def test_the_first_head_has_what_the_handshake_left(
    serve: Serve, shown: Shown, authority: Authority
) -> None:
    """Else a slow caller would have the time twice."""
    served, loop = await serve(tls=shown, head_timeout=30.0), asyncio.get_running_loop()
    step = Step(await served.connect(), authority.caller())
    await until(lambda: acceptor_of(served).shaking)
    latest = loop.time() + 30.0
    await asyncio.sleep(0.02)
    await step.shake()
    await step.raw.send(step.out.read())
    await until(lambda: acceptor_of(served).everybody())
    (connection,) = acceptor_of(served).everybody()
    await until(lambda: connection._waiter is not None)

    assert connection.due <= latest


async def test_a_handshake_takes_a_place_and_there_is_none_beyond_the_last(
    serve: Serve, shown: Shown
) -> None:
    served = await serve(tls=shown, per_address=1)
    await served.connect()
    await until(lambda: acceptor_of(served).shaking)
    assert served.listener.open_connections == 1
    second = await served.connect()
    with contextlib.suppress(ConnectionError):
        assert await second.rest() == b""
    assert shown.outcomes == {"crowded": 1}
    assert served.listener.open_connections == 1


async def test_handshakes_make_room_for_others(
    serve: Serve, shown: Shown, authority: Authority
) -> None:
    served = await serve(tls=shown, connections=3, head_timeout=60.0)
    for _ in range(3):
        await served.connect()
    await until(lambda: len(acceptor_of(served).shaking) == 3)
    good = await connect(served, authority.caller())
    await until(lambda: shown.outcomes["crowded"] == 1)
    await good.send(ASK)

    assert (await good.answer()).status == 200


async def test_whoever_does_not_answer_the_goodbye_makes_room_first(
    serve: Serve, shown: Shown, authority: Authority
) -> None:
    """It has its answer, and all it could do is keep others from theirs."""
    served = await serve(tls=shown, connections=3, linger=60.0, tick=60.0)
    kept = await connect(served, authority.caller())
    steps = []
    for _ in range(2):
        step = Step(await served.connect(), authority.caller())
        await step.shake()
        step.tls.write(ASK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        await step.raw.send(step.out.read())
        steps.append(step)
    for step in steps:
        assert b"connection: close" in await step.read()

    for _ in steps:
        good = await connect(served, authority.caller())
        await good.send(ASK)
        assert (await good.answer()).status == 200
    assert acceptor_of(served).room.let_go == 2
    assert [await step.raw.rest() for step in steps] == [b"", b""]
    await kept.send(ASK)
    assert (await kept.answer()).status == 200


# -- Change.


async def test_new_callers_get_what_is_new_and_the_others_stay(
    serve: Serve, shown: Shown, authority: Authority, tmp_path: Path
) -> None:
    other = Authority(tmp_path, "other")
    served = await serve(tls=shown)
    before = await connect(served, authority.caller())

    shown.of_callers = context_of(other.issue())
    after = await connect(served, other.caller())
    shown.of_callers = None
    plain = await served.connect()

    for client in (before, after, plain):
        await client.send(ASK)
        assert (await client.answer()).status == 200


# -- The end.


async def test_a_drain_waits_for_a_handshake_as_for_an_idle_connection(
    serve: Serve, shown: Shown, authority: Authority
) -> None:
    served = await serve(tls=shown, drain_idle=30.0)
    step = Step(await served.connect(), authority.caller())
    await until(lambda: acceptor_of(served).shaking)
    draining = asyncio.ensure_future(served.listener.drain(30.0))
    await until(lambda: acceptor_of(served).draining)
    await step.shake()
    step.tls.write(ASK)
    await step.raw.send(step.out.read())

    assert b"connection: close" in await step.read()
    step.raw.abort()
    assert await draining == 0


async def test_a_handshake_that_does_not_end_is_cut_by_the_drain(
    serve: Serve, shown: Shown
) -> None:
    served = await serve(tls=shown, drain_idle=0.0)
    client = await served.connect()
    await until(lambda: acceptor_of(served).shaking)

    assert await served.listener.drain(30.0) == 0
    assert await client.rest() == b""
    assert shown.outcomes == {"closed": 1}


class Accepted(asyncio.Transport):
    """A transport that has just been made."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__({"socket": sock, "peername": ("127.0.0.1", 1)})
        self.aborted = False

    def abort(self) -> None:
        self.aborted = True


async def started(acceptor: Acceptor, act: Callable[[Handshake], object]) -> Accepted:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert acceptor.tls is not None
        assert acceptor.tls.of_callers is not None
        handshake, transport = Handshake(acceptor, acceptor.tls.of_callers), Accepted(ours)
        handshake.connection_made(transport)
        act(handshake)
        await until(lambda: not acceptor.shaking)
        await asyncio.sleep(0)
    return transport


async def never(_: Incoming) -> Reply:
    raise AssertionError


async def test_one_that_is_cut_before_it_began_leaves_no_socket_open(shown: Shown) -> None:
    acceptor = Acceptor(never, Reply, Options(), tls=shown)

    transport = await started(acceptor, lambda handshake: handshake.cut())

    assert (transport.aborted, acceptor.open, shown.outcomes) == (True, 0, {"closed": 1})


async def test_nobody_is_shaken_hands_with_once_all_is_over(shown: Shown) -> None:
    acceptor = Acceptor(never, Reply, Options(), tls=shown)
    acceptor.closed = True

    transport = await started(acceptor, lambda handshake: handshake.cut())

    assert (transport.aborted, acceptor.open, shown.outcomes) == (True, 0, {"crowded": 1})
