"""The tool cache on the path: who hears a kept answer, and who must not."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.functional.conftest import World
from tests.functional.kit import BOOK, SAY, SLOTS, Sidecar, function, tools_call
from tests.functional.wire import (
    Answer,
    Peer,
    Seen,
    answers,
    dies,
    mcp,
    rpc,
    runs,
    text,
    until,
    waits,
)

CACHED: dict[str, Any] = {
    SLOTS: {"effect": "read", "cache": "5m", "cache_key": ["args", "metadata.company_id"]},
    BOOK: {"effect": "write", "invalidates": [SLOTS]},
}


def counting() -> Any:
    """Every run of the tool says its number."""
    said = [0]

    async def play(peer: Peer, seen: Seen) -> bool:
        said[0] += 1
        await peer.send(rpc(seen, text(f'{{"run":{said[0]}}}')))
        return True

    return mcp(play)


async def slots(sidecar: Sidecar, company: int, call_id: str = "call_a", **args: Any) -> Answer:
    body = function(SLOTS, call_id, args, metadata={"company_id": company})
    return await sidecar.post("/retell", body)


async def book(sidecar: Sidecar, company: int, call_id: str = "call_a", **args: Any) -> Answer:
    body = function(BOOK, call_id, args, metadata={"company_id": company})
    return await sidecar.post("/retell", body)


async def test_a_kept_answer_serves_other_calls_of_the_same_customer(world: World) -> None:
    world.mcp.play = counting()
    sidecar = await world.sidecar(tools=CACHED)

    first, second = await slots(sidecar, 42), await slots(sidecar, 42, "call_b")
    other, later = await slots(sidecar, 43, "call_c"), await slots(sidecar, 42, day=2)

    assert [answer.json["run"] for answer in (first, second, other, later)] == [1, 1, 2, 3]
    assert (second.arm, second.reason) == ("mcp", "cached")
    assert int(second.value(b"x-callsplit-age") or b"-1") >= 0
    metrics = await sidecar.metrics()
    assert metrics.total("cache_total", tool=SLOTS, result="hit") == 1
    assert metrics.total("cache_entries") == 3


async def test_a_booking_makes_its_customer_ask_anew_and_nobody_else(world: World) -> None:
    world.mcp.play = counting()
    sidecar = await world.sidecar(tools=CACHED)
    await slots(sidecar, 42)
    await slots(sidecar, 43)

    await book(sidecar, 42, "call_b")

    assert (await slots(sidecar, 42)).json == {"run": 4}
    assert (await slots(sidecar, 43)).json == {"run": 2}


async def test_a_booking_that_may_have_gone_through_makes_him_ask_anew_too(world: World) -> None:
    world.mcp.play = counting()
    sidecar = await world.sidecar(tools=CACHED)
    await slots(sidecar, 42)
    play, world.mcp.play = world.mcp.play, mcp(dies)

    await book(sidecar, 42, "call_b")
    world.mcp.play = play

    assert (await slots(sidecar, 42)).json == {"run": 2}


async def test_each_arm_is_asked_for_its_own_callers(world: World) -> None:
    sidecar = await world.sidecar(
        tools=CACHED, split={"percent": 0, "overrides": [
            {"when": {"agent_id": {"in": ["new"]}}, "to": "mcp", "test": True},
        ]},
    )  # fmt: skip
    about = {"metadata": {"company_id": 42}}
    new = function(SLOTS, "call_new", {}, agent_id="new", **about)
    old = function(SLOTS, "call_old", {}, **about)

    got = [await sidecar.post("/retell", body) for body in (new, old, new, old)]

    assert [answer.arm for answer in got] == ["mcp", "webhook"] * 2
    assert [answer.reason for answer in got][2:] == ["cached", "cached"]
    assert (len(world.mcp.tools), len(world.webhook.seen)) == (1, 1)


async def test_twins_share_one_attempt(world: World) -> None:
    go = asyncio.Event()
    world.mcp.play = mcp(waits(go, runs(text('{"run":1}'))))
    sidecar = await world.sidecar(tools=CACHED)
    asking = [asyncio.ensure_future(slots(sidecar, 42, f"twin_{n}")) for n in range(10)]
    await until(lambda: sidecar.app.handler.inflight == 10, "all of them are here")
    await until(lambda: world.mcp.tools, "the first is at work")

    go.set()
    got = await asyncio.gather(*asking)

    assert {answer.body for answer in got} == {b'{"run":1}'}
    assert sorted(answer.reason for answer in got) == ["cached"] * 9 + ["share"]
    assert len(world.mcp.tools) == 1


async def test_instead_of_no_answer_one_past_its_time_is_heard(world: World) -> None:
    stale = {**CACHED, SLOTS: {**CACHED[SLOTS], "cache": "1ms", "stale_if_error": "1h"}}
    sidecar = await world.sidecar(tools=stale)
    first = await slots(sidecar, 42)
    await world.mcp.refuse()
    await world.webhook.refuse()

    second, nothing = await slots(sidecar, 42), await slots(sidecar, 43)

    assert (second.body, second.reason) == (first.body, "cached")
    assert second.value(b"x-callsplit-stale") == b"true"
    assert nothing.json["message"] == SAY
    (line,) = await sidecar.lines(1, reason="cached")
    assert line["flags"] == ["stale"]


async def test_a_failure_is_not_kept(world: World) -> None:
    world.webhook.play = answers(b'{"success":false,"message":"closed"}')
    sidecar = await world.sidecar(tools=CACHED, split={"percent": 0})

    for _ in range(2):
        assert (await slots(sidecar, 42)).json["message"] == "closed"

    assert len(world.webhook.seen) == 2


async def test_an_mcp_caller_hears_a_kept_answer_under_its_own_id(world: World) -> None:
    by_args = {SLOTS: {"effect": "read", "cache": "5m", "cache_key": ["args"]}}
    sidecar = await world.sidecar(tools=by_args, auth={"require": {"mcp": "none"}})
    fields = (
        b"Accept: application/json, text/event-stream",
        b"Content-Type: application/json",
        b"MCP-Protocol-Version: 2025-11-25",
    )
    for rpc_id in ("one", 2):
        answer = await sidecar.post("/mcp/call_a", tools_call(SLOTS, rpc_id=rpc_id), *fields)
        assert answer.json["id"] == rpc_id

    assert answer.reason == "cached"
    assert len(world.mcp.tools) == 1


async def test_a_reload_keeps_what_its_rules_do_not_touch(world: World) -> None:
    world.mcp.play = counting()
    sidecar = await world.sidecar(tools=CACHED)
    await slots(sidecar, 42)

    await sidecar.write(world.rules(tools=CACHED, limits={"tools_per_minute": 1000}))
    assert (await slots(sidecar, 42)).reason == "cached"

    changed = {**CACHED, SLOTS: {**CACHED[SLOTS], "cache": "1m"}}
    await sidecar.write(world.rules(tools=changed))
    assert (await slots(sidecar, 42)).json == {"run": 2}
