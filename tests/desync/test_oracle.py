"""The oracle finds what it is for: before a proxy that just passes bytes on it cries out."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from tests.desync.oracle import Sort, judge, judge_response
from tests.desync.runs import verdict
from tests.desync.vectors import Vector, ways
from tests.desync.world import Origin, World

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class Tunnel(asyncio.Protocol):
    """Passes every byte on, both ways, unread."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._other: asyncio.Transport | None = None
        self._held = b""
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._here = transport
        task = asyncio.ensure_future(self._connect())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        self._other, _ = await loop.create_connection(
            lambda: _Back(self._here), "127.0.0.1", self._port
        )
        self._other.write(self._held)

    def data_received(self, data: bytes) -> None:
        if self._other is None:
            self._held += data
        else:
            self._other.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._other is not None:
            self._other.abort()


class _Back(asyncio.Protocol):
    def __init__(self, here: asyncio.BaseTransport) -> None:
        self._here = here

    def data_received(self, data: bytes) -> None:
        assert isinstance(self._here, asyncio.Transport)
        self._here.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._here.close()


@pytest.fixture
async def tunnel() -> AsyncIterator[World]:
    """The worst of proxies."""
    origin = Origin()
    await origin.listen()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Tunnel(origin.port), "127.0.0.1", 0)
    world = World(origin, server.sockets[0].getsockname()[1])
    with contextlib.closing(server):
        yield world
        await world.close()
    await origin.close()
    await asyncio.sleep(0.01)


def vector(*steps: bytes, response: bool = False) -> Vector:
    return Vector("here", "one", steps, response=response)


@pytest.mark.parametrize(
    "raw",
    [
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\nX: 1\r\n\r\n",
        b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
async def test_what_is_passed_on_unread_is_a_violation(tunnel: World, raw: bytes) -> None:
    assert (await judge(tunnel, vector(raw))).sort is Sort.VIOLATION


async def test_a_good_request_is_clean_even_there(tunnel: World) -> None:
    found = await judge(tunnel, vector(GET))

    assert (found.sort, found.status, found.state) == (Sort.CLEAN, 200, "Open")


async def test_a_hop_by_hop_field_that_goes_on_is_a_violation(tunnel: World) -> None:
    raw = GET.replace(b"\r\n\r\n", b"\r\nConnection: X-Mine\r\nX-Mine: 1\r\n\r\n")

    assert (await judge(tunnel, vector(raw))).sort is Sort.VIOLATION


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabHTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nab",
        b"HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nab",
    ],
)
async def test_an_answer_that_is_passed_on_unread_is_a_violation(tunnel: World, raw: bytes) -> None:
    found = await judge_response(tunnel, vector(raw, response=True), ours=False)

    assert found.sort is Sort.VIOLATION


def test_a_request_is_sent_to_a_path_of_ours_too() -> None:
    plain, ours = ways(vector(GET.replace(b" / ", b" /x?y ")))

    assert plain.raw.startswith(b"GET /x?y HTTP/1.1\r\nHost: a\r\n\r\n")
    assert ours.raw.startswith(b"GET /retell?x?y HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ")


def test_what_lacks_nothing_but_a_host_is_sent_with_one_too() -> None:
    sent = [one.way for one in ways(vector(b"GET / HTTP/1.1\r\nX: 1\r\n\r\n"))]

    assert sent == ["as it is", "with a Host", "as ours"]


async def test_http11probe_has_the_last_word_on_its_own(tunnel: World) -> None:
    probe = Vector("here", "one", (GET,), passes=frozenset({"400/Open"}), scored=True)

    assert verdict(await judge(tunnel, probe)) == "fail"
