"""Starting, the addresses, and draining."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from proxy.adapters.listener import Listener
from proxy.core.model import Reply
from proxy.ports import Incoming
from tests.adapters.listener.raw import Client, Serve, post
from tests.adapters.listener.test_handshake import Shown, Step, context_of
from tests.authority import Authority


async def test_a_listener_that_was_never_started_has_nothing_to_drain() -> None:
    async def handler(incoming: Incoming) -> Reply:
        return Reply(200)

    listener = Listener(handler, Reply)

    assert (listener.open_connections, listener.inflight) == (0, 0)
    assert await listener.drain(1.0) == 0


async def test_port_0_is_a_free_port_and_the_address_names_it(serve: Serve) -> None:
    served = await serve()
    host, port = served.listener.address

    assert host == "127.0.0.1"
    assert port > 0


async def test_an_address_in_use_is_an_error(serve: Serve) -> None:
    served = await serve()

    with pytest.raises(OSError):
        await Listener(served.listener._handler, Reply).start(*served.listener.address)


async def test_a_socket_that_exists_is_taken_over(serve: Serve) -> None:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    served = await serve(sock=sock)

    assert served.listener.address == sock.getsockname()
    assert (await served.ask(post(b"a"))).status == 200


async def test_a_unix_socket_has_clients_without_an_address(serve: Serve, tmp_path: Path) -> None:
    seen: list[str] = []

    async def handler(incoming: Incoming) -> Reply:
        seen.append(incoming.peer)
        return Reply(200)

    path = tmp_path / "s"
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    served = await serve(handler, sock=sock)
    client = Client(*await asyncio.open_unix_connection(str(path)))
    served.clients.append(client)
    await client.send(post(b"a"))

    assert (await client.answer()).status == 200
    assert served.listener.address == (str(path), 0)
    assert seen == [""]


async def test_an_answer_cut_on_a_unix_socket(serve: Serve, tmp_path: Path) -> None:
    async def body() -> AsyncIterator[bytes]:
        yield b"abc"
        raise RuntimeError("a bug")

    async def handler(incoming: Incoming) -> Reply:
        return Reply(200, [], body())

    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(tmp_path / "s"))
    served = await serve(handler, sock=sock)
    client = Client(*await asyncio.open_unix_connection(str(tmp_path / "s")))
    served.clients.append(client)
    await client.send(post(b"a"))

    assert not (await client.rest()).endswith(b"0\r\n\r\n")
    served.reports.clear()


async def test_draining_stops_listening_and_lets_what_runs_finish(serve: Serve) -> None:
    go = asyncio.Event()

    async def handler(incoming: Incoming) -> Reply:
        await go.wait()
        return Reply(200, [], b"done")

    served = await serve(handler)
    client = await served.connect()
    await client.send(post(b"a"))
    while served.listener.inflight == 0:
        await asyncio.sleep(0)
    draining = asyncio.ensure_future(served.listener.drain(30.0))
    while served.listener._sockets:
        await asyncio.sleep(0)
    with pytest.raises(ConnectionRefusedError):
        await served.connect()
    assert not draining.done()
    go.set()
    answer = await client.answer()

    assert (answer.body, answer.header("connection")) == (b"done", "close")
    assert await client.rest() == b""
    assert await draining == 0


async def test_where_another_process_accepts_idle_connections_may_speak_for_long(
    serve: Serve,
) -> None:
    """Longer than a listener that nobody follows would let them."""
    served = await serve(drain_idle=0.0)
    client = await served.connect()
    await client.send(post(b"a"))
    await client.answer()
    draining = asyncio.ensure_future(served.listener.drain(30.0, idle=30.0))
    await asyncio.sleep(0.05)
    await client.send(post(b"b"))

    answer = await client.answer()

    assert (answer.body, answer.header("connection")) == (b"POST /retell b", "close")
    assert await draining == 0


async def test_an_idle_connection_is_closed_not_cut_when_its_time_is_up(
    serve: Serve, tmp_path: Path
) -> None:
    """Though an idle one may speak for all the time there is.  In TLS both sides say goodbye."""
    authority = Authority(tmp_path)
    served = await serve(tls=Shown(context_of(authority.issue())))
    step = Step(await served.connect(), authority.caller())
    await step.shake()
    step.tls.write(post(b"a"))
    await step.raw.send(step.out.read())
    assert await step.read()
    draining = asyncio.ensure_future(served.listener.drain(1.0, idle=1.0))

    assert await step.read() == b""
    step.tls.unwrap()
    await step.raw.send(step.out.read())
    assert await step.raw.rest() == b""  # No reset.
    assert await draining == 0


async def test_who_comes_while_it_is_shut_waits_until_it_reopens(serve: Serve) -> None:
    served = await serve()
    await served.listener.shut()
    client = await served.connect()
    await client.send(post(b"a"))
    await asyncio.sleep(0.02)
    assert served.listener.open_connections == 0

    await served.listener.reopen()

    assert (await client.answer()).body == b"POST /retell a"


async def test_who_waits_to_be_accepted_is_taken_in_before_the_end(serve: Serve) -> None:
    """To close on them would reset them."""
    served = await serve(drain_idle=5.0)
    await served.listener.shut()
    clients = [await served.connect() for _ in range(40)]
    for client in clients:
        await client.send(post(b"a"))
    await served.listener.reopen()

    draining = asyncio.ensure_future(served.listener.drain(30.0))

    for client in clients:
        assert (await client.answer()).status == 200
    assert await draining == 0


async def test_an_idle_connection_may_still_speak_while_draining_begins(serve: Serve) -> None:
    """Its request may be on the wire already."""
    served = await serve(drain_idle=30.0)
    client = await served.connect()
    await client.send(post(b"a"))
    await client.answer()
    draining = asyncio.ensure_future(served.listener.drain(30.0))
    await asyncio.sleep(0)
    await client.send(post(b"b"))

    answer = await client.answer()

    assert (answer.body, answer.header("connection")) == (b"POST /retell b", "close")
    assert await draining == 0


async def test_an_idle_connection_is_closed_when_its_time_to_speak_is_over(serve: Serve) -> None:
    served = await serve(drain_idle=0.02)
    client = await served.connect()
    await client.send(post(b"a"))
    await client.answer()

    assert await served.listener.drain(30.0) == 0
    assert await client.rest() == b""


async def test_a_half_sent_head_is_waited_for_while_draining(serve: Serve) -> None:
    served = await serve(drain_idle=0.0)
    client = await served.connect()
    whole = post(b"a")
    await client.send(whole[:10])
    (connection,) = served.listener._acceptor.everybody()  # type: ignore[union-attr]
    while not connection._head_began:
        await asyncio.sleep(0)
    draining = asyncio.ensure_future(served.listener.drain(30.0))
    await asyncio.sleep(0.02)
    await client.send(whole[10:])

    assert (await client.answer()).header("connection") == "close"
    assert await draining == 0


@pytest.mark.parametrize("streamed", [False, True])
async def test_what_outlasts_the_grace_is_cut_and_counted(serve: Serve, streamed: bool) -> None:
    ended: list[str] = []

    async def forever() -> AsyncIterator[bytes]:
        try:
            yield b"abc"
            await asyncio.Event().wait()
        finally:
            ended.append("stream")

    async def handler(incoming: Incoming) -> Reply:
        if streamed:
            return Reply(200, [], forever())
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("handler")
        return Reply(200)

    served = await serve(handler, drain_idle=0.0)
    client = await served.connect()
    idle = await served.connect()
    await client.send(post(b"a"))
    while served.listener.inflight == 0:
        await asyncio.sleep(0)
    if streamed:
        await client.head()

    assert await served.listener.drain(0.03) == 1
    assert ended == ["stream" if streamed else "handler"]
    assert await idle.rest() == b""
    with pytest.raises(ConnectionResetError):
        await client.rest()


async def test_draining_waits_for_the_work_of_callers_who_left(serve: Serve) -> None:
    go = asyncio.Event()
    done = False

    async def handler(incoming: Incoming) -> Reply:
        nonlocal done
        await go.wait()
        done = True
        return Reply(200)

    served = await serve(handler, drain_idle=0.0)
    client = await served.connect()
    await client.send(post(b"a"))
    while served.listener.inflight == 0:
        await asyncio.sleep(0)
    client.abort()
    while served.listener.open_connections:
        await asyncio.sleep(0)
    draining = asyncio.ensure_future(served.listener.drain(30.0))
    await asyncio.sleep(0.02)
    assert not draining.done()
    go.set()

    assert await draining == 0
    assert done


async def test_a_drain_can_be_hurried(serve: Serve) -> None:
    """A second signal: whoever stops the process will not wait for the grace."""

    async def handler(incoming: Incoming) -> Reply:
        await asyncio.Event().wait()
        return Reply(200)

    served = await serve(handler, drain_idle=30.0)
    client = await served.connect()
    await client.send(post(b"a"))
    while served.listener.inflight == 0:
        await asyncio.sleep(0)
    draining = asyncio.ensure_future(served.listener.drain(30.0))
    while served.listener._sockets:
        await asyncio.sleep(0)
    served.listener.hurry()

    assert await draining == 1
    while served.listener.open_connections:
        await asyncio.sleep(0)


async def test_hurrying_before_anything_started_is_nothing() -> None:
    async def handler(incoming: Incoming) -> Reply:
        return Reply(200)

    Listener(handler, Reply).hurry()


async def test_who_comes_through_after_the_drain_is_turned_away(serve: Serve) -> None:
    """A loop may hand over one more socket that it had accepted before."""
    served = await serve()
    await served.listener.drain(1.0)
    acceptor = served.listener._acceptor
    assert acceptor is not None
    loop = asyncio.get_running_loop()
    server = await loop.create_server(acceptor, "127.0.0.1", 0)
    client = Client(*await asyncio.open_connection(*server.sockets[0].getsockname()))
    served.clients.append(client)
    try:
        assert await client.rest() == b""
    except ConnectionResetError:
        pass
    finally:
        server.close()
    while served.listener.open_connections:
        await asyncio.sleep(0)
