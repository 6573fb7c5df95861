"""What connections share: counting, and answers that need no handler."""

from __future__ import annotations

import asyncio
from typing import Any

from proxy.adapters.listener.acceptor import Acceptor, Options
from proxy.core.model import Reply
from proxy.ports import Incoming
from tests.adapters.listener.raw import Serve, post


async def never(incoming: Incoming) -> Reply:
    raise AssertionError


async def test_a_hook_that_fails_still_lets_the_client_have_its_status() -> None:
    reports: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))

    def hook(status: int) -> Reply:
        raise RuntimeError("a bug")

    reply = Acceptor(never, hook, Options()).fault(400)

    assert (reply.status, reply.body) == (400, b"")
    assert [str(report["exception"]) for report in reports] == ["a bug"]


async def test_clients_and_exchanges_are_counted(serve: Serve) -> None:
    go = asyncio.Event()

    async def handler(incoming: Incoming) -> Reply:
        await go.wait()
        return Reply(200)

    served = await serve(handler)
    clients = [await served.connect() for _ in range(3)]
    for client in clients[:2]:
        await client.send(post(b"a"))
    while served.listener.inflight < 2:
        await asyncio.sleep(0)
    assert (served.listener.open_connections, served.listener.inflight) == (3, 2)
    go.set()
    for client in clients[:2]:
        await client.answer()

    assert (served.listener.open_connections, served.listener.inflight) == (3, 0)


async def test_nobody_is_remembered_who_has_left(serve: Serve) -> None:
    served = await serve()
    acceptor = served.listener._acceptor
    assert acceptor is not None
    for _ in range(20):
        client = await served.connect()
        await client.send(post(b"a"))
        await client.answer()
        await client.close()
    while acceptor.everybody():
        await asyncio.sleep(0)

    assert acceptor.open == 0


async def test_waiting_for_nobody_does_not_wait() -> None:
    assert await Acceptor(never, Reply, Options()).emptied(0.0)
