"""A process follows another: no call is lost, and nothing runs twice."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.functional.conftest import World
from tests.functional.kit import BOOK, SLOTS, event, function, write_rules
from tests.functional.restart_kit import Callers, Given, Line, heeded, listening
from tests.functional.wire import (
    Client,
    Peer,
    Seen,
    mcp,
    request,
    response,
    runs,
    text,
    until,
    waits,
)


@pytest.fixture
async def line(tmp_path: Path) -> AsyncIterator[Line]:
    line = Line(tmp_path)
    yield line
    await line.stop()


HEALTH = request("GET", "/api/mcp/retell/health")


def reads(number: int) -> bytes:
    return request("POST", "/retell", function(SLOTS, f"call_{number % 50}", {"n": number}))


def all_kinds(number: int) -> bytes:
    """Every fifth one a write, and each write asked for by two callers."""
    if number % 5:
        return reads(number)
    return request("POST", "/retell", function(BOOK, f"writer_{number // 10}", {"n": number // 10}))


async def restarted(line: Line, count: int) -> int:
    """Have the newest one followed; the new one's process ID."""
    os.kill(line.started()[-1]["pid"], signal.SIGUSR2)
    return await line.upped(count)


@pytest.mark.row("Z1")
async def test_restarts_under_kept_connections_lose_no_request(world: World, line: Line) -> None:
    """And run no write twice."""
    await line.start(world.rules())
    first = await line.upped()
    callers = Callers(line.port, 16, all_kinds)
    for count in (2, 3):
        await callers.answered(200)
        await restarted(line, count)
    await callers.answered(200)
    tally = await callers.end()

    assert (tally.lost, tally.others) == ([], [])
    assert tally.closes >= 16  # each was told to go, and came back
    await line.gone(first)
    assert line.process.returncode == 0
    assert [each["why"] for each in line.events("restart_failed")] == []
    assert len(line.events("handed_over")) == 2
    written = [seen.body for seen in world.mcp.tools if BOOK.encode() in seen.body]
    assert written
    asked = [json.loads(body)["params"]["arguments"]["n"] for body in written]
    assert len(set(asked)) == len(asked)


async def test_a_write_under_way_is_waited_for_by_its_twin_at_the_next_process(
    world: World, line: Line
) -> None:
    """Its own caller hears the answer from the old process, which heeds a supervisor's SIGTERM: it
    drains already, and that is no hurry.
    """
    go = asyncio.Event()

    world.mcp.play = mcp(waits(go, runs(text('{"booked":true}'))))
    await line.start(world.rules())
    old = await line.upped()
    first = await line.connect()
    others = [await line.connect() for _ in range(2)]
    for other in others:
        await other.ask(HEALTH)
    await first.send(request("POST", "/retell", function(BOOK)))
    await until(lambda: world.mcp.tools, "the tool runs")
    await restarted(line, 2)
    twin = await line.connect()
    await twin.send(request("POST", "/retell", function(BOOK)))
    os.kill(old, signal.SIGTERM)
    await until(lambda: heeded(old, signal.SIGTERM), "it has heard it")
    for other in others:  # One that is in a hurry would have cut them all.
        assert (await other.ask(HEALTH)).value(b"connection") == b"close"
    go.set()

    assert (await first.answer()).body == b'{"booked":true}'
    answer = await twin.answer()
    assert (answer.body, answer.reason) == (b'{"booked":true}', "replayed")
    assert len(world.mcp.tools) == 1


async def test_the_old_process_asks_the_new_one_before_it_runs_a_write(
    world: World, line: Line
) -> None:
    """Its callers speak once more over connections that it holds still."""
    await line.start(world.rules())
    await line.upped()
    old = await line.connect()
    other = await line.connect()
    for client in (old, other):
        await client.ask(reads(1))
    await restarted(line, 2)
    assert (await line.call(BOOK, day=1)).status == 200

    repeat = await old.ask(request("POST", "/retell", function(BOOK, "call_a", {"day": 1})))
    fresh = await other.ask(request("POST", "/retell", function(BOOK, "call_a", {"day": 2})))
    again = await line.call(BOOK, day=2)

    assert repeat.value(b"connection") == b"close"
    assert repeat.reason == "replayed"
    assert (fresh.arm, fresh.reason) == ("mcp", "share")
    assert again.reason == "replayed"
    assert len([seen for seen in world.mcp.tools if BOOK.encode() in seen.body]) == 2


async def test_events_that_the_old_process_hears_late_wait_at_the_new_one(
    world: World, line: Line
) -> None:
    async def down(peer: Peer, _: Seen) -> bool:
        await peer.send(response(b"{}", b"503 Service Unavailable"))
        return True

    world.webhook.play = down
    await line.start(world.rules(outbox={"enabled": True, "retry_first": "100ms"}))
    await line.upped()
    old = await line.connect()
    assert (await old.ask(request("POST", "/retell", event("call_started")))).status == 200
    await restarted(line, 2)

    late = await old.ask(request("POST", "/retell", event("call_ended")))
    waiting = (await line.admin("/outbox?state=all")).json

    assert (late.status, late.json["status"]) == (200, "queued")
    assert [each["event"] for each in waiting["entries"]] == ["call_started", "call_ended"]


async def test_rules_that_cannot_be_used_leave_the_old_process_serving(
    world: World, line: Line
) -> None:
    await line.start(world.rules(listen={"drain_grace": "20s"}))
    pid = await line.upped()
    write_rules(line.rules_path, "version: 1\nsplit: {percnt: 1}\n")
    await until(lambda: line.events("rules_refused"), "the watch has seen it")

    os.kill(pid, signal.SIGUSR2)
    await until(lambda: line.events("restart_failed"), "it failed")

    (failed,) = line.events("restart_failed")
    assert failed["exit_code"] == 2
    assert "percnt" in failed["why"]
    assert "rules.yaml:2" in failed["why"]
    assert (await line.call(SLOTS)).arm == "mcp"
    assert "percnt" in (await line.status())["process"]["restart_failed"]
    assert (await line.metrics()).total("restarts_failed_total") == 1
    assert not line.ended


# -- Sockets that were given.


@pytest.fixture
async def given(tmp_path: Path) -> AsyncIterator[Given]:
    with listening() as sock:
        line = Given(tmp_path, {"callsplit": sock})
        line.port = sock.getsockname()[1]
        yield line
        await line.stop()


async def test_a_process_with_the_same_socket_follows_who_holds_the_state(
    world: World, given: Given
) -> None:
    """As a supervisor starts it, that knows nothing of us but sockets and signals."""
    write_rules(given.rules_path, world.rules(state_dir=str(given.rules_path.parent / "state")))
    first = await given.follow()
    await given.upped()
    callers = Callers(given.port, 8, reads)
    await callers.answered(100)
    second = await given.follow()
    pid = await given.upped(2)
    first.terminate()
    await callers.answered(100)
    tally = await callers.end()

    assert (tally.lost, tally.others) == ([], [])
    assert await first.wait() == 0
    assert pid == second.pid
    assert (await given.call(SLOTS)).arm == "mcp"
    await given.hang_up()
    second.terminate()
    assert await second.wait() == 0


@pytest.mark.row("Z5")
async def test_who_waits_to_be_accepted_meets_no_reset(world: World, given: Given) -> None:
    """Forty connections with a request sent, while nobody accepts; then somebody does."""
    write_rules(given.rules_path, world.rules(state_dir=str(given.rules_path.parent / "state")))
    first = await given.follow()
    pid = await given.upped()
    os.kill(pid, signal.SIGSTOP)
    clients = [await Client.connect(given.port) for _ in range(40)]
    for number, client in enumerate(clients):
        await client.send(reads(number))
    first.terminate()
    os.kill(pid, signal.SIGCONT)
    assert await first.wait() == 0
    second = await given.follow()
    await given.upped(2)

    answers = [await client.answer() for client in clients]

    assert {answer.status for answer in answers} == {200}
    for client in clients:
        await client.close()
    second.terminate()
    assert await second.wait() == 0


async def test_sockets_that_cannot_be_used_are_explained(world: World, tmp_path: Path) -> None:
    with listening() as one, listening() as two:
        line = Given(tmp_path, {"a": one, "b": two})
        line.names = "callsplit:callsplit"
        write_rules(line.rules_path, world.rules(state_dir=str(tmp_path / "state")))
        process = await line.follow()

        assert await process.wait() == 2
        assert "two sockets named callsplit" in line.said


async def test_given_sockets_serve_pages_too_whatever_the_rules_say(
    world: World, tmp_path: Path
) -> None:
    with listening() as calls, listening() as admin, listening() as observe:
        sockets = {"observe": observe, "callsplit": calls, "admin": admin}
        line = Given(tmp_path, sockets)
        write_rules(line.rules_path, world.rules(state_dir=str(tmp_path / "state")))
        process = await line.follow("--listen", "127.0.0.1:1", "--admin-listen", "127.0.0.1:1")
        try:
            await line.upped()
            assert process.returncode is None
            ports = [sock.getsockname()[1] for sock in (calls, admin)]
            assert [line.port, line.admin_port] == ports
            assert (await line.call(SLOTS)).arm == "mcp"
            assert (await line.admin("/ready")).status == 200
            line.admin_port = observe.getsockname()[1]
            assert (await line.admin("/live")).status == 200
        finally:
            await line.stop()
