"""Every asynchronous test of the upstream leg runs on both event loops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import uvloop

from tests.adapters.upstream.origin import Client, Origin, Script


def pytest_asyncio_loop_factories(config: object, item: object) -> dict[str, Callable[[], Any]]:
    return {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


@pytest.fixture
async def origins() -> AsyncIterator[Callable[..., Any]]:
    """Start raw origins; all are stopped at the end."""
    started: list[Origin] = []

    async def start(script: Script, **options: Any) -> Origin:
        origin = Origin(script)
        started.append(origin)
        await origin.start(**options)
        return origin

    yield start
    for origin in started:
        await origin.stop()


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    """Make upstreams; all are closed at the end, and nothing of them may be left."""
    made = Client()
    yield made
    await made.close()
