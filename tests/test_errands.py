from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs
from structlog.typing import FilteringBoundLogger

from backends.base import Send
from proxy import errands as errands_module
from proxy.adapters.clock import LoopClock
from proxy.adapters.tasks import Tasks
from proxy.core.model import Headers, Outbound, Reply
from proxy.errands import AT_ONCE, Errands
from proxy.errors import UpstreamFailed


class Slow:
    """An upstream that remembers what it was given, and may never answer."""

    def __init__(self, failure: UpstreamFailed | None = None) -> None:
        self.sent: list[tuple[Outbound, Headers, dict[str, Any]]] = []
        self.failure = failure

    async def send(self, outbound: Outbound, extra: Headers, **more: Any) -> Reply:
        self.sent.append((outbound, extra, more))
        if self.failure is not None:
            raise self.failure
        return Reply(200)

    async def connect(self, *, deadline: float) -> None: ...

    async def aclose(self, grace: float) -> None: ...


@pytest.fixture
async def tasks() -> AsyncIterator[Tasks]:
    crashed: list[str] = []
    held = Tasks(lambda name, error: crashed.append(f"{name}: {error}"))
    yield held
    await held.aclose()
    assert not crashed


@pytest.fixture
def log() -> FilteringBoundLogger:
    found: FilteringBoundLogger = structlog.get_logger()
    return found


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not true():
            await asyncio.sleep(0)


async def test_an_errand_is_run_with_two_seconds_in_all(
    tasks: Tasks, log: FilteringBoundLogger
) -> None:
    clock, upstream = LoopClock(), Slow()
    errands = Errands(clock=clock, log=log, start=tasks.start)
    before = clock.now()

    async def errand(send: Send) -> None:
        await send(Outbound("DELETE", "/mcp", []), dispatches=False)

    errands.over(upstream, "mcp")(errand)
    assert len(errands) == 1
    await until(lambda: not len(errands))

    outbound, extra, more = upstream.sent[0]
    assert (outbound.method, extra) == ("DELETE", [])
    assert before + errands_module.PATIENCE <= more["deadline"]
    assert more["deadline"] <= clock.now() + errands_module.PATIENCE
    assert more["linger"] == 0.0


async def test_an_errand_that_takes_too_long_is_given_up(
    tasks: Tasks, log: FilteringBoundLogger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(errands_module, "PATIENCE", 0.001)
    errands = Errands(clock=LoopClock(), log=log, start=tasks.start)

    async def errand(_: Send) -> None:
        await asyncio.Event().wait()

    with capture_logs() as logs:
        errands.over(Slow(), "mcp")(errand)
        await until(lambda: not len(errands))

    assert [(entry["event"], entry["why"]) for entry in logs] == [("errand_failed", "timeout")]


async def test_what_fails_is_told_at_the_lowest_level(
    tasks: Tasks, log: FilteringBoundLogger
) -> None:
    errands = Errands(clock=LoopClock(), log=log, start=tasks.start)

    async def errand(send: Send) -> None:
        await send(Outbound("DELETE", "/mcp", []))

    with capture_logs() as logs:
        errands.over(Slow(UpstreamFailed("connect", "nobody", sent=False)), "mcp")(errand)
        await until(lambda: not len(errands))

    assert [(entry["event"], entry["log_level"]) for entry in logs] == [("errand_failed", "debug")]


async def test_what_is_too_much_at_once_is_not_done(
    tasks: Tasks, log: FilteringBoundLogger
) -> None:
    errands, ran = Errands(clock=LoopClock(), log=log, start=tasks.start), 0
    go = asyncio.Event()

    async def errand(_: Send) -> None:
        nonlocal ran
        await go.wait()
        ran += 1

    begin = errands.over(Slow(), "mcp")
    for _ in range(AT_ONCE + 5):
        begin(errand)
    assert len(errands) == AT_ONCE
    go.set()
    await until(lambda: not len(errands))

    assert ran == AT_ONCE
    begin(errand)
    await until(lambda: not len(errands))
    assert ran == AT_ONCE + 1


async def test_errands_end_with_the_sidecar(log: FilteringBoundLogger) -> None:
    tasks = Tasks(lambda *_: None)
    errands = Errands(clock=LoopClock(), log=log, start=tasks.start)

    async def errand(_: Send) -> None:
        await asyncio.Event().wait()

    errands.over(Slow(), "mcp")(errand)
    await tasks.aclose()
    await asyncio.sleep(0)

    assert not len(errands)
