"""A process that starts, drains and ends as orchestrators expect it to."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
from typing import Any

import pytest

from proxy.errors import RulesError
from tests.functional.conftest import World
from tests.functional.kit import BOOK, SLOTS, Process, event, function
from tests.functional.wire import (
    Play,
    finishes,
    freezes,
    mcp,
    request,
    response,
    runs,
    says,
    text,
    until,
    waits,
)


def held(go: asyncio.Event) -> Play:
    return waits(go, says(response(b'{"late":true}')))


async def draining(process: Process) -> None:
    await until(lambda: process.events("drain_started") or process.ended, "the drain has begun")


@pytest.mark.row("Z2", "Z4")
async def test_sigterm_lets_what_runs_finish(world: World) -> None:
    """Not ready but alive, connections close behind their answers, exit 0."""
    go = asyncio.Event()
    world.webhook.play = held(go)
    process = world.process()
    await process.start(world.rules())
    await process.up()
    busy, idle = await process.connect(), await process.connect()
    assert (await idle.ask(request("POST", "/mcp/a", PING))).value(b"connection") is None
    await busy.send(request("POST", "/retell", event()))
    await until(lambda: world.webhook.seen, "it is in flight")
    ready = await process.admin("/ready")

    process.signal(signal.SIGTERM)
    await draining(process)
    not_ready, live = await process.admin("/ready"), await process.admin("/live")
    last = await idle.ask(request("POST", "/mcp/a", PING))
    assert not process.ended
    go.set()
    answer = await busy.answer()

    assert (ready.status, not_ready.status, live.status) == (200, 503, 200)
    assert not_ready.json == {"ready": False, "reasons": ["draining"]}
    assert (last.status, last.value(b"connection")) == (200, b"close")
    assert (answer.status, answer.body) == (200, b'{"late":true}')
    assert answer.value(b"connection") == b"close"
    assert await process.code() == 0
    (stopped,) = process.events("sidecar_stopped")
    assert stopped["cut"] == 0
    lines = [json.loads(line) for line in process.out.read_text().splitlines()]
    assert [line["outcome"] for line in lines] == ["ok"] * 3


PING = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'


async def test_a_draining_sidecar_takes_no_new_connection(world: World) -> None:
    go = asyncio.Event()
    world.webhook.play = held(go)
    process = world.process()
    await process.start(world.rules())
    await process.up()
    busy = await process.connect()
    await busy.send(request("POST", "/retell", event()))
    await until(lambda: world.webhook.seen, "it is in flight")

    process.signal(signal.SIGTERM)
    await draining(process)

    async def refused() -> bool:
        try:
            await process.connect()
        except ConnectionRefusedError:
            return True
        return False

    while not await refused():
        await asyncio.sleep(0.01)
    go.set()
    assert (await busy.answer()).status == 200
    assert await process.code() == 0


@pytest.mark.row("Z2")
async def test_a_second_sigterm_is_in_a_hurry(world: World) -> None:
    world.webhook.play = freezes
    process = world.process()
    await process.start(
        world.rules(
            listen={"drain_grace": "10m"},
            backends={"webhook": {"timeout": "10m"}},
            fallback={"budget": {"event": "10m"}},
        )
    )
    await process.up()
    client = await process.connect()
    await client.send(request("POST", "/retell", event()))
    await until(lambda: world.webhook.seen, "it is in flight")

    process.signal(signal.SIGTERM)
    await draining(process)
    process.signal(signal.SIGTERM)

    assert await process.code() == 0
    (stopped,) = process.events("sidecar_stopped")
    assert stopped["cut"] == 1


async def test_the_grace_ends_even_if_an_arm_never_answers(world: World) -> None:
    world.webhook.play = freezes
    process = world.process()
    await process.start(world.rules(listen={"drain_grace": "300ms"}))
    await process.up()
    client = await process.connect()
    await client.send(request("POST", "/retell", event()))
    await until(lambda: world.webhook.seen, "it is in flight")

    process.signal(signal.SIGTERM)

    assert await process.code() == 0
    assert process.events("sidecar_stopped")[0]["cut"] == 1
    lines = [json.loads(line) for line in process.out.read_text().splitlines()]
    assert [line["outcome"] for line in lines] == ["gone"]


async def test_ctrl_c_ends_it_too(world: World) -> None:
    process = world.process()
    await process.start(world.rules())
    await process.up()

    process.signal(signal.SIGINT)

    assert await process.code() == 0
    assert "Traceback" not in process.said


@pytest.mark.row("Z2")
async def test_a_write_in_flight_at_sigterm_is_delivered_and_answered_once(world: World) -> None:
    go = asyncio.Event()

    world.mcp.play = mcp(waits(go, runs(text('{"booked":true}'))))
    process = world.process()
    await process.start(world.rules())
    await process.up()
    client = await process.connect()
    await client.send(request("POST", "/retell", function(BOOK)))
    await until(lambda: world.mcp.tools, "the tool runs")

    process.signal(signal.SIGTERM)
    await draining(process)
    go.set()

    assert (await client.answer()).body == b'{"booked":true}'
    assert await process.code() == 0
    assert len(world.mcp.tools) == 1
    assert not world.webhook.seen


async def test_a_late_write_is_given_the_grace_to_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its caller has heard that it is pending; to hang up now may cancel the booking."""
    go, ends = asyncio.Event(), list[str]()
    world.mcp.play = mcp(finishes(go, ends))
    sidecar = await world.sidecar(backends={"mcp": {"timeout": "100ms"}})
    assert (await sidecar.call(BOOK)).reason == "last_answer"
    await sidecar.hang_up()
    waits, fleet = asyncio.Event(), sidecar.app.fleet
    finish = fleet.finish

    async def finishes_them(until: float) -> None:
        waits.set()
        await finish(until)

    monkeypatch.setattr(fleet, "finish", finishes_them)
    drain = asyncio.create_task(sidecar.app.drain())
    await waits.wait()
    go.set()
    await drain

    assert ends == ["finished"]


@pytest.mark.parametrize(("grace", "hurries"), [("10m", True), ("200ms", False)])
async def test_a_late_write_holds_up_no_end_for_ever(
    world: World, grace: str, hurries: bool
) -> None:
    go, ends = asyncio.Event(), list[str]()
    world.mcp.play = mcp(finishes(go, ends))
    sidecar = await world.sidecar(
        listen={"drain_grace": grace}, backends={"mcp": {"timeout": "100ms"}}
    )
    await sidecar.call(BOOK)
    await sidecar.hang_up()

    drain = asyncio.create_task(sidecar.app.drain())
    await asyncio.sleep(0.1)
    if hurries:
        sidecar.app.hurry()
    await drain
    await until(lambda: ends)

    assert ends == ["cut"]


# -- Starts that must not happen.


async def refused_start(world: World, document: dict[str, Any] | str, **variables: str) -> Process:
    process = world.process()
    await process.start(document, variables)
    assert await process.code() == 2
    assert "Traceback" not in process.said
    assert process.out.read_bytes() == b""
    return process


async def test_unusable_rules_are_refused_with_every_fault_at_once(world: World) -> None:
    """Exit 2; each fault with its place, its line, a caret and the way out."""
    content = (
        "version: 1\n"
        "split: {percnt: 10, to: mpc}\n"
        "backends:\n"
        "  mcp: {handler: mcp, url: http://127.0.0.1:1/mcp, timeout: 5}\n"
        "  webhook: {handler: webhook}\n"
        "limits: {tools_per_minute: many}\n"
    )

    process = await refused_start(world, content)

    for word in (
        "percnt",
        "did you mean",
        "percent",
        "timeout",
        "tools_per_minute",
        ":2:",
        ":4:",
        ":6:",
    ):
        assert word in process.said, word
    assert "^" in process.said


UNSAFE: list[tuple[dict[str, Any], str]] = [
    ({"auth": {"tokens": ["env:NOT_SET"]}}, "NOT_SET"),
    ({"auth": {"require": {"mcp": ["token"]}}}, "auth.require.mcp"),
    ({"listen": {"address": "0.0.0.0:0"}}, "auth.require"),
    ({"admin": {"address": "0.0.0.0:0"}}, "admin.token"),
    ({"backends": {"mcp": {"handler": "nobody_has_it"}}}, "nobody_has_it"),
    ({"backends": {"mcp": {"url": "https://127.0.0.1:1/", "tls": {"ca_file": "/no"}}}}, "ca_file"),
    ({"split": {"to": "elsewhere"}}, "elsewhere"),
    ({"passthrough": "elsewhere"}, "elsewhere"),
]


@pytest.mark.parametrize(("sections", "told"), UNSAFE)
@pytest.mark.row("A9")
async def test_what_could_not_be_served_safely_does_not_start(
    world: World, sections: dict[str, Any], told: str
) -> None:
    with pytest.raises(RulesError) as refusal:
        await world.sidecar(**sections)

    assert told in str([(fault.message, fault.path) for fault in refusal.value.faults])


async def test_a_required_credential_that_nobody_can_have_is_exit_2(world: World) -> None:
    """And what secrets there are do not show."""
    auth = {"tokens": ["env:T"], "require": {"event": ["signature"]}}

    process = await refused_start(world, world.rules(auth=auth), T="very-secret-token")

    assert "auth.require.event" in process.said
    assert "very-secret-token" not in process.said


async def test_no_rules_file_is_exit_2(world: World) -> None:
    process = world.process()
    await process.launch()

    assert await process.code() == 2
    assert "rules.yaml" in process.said


async def test_an_address_that_is_taken_is_exit_2(world: World) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        address = f"127.0.0.1:{sock.getsockname()[1]}"

        process = await refused_start(world, world.rules(listen={"address": address}))

    assert "cannot listen" in process.said


async def test_the_command_line_outranks_the_file(world: World) -> None:
    free = []
    for _ in range(2):
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            free.append(f"127.0.0.1:{sock.getsockname()[1]}")
    env = world.folder / "env"
    env.write_text("MCP_ROLLOUT_PERCENTAGE=0\n")
    sections = {**world.rules(), "split": None}
    lines = [f"{name}: {json.dumps(value)}" for name, value in sections.items() if value]
    process = world.process()
    await process.start(
        "\n".join([*lines, "split:", "  percent: ${MCP_ROLLOUT_PERCENTAGE:-100}"]),
        arguments=["--listen", free[0], "--admin-listen", free[1], "--env-file", str(env)],
    )
    await process.up()

    assert (f"127.0.0.1:{process.port}", f"127.0.0.1:{process.admin_port}") == tuple(free)
    assert (await process.call(SLOTS)).arm == "webhook"


async def test_a_reader_of_its_lines_that_goes_away_stops_no_call(world: World) -> None:
    """A log shipper that died is no reason to hang up on callers."""
    reading, writing = os.pipe()
    process = world.process()
    await process.start(world.rules(), stdout=writing)
    os.close(writing)
    await process.up()
    os.close(reading)

    for number in range(5):
        assert (await process.call(SLOTS, f"id_{number}")).arm == "mcp"
        await asyncio.sleep(0.12)  # longer than lines are held back
    dropped = (await process.metrics()).total("access_lines_dropped")

    assert dropped > 0
    await process.hang_up()
    process.signal(signal.SIGTERM)
    assert await process.code() == 0


async def test_a_full_pipe_stops_no_call(world: World) -> None:
    """Nobody reads the lines: they are dropped and counted, never waited for."""
    reading, writing = os.pipe()
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, reading)
        process = world.process()
        await process.start(world.rules(), stdout=writing)
        os.close(writing)
        await process.up()
        for number in range(400):
            assert (await process.call(SLOTS, f"id_{number}")).arm == "mcp"

        await process.hang_up()
        process.signal(signal.SIGTERM)
        assert await process.code() == 0
