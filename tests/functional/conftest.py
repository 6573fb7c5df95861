"""Arms and sidecars for the functional tests, on the loop that production runs on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.functional.kit import Process, Sidecar, rules, running
from tests.functional.wire import Origin, Play, answers, mcp, runs, text


def pytest_asyncio_loop_factories(
    config: object, item: object
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


class World:
    """Two arms that listen, and the sidecars before them."""

    def __init__(self, folder: Path, stack: contextlib.AsyncExitStack) -> None:
        self.folder = folder
        self.mcp = Origin("mcp", mcp(runs(text('{"from":"mcp"}'))))
        self.webhook = Origin("webhook", answers(b'{"from":"webhook"}'))
        self._stack = stack

    async def origin(self, name: str, play: Play) -> Origin:
        """One more server."""
        origin = Origin(name, play)
        self._stack.push_async_callback(origin.stop)
        await origin.listen()
        return origin

    def rules(self, **sections: Any) -> dict[str, Any]:
        return rules(self.mcp, self.webhook, **sections)

    async def sidecar(self, variables: dict[str, str] | None = None, **sections: Any) -> Sidecar:
        """A sidecar in this loop with these rules."""
        run = running(self.folder, self.rules(**sections), variables)
        return await self._stack.enter_async_context(run)

    def process(self) -> Process:
        """A sidecar in a process of its own, not started yet."""
        process = Process(self.folder)
        self._stack.push_async_callback(process.stop)
        return process


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with contextlib.AsyncExitStack() as stack:
        world = World(tmp_path, stack)
        for origin in (world.mcp, world.webhook):
            stack.push_async_callback(origin.stop)
            await origin.listen()
        yield world


Start = Callable[..., Awaitable[Sidecar]]
