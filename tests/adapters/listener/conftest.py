"""A listener on a free port, on both event loops."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import pytest
import pytest_asyncio
import uvloop

from proxy.adapters.listener import Listener, Options
from proxy.adapters.listener.handshake import Tls
from proxy.core.model import Reply
from tests.adapters.listener.raw import Handle, Serve, Served, echo


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Production runs on uvloop; the plain loop must do as well, and tells more in failures."""
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


@pytest_asyncio.fixture
async def serve() -> AsyncIterator[Serve]:
    """Start listeners; after the test they must be empty and must have reported nothing else."""
    started: list[Served] = []

    async def start(
        handler: Handle = echo,
        *,
        sock: socket.socket | None = None,
        tls: Tls | None = None,
        **options: Any,
    ) -> Served:
        def bad_request(status: int) -> Reply:
            served.faults.append(status)
            return Reply(status, [(b"content-type", b"application/json")], b'{"error":{}}')

        limits = Options(**{"tick": 0.01} | options)
        listener = Listener(handler, bad_request, options=limits, tls=tls)
        served = Served(listener)
        started.append(served)
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: served.reports.append(context)
        )
        await listener.start(sock=sock)
        return served

    yield start
    for served in started:
        for client in served.clients:
            await client.close()
        await served.listener.drain(2.0)
        assert not served.reports
        assert served.listener.inflight == 0
        assert served.listener.open_connections == 0
