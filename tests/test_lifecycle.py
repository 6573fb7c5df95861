from __future__ import annotations

import asyncio
import io
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from proxy.adapters.clock import LoopClock
from proxy.adapters.logs import configure
from proxy.adapters.rules_file import load_rules
from proxy.adapters.supervisor import Supervisor
from proxy.app import App
from proxy.lifecycle import Lifecycle
from proxy.settings import environment_of_successor, load_settings
from tests.handover_kit import soon

ROOT = Path(__file__).parent.parent
RULES = """
version: 1
listen: {{address: "127.0.0.1:0", access_log: false, drain_grace: 2s}}
admin: {{address: "127.0.0.1:0"}}
split: {{to: demo, otherwise: hook, percent: 0}}
backends:
  demo: {{handler: demo}}
  hook: {{handler: webhook, url: "http://127.0.0.1:1/hook"}}
outbox: {{enabled: false}}
state_dir: {state}
"""


class Run:
    """One life, and what is told of it."""

    def __init__(self, folder: Path, command: Sequence[str]) -> None:
        self.rules = folder / "rules.yaml"
        self.rules.write_text(RULES.format(state=folder / "state"))
        self.ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.ear.bind(str(folder / "notify"))
        self.ear.setblocking(False)
        self.stream = io.StringIO()
        log = configure(LoopClock().wall_ms, stream=self.stream)
        settings = load_settings(rules=self.rules)
        self.app = App(load_rules(self.rules, {}), settings, log)
        supervisor = Supervisor({"NOTIFY_SOCKET": str(folder / "notify")})
        environment = environment_of_successor() | {"PYTHONPATH": str(ROOT)}
        self.life = Lifecycle(self.app, supervisor, log, command=command, environment=environment)

    def told(self) -> list[str]:
        """What the service manager has heard since, first lines only."""
        found = []
        while True:
            try:
                found.append(self.ear.recv(999).decode().partition("\n")[0])
            except BlockingIOError:
                return found

    def events(self, name: str) -> list[dict[str, Any]]:
        lines = [orjson.loads(line) for line in self.stream.getvalue().splitlines()]
        return [line for line in lines if line["event"] == name]


Live = Callable[..., Awaitable[Run]]
NOTHING = [sys.executable, "-c", "import sys; sys.exit(3)"]


@pytest.fixture
async def live(tmp_path: Path) -> AsyncIterator[Live]:
    runs: list[Run] = []

    async def start(command: Sequence[str] = NOTHING) -> Run:
        run = Run(tmp_path, command)
        runs.append(run)
        await run.life.start()
        return run

    yield start
    for run in runs:
        await run.app.drain()
        run.ear.close()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
        asyncio.get_running_loop().remove_signal_handler(number)


async def test_the_service_manager_hears_of_every_turn(live: Live) -> None:
    run = await live()
    assert run.told() == ["READY=1"]

    os.kill(os.getpid(), signal.SIGHUP)
    await soon(lambda: len(run.events("rules_loaded")) == 2)
    await soon(lambda: not any(task.get_name() == "rules reload" for task in asyncio.all_tasks()))
    assert [line.partition("=")[0] for line in run.told()] == ["RELOADING", "READY"]

    run.rules.write_text("version: 2\n")
    await run.life._reload()
    assert run.told() == ["RELOADING=1", "READY=1"]  # The old rules serve on.

    os.kill(os.getpid(), signal.SIGTERM)
    await run.life.end()
    assert run.told() == ["STOPPING=1"]


async def test_who_asks_twice_is_in_a_hurry(live: Live) -> None:
    run = await live()
    hurries: list[bool] = []
    run.app.fleet.hurry = lambda: hurries.append(True)  # type: ignore[method-assign]

    run.life._end()
    assert not hurries
    run.life._end()

    assert hurries
    await run.life.end()


@pytest.mark.parametrize(
    ("command", "why", "code"),
    [
        (NOTHING, "did not say that it was ready", 3),
        (["/nobody/is/there"], "No such file or directory", None),
    ],
)
async def test_a_restart_that_fails_is_told_of_and_changes_nothing(
    live: Live, command: list[str], why: str, code: int | None
) -> None:
    run = await live(command)

    assert not await run.life.restart()

    (failed,) = run.events("restart_failed")
    assert why in failed["why"]
    assert failed.get("exit_code") == code
    assert run.app.operations.status()["process"]["restart_failed"] == failed["why"]
    assert run.app.metrics.restarts_failed[()] == 1
    assert not run.app.handover.followed.is_set()
    assert run.told() == ["READY=1"]


async def test_one_restart_at_a_time_and_none_at_the_end(live: Live) -> None:
    run = await live()
    first = asyncio.ensure_future(run.life.restart())
    await asyncio.sleep(0)

    assert not await run.life.restart()
    assert len(run.events("restart_refused")) == 1
    await first
    run.life._end()
    assert not await run.life.restart()
    assert len(run.events("restart_refused")) == 2


async def test_who_is_not_ready_yet_says_so_and_is_not_followed(live: Live) -> None:
    """Both signals may come while it starts."""
    run = await live()
    run.told()
    run.life._serving = False

    await run.life._reload()

    assert not await run.life.restart()
    assert not run.told()
    assert not run.events("restart_began")


async def test_the_end_is_the_end_of_who_gets_ready_to_follow_too(live: Live) -> None:
    run = await live([sys.executable, "-c", "import time; time.sleep(60)"])
    restarting = asyncio.ensure_future(run.life.restart())
    await soon(lambda: run.life._spawned)
    run.life._end()

    async with asyncio.timeout(20):
        await run.life.end()

    assert not await restarting
    assert run.events("restart_failed")[0]["exit_code"] == -signal.SIGTERM


async def test_process_1_is_not_followed(live: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its container would end with it."""
    run = await live()
    monkeypatch.setattr(os, "getpid", lambda: 1)

    assert not await run.life.restart()

    assert "container" in run.events("restart_refused")[0]["why"]


async def test_the_service_manager_hears_who_follows(live: Live, tmp_path: Path) -> None:
    rules = str(tmp_path / "rules.yaml")
    run = await live([sys.executable, "-m", "proxy", "serve", "--rules", rules])
    os.kill(os.getpid(), signal.SIGUSR2)

    async with asyncio.timeout(30):
        await run.life.end()

    (handed,) = run.events("handed_over")
    try:
        told = run.told()
        assert told[0] == "READY=1"
        assert f"MAINPID={handed['pid']}" in told
        assert "STOPPING=1" not in told
    finally:
        os.kill(handed["pid"], signal.SIGKILL)
        os.waitpid(handed["pid"], 0)
