"""A breaker's whole life, seen from outside: no caller may notice any of it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.functional.conftest import World
from tests.functional.kit import BOOK, SLOTS, Sidecar, function
from tests.functional.wire import (
    Answer,
    Peer,
    Seen,
    answers,
    dies,
    mcp,
    method_of,
    request,
    response,
    rpc,
    runs,
    text,
    until,
)

QUICK: dict[str, Any] = {"breaker": {"open_for": "150ms"}}
GOOD = mcp(runs(text('{"from":"mcp"}')))


async def state_is(sidecar: Sidecar, wanted: str) -> None:
    breaker = sidecar.app.handler.line.arms["mcp"].breaker
    await until(lambda: breaker.state == wanted, f"the breaker is {wanted}")


async def probed(sidecar: Sidecar) -> None:
    breaker = sidecar.app.handler.line.arms["mcp"].breaker
    now = sidecar.app.clock.now
    await until(lambda: breaker.snapshot(now()).probed, "the probe has passed")


async def break_it(world: World, sidecar: Sidecar) -> list[Answer]:
    world.mcp.play = mcp(dies)
    got = [await sidecar.call(SLOTS, f"id_{n}") for n in range(5)]
    await state_is(sidecar, "open")
    return got


async def test_no_caller_notices_an_arm_that_dies_and_comes_back(world: World) -> None:
    """Closed, five failures, open, one probe, three trials, closed; every answer is a good one."""
    sidecar = await world.sidecar(backends={"mcp": QUICK})

    got = await break_it(world, sidecar)
    assert len(world.mcp.tools) == 5
    got += [await sidecar.call(SLOTS, f"open_{n}") for n in range(3)]
    assert len(world.mcp.tools) == 5
    world.mcp.play = GOOD
    await probed(sidecar)
    trials = [await sidecar.call(SLOTS, f"trial_{n}") for n in range(3)]
    after = await sidecar.call(BOOK, "after")

    assert [answer.status for answer in got] == [200] * 8
    assert [answer.reason for answer in got] == ["rescue_reset"] * 5 + ["rescue_open"] * 3
    assert [(answer.arm, answer.reason) for answer in trials] == [("mcp", "share")] * 3
    assert after.arm == "mcp"
    told = [(one["before"], one["after"], one["why"]) for one in sidecar.events("breaker_changed")]
    assert told == [
        ("closed", "open", "failures"),
        ("open", "half_open", "time_up"),
        ("half_open", "closed", "trials_passed"),
    ]
    metrics = await sidecar.metrics()
    assert metrics.total("breaker_transitions_total", arm="mcp") == 3
    assert metrics.total("breaker_state", arm="mcp") == 1
    assert metrics.total("breaker_state", arm="mcp", state="closed") == 1
    assert metrics.total("last_answers_total") == 0


async def test_four_failures_in_a_row_do_not_open_it(world: World) -> None:
    sidecar = await world.sidecar()
    for _ in range(3):
        world.mcp.play = mcp(dies)
        for n in range(4):
            await sidecar.call(SLOTS, f"id_{n}")
        world.mcp.play = GOOD
        assert (await sidecar.call(SLOTS)).arm == "mcp"

    assert not sidecar.events("breaker_changed")


async def test_half_open_sends_one_probe_and_then_one_real_call_at_a_time(world: World) -> None:
    """B5: fifty callers at once must not fall upon an arm that has just got up."""
    go, asked = asyncio.Event(), asyncio.Event()
    sidecar = await world.sidecar(backends={"mcp": QUICK})
    await break_it(world, sidecar)
    before = len(world.mcp.tools)
    at_a_time = most = 0

    async def slow(peer: Peer, seen: Seen) -> bool:
        nonlocal at_a_time, most
        at_a_time += 1
        most = max(most, at_a_time)
        asked.set()
        await go.wait()
        at_a_time -= 1
        await peer.send(rpc(seen, text('{"from":"mcp"}')))
        return True

    probes = [seen for seen in world.mcp.seen if method_of(seen) == "server/discover"]
    world.mcp.play = mcp(slow)
    await probed(sidecar)
    again = [seen for seen in world.mcp.seen if method_of(seen) == "server/discover"]
    crowd = [asyncio.create_task(sidecar.call(SLOTS, f"crowd_{n}")) for n in range(50)]
    await asked.wait()
    await until(lambda: sum(task.done() for task in crowd) == 49, "49 were answered elsewhere")
    go.set()
    got = await asyncio.gather(*crowd)

    assert len(again) - len(probes) == 1
    assert most == 1
    assert len(world.mcp.tools) - before == 1
    assert sorted(answer.reason for answer in got) == ["rescue_open"] * 49 + ["share"]
    assert {answer.status for answer in got} == {200}


async def test_a_failed_probe_keeps_it_open_and_no_caller_pays(world: World) -> None:
    sidecar = await world.sidecar(backends={"mcp": QUICK})
    await break_it(world, sidecar)
    await world.mcp.refuse()
    since = len(sidecar.events("breaker_changed"))

    await until(lambda: len(sidecar.events("breaker_changed")) >= since + 4, "it was tried twice")
    answer = await sidecar.call(SLOTS, "meanwhile")

    whys = {one["why"] for one in sidecar.events("breaker_changed")[since:]}
    assert whys == {"time_up", "probe_failed"}
    assert (answer.status, answer.reason) == (200, "rescue_open")


async def test_a_failed_trial_opens_it_again_and_its_caller_is_rescued(world: World) -> None:
    sidecar = await world.sidecar(backends={"mcp": QUICK})
    await break_it(world, sidecar)
    await probed(sidecar)

    answer = await sidecar.call(SLOTS, "trial")

    assert (answer.status, answer.reason) == (200, "rescue_reset")
    assert sidecar.events("breaker_changed")[-1]["why"] == "trial_failed"


async def test_a_write_is_no_trial_while_something_safer_may_come(world: World) -> None:
    sidecar = await world.sidecar(backends={"mcp": {"breaker": {"open_for": "1s"}}})
    await break_it(world, sidecar)
    world.mcp.play = GOOD
    sidecar.app.handler.line.arms["mcp"].breaker._reopens_at = 0.0
    sidecar.app.probes.wake("mcp")
    await probed(sidecar)

    write, read = await sidecar.call(BOOK, "w"), await sidecar.call(SLOTS, "r")

    assert (write.reason, read.arm) == ("rescue_open", "mcp")


NO_FAILURES = {
    "a business no": mcp(runs(text("no", isError=True))),
    "a wrong credential": mcp(answers(b"", status=b"401 E")),
    "too large for it": mcp(answers(b"", status=b"413 E")),
    "not found": mcp(answers(b"", status=b"404 E")),
    "an answer too many": mcp(runs(text("fine"))),
}


@pytest.mark.parametrize("play", NO_FAILURES.values(), ids=NO_FAILURES)
async def test_what_says_nothing_of_the_arms_health_never_opens_it(world: World, play: Any) -> None:
    world.mcp.play = play
    sidecar = await world.sidecar()

    for n in range(12):
        await sidecar.call(SLOTS, f"id_{n}")

    assert (await sidecar.breaker())["state"] == "closed"
    assert len(world.mcp.tools) == 12


async def test_callers_who_hang_up_never_open_it_and_never_hold_it(world: World) -> None:
    go = asyncio.Event()

    async def slow(peer: Peer, seen: Seen) -> bool:
        await go.wait()
        await peer.send(rpc(seen, text("{}")))
        return True

    world.mcp.play = mcp(slow)
    sidecar = await world.sidecar()
    clients = [await sidecar.connect() for _ in range(8)]
    for n, client in enumerate(clients):
        await client.send(request("POST", "/retell", function(BOOK, f"id_{n}")))
    await until(lambda: len(world.mcp.tools) == 8, "all were asked")
    for client in clients:
        client.abort()
    go.set()
    await sidecar.settled()

    assert (await sidecar.breaker())["failures"] == 0
    assert not world.webhook.seen


async def test_the_only_arm_is_asked_though_its_breaker_is_open(world: World) -> None:
    """A sidecar must not be worse than none: ten real attempts at a time, then the last answer."""
    go = asyncio.Event()
    world.webhook.play = dies
    sidecar = await world.sidecar(split={"percent": 0})
    for n in range(5):
        await sidecar.call(SLOTS, f"id_{n}")
    assert (await sidecar.breaker("webhook"))["state"] == "open"
    world.webhook.seen.clear()

    async def slow(peer: Peer, _: Seen) -> bool:
        await go.wait()
        await peer.send(response(b"{}"))
        return True

    world.webhook.play = slow
    crowd = [asyncio.create_task(sidecar.call(SLOTS, f"x_{n}")) for n in range(30)]
    await until(lambda: sum(task.done() for task in crowd) == 20, "20 got the last answer")
    assert len(world.webhook.seen) == 10
    go.set()
    got = await asyncio.gather(*crowd)

    assert {answer.status for answer in got} == {200}
    assert sorted(answer.reason for answer in got) == ["last_answer"] * 20 + ["share"] * 10
    assert (await sidecar.breaker("webhook"))["state"] == "closed"
    assert sidecar.events("breaker_changed")[-1]["why"] == "last_resort"


async def test_active_health_opens_it_before_any_caller_suffers(world: World) -> None:
    health = {"probe": "tools/list", "every": "50ms", "unhealthy_after": 2}
    sidecar = await world.sidecar(backends={"mcp": {"health": health, **QUICK}})
    await until(lambda: sidecar.app.probes.well("mcp"), "the first probe was good")
    assert (await sidecar.call(SLOTS)).arm == "mcp"

    await world.mcp.refuse()
    await state_is(sidecar, "open")

    assert sidecar.events("breaker_changed")[0]["why"] == "unhealthy"
    assert (await sidecar.call(BOOK, "b")).reason == "rescue_open"
    health_page = await sidecar.get("/api/mcp/retell/health")
    assert (health_page.status, health_page.json["status"]) == (200, "degraded")


async def test_an_operator_outranks_it(world: World) -> None:
    sidecar = await world.sidecar(backends={"mcp": QUICK})

    for action, state, arm in (
        ("open", "forced_open", "webhook"),
        ("metrics-only", "metrics_only", "mcp"),
        ("close", "forced_closed", "mcp"),
        ("reset", "closed", "mcp"),
    ):
        changed = await sidecar.admin(f"/breakers/mcp/{action}?reason=test", method="POST")
        assert changed.json["after"] == state
        assert (await sidecar.call(SLOTS, action)).arm == arm
    who = [(one["who"], one["what"], one["why"]) for one in sidecar.events("operator_changed")]
    assert who[0] == ("local", "breaker open mcp", "test")
    assert len(who) == 4


@pytest.mark.parametrize("how", ["forced", "tripped"])
async def test_a_reload_keeps_its_state_and_the_metric_tells_it(world: World, how: str) -> None:
    sidecar = await world.sidecar()
    if how == "forced":
        await sidecar.admin("/breakers/mcp/open", method="POST")
    else:
        await break_it(world, sidecar)
    state = (await sidecar.breaker())["state"]

    await sidecar.write(world.rules(backends={"mcp": {"timeout": "3s"}}))

    assert (await sidecar.breaker())["state"] == state
    metrics = await sidecar.metrics()
    assert metrics.total("breaker_state", arm="mcp", state=state) == 1
    assert metrics.total("breaker_state", arm="mcp") == 1


async def test_a_disabled_breaker_counts_and_never_opens(world: World) -> None:
    world.mcp.play = mcp(dies)
    sidecar = await world.sidecar(backends={"mcp": {"breaker": {"enabled": False}}})

    got = [await sidecar.call(SLOTS, f"id_{n}") for n in range(12)]

    assert len(world.mcp.tools) == 12
    assert {answer.reason for answer in got} == {"rescue_reset"}
    assert (await sidecar.breaker())["state"] == "metrics_only"
