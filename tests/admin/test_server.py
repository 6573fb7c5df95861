from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

import pytest
from aiohttp import web

from proxy.admin.api import admin_application
from proxy.admin.page import body_of
from proxy.admin.server import MOST, PagesRunner
from tests.fakes import FakeOperations

HEAD = b"Host: 127.0.0.1\r\nAuthorization: Bearer s3cret\r\n"
SECRET = b"s3cret"


class Broken(FakeOperations):
    """Its status page has a bug."""

    def status(self) -> dict[str, object]:
        raise RuntimeError("a bug")


@pytest.fixture
def crashes() -> list[BaseException | None]:
    return []


@pytest.fixture
async def port(crashes: list[BaseException | None]) -> AsyncIterator[int]:
    pages = admin_application(Broken(), token=lambda: SECRET, audit=lambda _: None)
    runner = PagesRunner(pages, crashed=crashes.append)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield runner.addresses[0][1]
    await runner.cleanup()


async def ask(port: int, raw: bytes) -> bytes:
    """Everything that comes until the other side closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(raw)
    answer = await reader.read(-1)
    writer.close()
    await writer.wait_closed()
    return answer


MALFORMED = {
    "a control byte": b"GET /status HTTP/1.1\r\n" + HEAD + b"X: s3cret\x01\r\n\r\n",
    "a token with one": b"GET /status HTTP/1.1\r\nAuthorization: Bearer s3cret\x01\r\n\r\n",
    "no version": b"GET /s3cret \x01\r\n\r\n",
    "noise": b"\x16\x03\x01s3cret\r\n\r\n",
    "two lengths": b"POST /explain HTTP/1.1\r\n" + HEAD
    + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\ns3cret",
    "an expectation": b"POST /explain HTTP/1.1\r\n" + HEAD
    + b"Expect: s3cret\r\nContent-Length: 6\r\nConnection: close\r\n\r\ns3cret",
    "a long line": b"GET /status HTTP/1.1\r\nX: " + SECRET * 4000 + b"\r\n\r\n",
}  # fmt: skip


@pytest.mark.row("A8", "A9", "A10")
@pytest.mark.parametrize("raw", MALFORMED.values(), ids=MALFORMED)
async def test_what_is_malformed_is_answered_without_an_echo_a_version_or_a_log_line(
    port: int, raw: bytes, caplog: pytest.LogCaptureFixture, crashes: list[BaseException | None]
) -> None:
    with caplog.at_level(logging.DEBUG, "aiohttp"):
        answer = await ask(port, raw)

    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.split(b" ")[1] in (b"400", b"417")
    assert body.startswith(b'{"error": {"code": ')
    for word in (SECRET, b"aiohttp", b"Python"):
        assert word not in answer
    assert "s3cret" not in caplog.text
    assert not crashes


@pytest.mark.row("O4")
async def test_a_bug_is_told_to_us_and_not_to_the_caller(
    port: int, crashes: list[BaseException | None]
) -> None:
    answer = await ask(port, b"GET /status HTTP/1.1\r\n" + HEAD + b"\r\n")

    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"internal_error" in answer
    assert b"bug" not in answer
    assert [str(error) for error in crashes] == ["a bug"]


@pytest.mark.row("A10")
async def test_a_compressed_body_is_not_opened(port: int) -> None:
    """A few bytes could be gigabytes."""
    body = b"Content-Encoding: gzip\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc"

    answer = await ask(port, b"POST /explain HTTP/1.1\r\n" + HEAD + body)

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b'"body": 3' in answer


async def test_a_bug_half_way_closes_the_connection(
    crashes: list[BaseException | None],
) -> None:
    async def half(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        await answer.write(b"half")
        raise RuntimeError("a bug")

    pages = web.Application()
    pages.router.add_get("/", half)
    runner = PagesRunner(pages, crashed=crashes.append)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    answer = await ask(runner.addresses[0][1], b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await runner.cleanup()

    assert b"half" in answer
    assert not answer.endswith(b"0\r\n\r\n")
    assert crashes


async def test_a_body_is_still_asked_for_where_it_is_welcome(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    wish = b"Expect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\n"
    writer.write(b"POST /explain HTTP/1.1\r\n" + HEAD + wish)
    assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    writer.write(b"{}")

    assert (await reader.read(-1)).startswith(b"HTTP/1.1 200 ")
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize(("bug", "told"), [(ConnectionResetError, False), (RuntimeError, True)])
async def test_whoever_hangs_up_half_way_is_no_bug(
    bug: type[Exception], told: bool, crashes: list[BaseException | None]
) -> None:
    """Found by fuzzing: anybody could fill the log with tracebacks, and needed no token."""
    asked, failed = asyncio.Event(), asyncio.Event()

    async def read(request: web.Request) -> web.Response:
        asked.set()
        try:
            await request.read()  # It breaks off.
        except ConnectionError:
            failed.set()
            raise bug("Cannot write to closing transport") from None
        return web.Response()

    pages = web.Application()
    pages.router.add_post("/", read)
    runner = PagesRunner(pages, crashed=crashes.append)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    _, writer = await asyncio.open_connection(*runner.addresses[0][:2])
    writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n")
    await asyncio.wait_for(asked.wait(), 10)
    writer.transport.abort()
    await asyncio.wait_for(failed.wait(), 10)
    await asyncio.sleep(0)
    await runner.cleanup()

    assert bool(crashes) is told


LIVE = b"GET /live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
Connected = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def closed_by_us(connected: list[Connected]) -> None:
    for _, writer in connected:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def is_cut(reader: asyncio.StreamReader) -> bool:
    try:
        return await asyncio.wait_for(reader.read(), 10) == b""
    except ConnectionError:
        return True


async def live(connected: Connected) -> bool:
    reader, writer = connected
    writer.write(LIVE)
    answer = await reader.readuntil(b"\r\n\r\n")
    return answer.startswith(b"HTTP/1.1 200 ") and bool(await reader.readuntil(b"}\n"))


async def test_who_only_waits_makes_room_and_nobody_is_refused(port: int) -> None:
    """Found in review: silent connections would have taken every descriptor there is."""
    silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MOST)]
    kubelet = await asyncio.open_connection("127.0.0.1", port)

    assert await live(kubelet)
    assert await is_cut(silent[0][0])
    more = [await asyncio.open_connection("127.0.0.1", port) for _ in range(MOST - 1)]
    assert await live(kubelet)
    for reader, _ in silent[1:]:
        assert await is_cut(reader)

    assert [await live(each) for each in more] == [True] * (MOST - 1)
    await closed_by_us([*silent, kubelet, *more])


async def test_who_is_being_answered_stays_and_who_goes_leaves_room(
    crashes: list[BaseException | None],
) -> None:
    asked, over = asyncio.Semaphore(0), asyncio.Event()

    async def slow(_: web.Request) -> web.Response:
        asked.release()
        await over.wait()
        return web.Response(text="{}\n")

    pages = web.Application()
    pages.router.add_get("/live", slow)
    runner = PagesRunner(pages, crashed=crashes.append)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    where = runner.addresses[0][:2]
    busy = [await asyncio.open_connection(*where) for _ in range(MOST)]
    waiting = [asyncio.create_task(live(each)) for each in busy]
    for _ in range(MOST):
        await asked.acquire()

    late = await asyncio.open_connection(*where)
    assert await is_cut(late[0])
    over.set()
    assert all(await asyncio.gather(*waiting))
    assert await live(await opened(where, busy))
    await closed_by_us([late, *busy])
    await runner.cleanup()
    assert not crashes


async def opened(where: tuple[str, int], into: list[Connected]) -> Connected:
    into.append(await asyncio.open_connection(*where))
    return into[-1]


async def test_a_body_that_does_not_come_is_not_waited_for(
    port: int, monkeypatch: pytest.MonkeyPatch, crashes: list[BaseException | None]
) -> None:
    monkeypatch.setattr(body_of, "__defaults__", (0.01,))
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST /explain HTTP/1.1\r\n" + HEAD + b"Content-Length: 9\r\n\r\n{")

    answer = await asyncio.wait_for(reader.readuntil(b"}}"), 10)

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"body_timeout" in answer
    assert b"Connection: close" in answer
    assert not crashes
    await closed_by_us([(reader, writer)])
