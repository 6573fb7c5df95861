from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from backends.demo import SALON, Mood
from proxy.adapters.clock import LoopClock
from proxy.cli import demo_stage
from proxy.cli.demo_retell import Conversation
from proxy.cli.demo_stage import Feed, Stage, _or_usual, open_stage
from proxy.core.signature import sign


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made: it must be empty afterwards."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)


async def ask(stage: Stage, body: bytes, key: bytes | None = None) -> tuple[int, dict[str, Any]]:
    signature = sign(key or stage.key, body, LoopClock().wall_ms()).decode()
    async with (
        aiohttp.ClientSession() as session,
        session.post(stage.url, data=body, headers={"x-retell-signature": signature}) as answer,
    ):
        return answer.status, json.loads(await answer.read())


async def test_the_stage_answers_signed_calls_only_and_tallies_them() -> None:
    async with open_stage(percent=100, open_for=1, listen=0, admin=0) as stage:
        talk = Conversation(0)
        now = LoopClock().wall_ms()
        assert (await ask(stage, talk.started(now)))[0] == 200
        status, said = await ask(stage, talk.function("get_company_info", {}))
        assert (status, said["success"]) == (200, True)
        assert (await ask(stage, talk.ended(now), b"forged"))[0] == 401
        await until(lambda: stage.tally.exchanges == 3)

        status_page = stage.look()
        assert status_page["split"]["in_force_percent"] == stage.tally.since.percent == 100
        assert stage.tally.answered == {"mcp": 1}


async def test_lines_of_the_last_moment_are_not_lost() -> None:
    async with open_stage(percent=0, open_for=1, listen=0, admin=0) as stage:
        await ask(stage, Conversation(0).started(LoopClock().wall_ms()))

    assert stage.tally.decided == {"webhook": 1}


async def test_a_new_share_is_in_force_soon() -> None:
    async with open_stage(percent=10, open_for=1, listen=0, admin=0) as stage:
        stage.set_share(50)
        await until(lambda: stage.look()["split"]["in_force_percent"] == 50)


async def test_nothing_is_left_behind(folder: Path) -> None:
    async with open_stage(percent=0, open_for=1, listen=0, admin=0) as stage:
        stage.set_mood(Mood.REFUSE)
        assert stage.moods == {"mcp": Mood.REFUSE, "webhook": Mood.WELL}
        assert stage.breaker() == "closed"
        assert len(list(folder.iterdir())) == 1
        ports = [stage.app.listener.address[1], stage.app.admin_address[1]]

    assert list(folder.iterdir()) == []
    assert SALON.mood("mcp") is Mood.WELL
    for port in ports:
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0


async def test_a_failing_play_leaves_nothing_behind_either(folder: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        async with open_stage(percent=0, open_for=1, listen=0, admin=0):
            raise ZeroDivisionError

    assert list(folder.iterdir()) == []


async def test_the_key_is_for_nobody_else(folder: Path) -> None:
    async with open_stage(percent=0, open_for=1, listen=0, admin=0):
        (key,) = folder.glob("*/retell.key")
        assert key.stat().st_mode & 0o077 == 0


async def test_where_somebody_has_the_usual_port_another_is_taken(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as somebody:
        port = somebody.getsockname()[1]
        monkeypatch.setattr(demo_stage, "LISTEN_PORT", port)
        async with open_stage(percent=0, open_for=1, admin=0) as stage:
            assert stage.app.listener.address[1] not in (0, port)
    assert _or_usual(None, port) == port


async def test_a_port_that_was_asked_for_must_be_free(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as somebody, pytest.raises(OSError):
        async with open_stage(percent=0, open_for=1, listen=somebody.getsockname()[1], admin=0):
            pass

    assert list(folder.iterdir()) == []


async def test_lines_come_whole_however_they_are_cut() -> None:
    taken: list[Mapping[str, Any]] = []
    feed = Feed(taken.append)
    os.write(feed.fd, b'{"n":1}\n{"n"')
    await until(lambda: taken)
    assert taken == [{"n": 1}]

    os.write(feed.fd, b":2}\n" + b'{"n":3}\n' * 10)
    feed.close()
    assert [line["n"] for line in taken] == [1, 2] + [3] * 10
