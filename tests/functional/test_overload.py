"""Too much, too slow, in circles: who waits, who is turned away, and that nothing storms."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from proxy.core.hedge import SAMPLES
from tests.functional.conftest import World
from tests.functional.kit import BOOK, PENDING, SAY, SLOTS, Sidecar, event, function, tools_call
from tests.functional.wire import (
    DEADLINE,
    Answer,
    Peer,
    Play,
    Seen,
    answers,
    dies,
    freezes,
    mcp,
    request,
    response,
    runs,
    text,
    until,
    waits,
)

FROM_WEBHOOK = b'{"from":"webhook"}'
NEVER = f"{DEADLINE * 6:.0f}s"
"""Longer than any test waits: what ends before was ended by the budget."""


def said(answer: Answer) -> str:
    assert answer.status == 200
    return str(answer.json["message"])


def inbound() -> bytes:
    about = {"from_number": "+15550001", "to_number": "+15550002", "agent_id": "a"}
    return json.dumps({"event": "call_inbound", "call_inbound": about}).encode()


# -- Both arms slow: row B4.


async def test_a_read_is_answered_within_its_budget_though_its_arm_hangs(world: World) -> None:
    world.mcp.play = mcp(freezes)
    sidecar = await world.sidecar(
        backends={"mcp": {"timeout": NEVER}},
        fallback={"budget": {"function": "600ms"}, "min_attempt": "100ms"},
    )
    answer = await sidecar.call(SLOTS)

    assert (answer.body, answer.reason) == (FROM_WEBHOOK, "rescue_timeout")
    assert (len(world.mcp.tools), len(world.webhook.seen)) == (1, 1)


@pytest.mark.parametrize(("tool", "spoken", "asked"), [(SLOTS, SAY, 1), (BOOK, PENDING, 0)])
async def test_with_both_arms_hanging_the_last_answer_comes_all_the_same(
    world: World, tool: str, spoken: str, asked: int
) -> None:
    """The read is tried once on each; the write is asked for once, and its outcome is unknown."""
    world.mcp.play, world.webhook.play = mcp(freezes), freezes
    sidecar = await world.sidecar(
        backends={"mcp": {"timeout": NEVER}, "webhook": {"timeout": "300ms"}},
        fallback={"budget": {"function": "600ms"}, "min_attempt": "100ms"},
        tools={tool: {"linger": "100ms"}},
    )
    answer = await sidecar.call(tool)

    assert (said(answer), answer.reason, answer.arm) == (spoken, "last_answer", "none")
    assert (len(world.mcp.tools), len(world.webhook.seen)) == (1, asked)


@pytest.mark.parametrize("kind", ["event", "inbound"])
async def test_what_retell_times_itself_is_answered_before_it_does(world: World, kind: str) -> None:
    """Their budget bounds everything, whatever an arm's own time-out says."""
    world.webhook.play = freezes
    sidecar = await world.sidecar(
        backends={"webhook": {"timeout": NEVER}},
        fallback={"budget": {kind: "400ms"}},
    )
    answer = await sidecar.post("/retell", event() if kind == "event" else inbound())

    if kind == "event":
        assert (answer.status, answer.value(b"retry-after")) == (503, b"5")
    else:
        assert (answer.status, answer.json) == (200, {"call_inbound": {}})
    assert len(world.webhook.seen) == 1


async def test_many_at_once_before_two_arms_that_hang_all_get_their_answer(world: World) -> None:
    world.mcp.play, world.webhook.play = mcp(freezes), freezes
    sidecar = await world.sidecar(
        backends={
            "mcp": {"timeout": NEVER, "connections": 4, "queue": 8},
            "webhook": {"timeout": "300ms", "connections": 4, "queue": 8},
        },
        fallback={"budget": {"function": "800ms"}, "min_attempt": "100ms"},
    )
    got = await asyncio.gather(*[sidecar.call(SLOTS, f"id_{n}") for n in range(60)])

    assert [said(answer) for answer in got] == [SAY] * 60
    lines = await sidecar.lines(60)
    assert all(len(line["attempts"]) <= 2 for line in lines)
    await sidecar.settled()


# -- Both arms down: row B7.


@pytest.mark.parametrize("way", ["refuse", "hang up"])
async def test_with_both_arms_down_everybody_hears_so_at_once_and_nobody_storms(
    world: World, way: str
) -> None:
    """At most two attempts per request, one at each arm; then the breakers spare both."""
    if way == "refuse":
        await world.mcp.refuse()
        await world.webhook.refuse()
    else:
        world.mcp.play = world.webhook.play = dies
    sidecar = await world.sidecar()

    got = [await sidecar.call(SLOTS, f"id_{n}") for n in range(40)]
    told = await sidecar.post("/retell", event())

    assert [(said(answer), answer.arm) for answer in got] == [(SAY, "none")] * 40
    assert (told.status, told.value(b"retry-after")) == (503, b"5")
    lines = await sidecar.lines(41)
    for line in lines:
        arms = [attempt["arm"] for attempt in line["attempts"]]
        assert len(arms) == len(set(arms)) <= 2
    assert {(await sidecar.breaker(arm))["state"] for arm in ("mcp", "webhook")} == {"open"}
    if way == "hang up":
        # Per exchange one connection to each at most; the MCP arm's first leg is its handshake.
        assert len(world.mcp.seen) <= 10
        assert len(world.webhook.seen) <= 41
        assert world.webhook.connections == len(world.webhook.seen)


async def test_a_write_with_both_arms_down_has_not_run_and_its_caller_hears_so(
    world: World,
) -> None:
    await world.mcp.refuse()
    await world.webhook.refuse()
    sidecar = await world.sidecar()
    answer = await sidecar.call(BOOK)

    assert (said(answer), answer.reason) == (SAY, "last_answer")


async def test_both_arms_are_used_again_as_soon_as_they_are_back(world: World) -> None:
    await world.mcp.refuse()
    await world.webhook.refuse()
    sidecar = await world.sidecar(backends={"webhook": {"breaker": {"failures": 50}}})
    for number in range(3):
        await sidecar.call(SLOTS, f"id_{number}")
    await world.webhook.listen()

    assert (await sidecar.call(SLOTS, "id_back")).body == FROM_WEBHOOK


# -- Waiting for a connection.


async def test_who_finds_every_connection_in_use_waits_a_moment_and_is_served(
    world: World,
) -> None:
    go = asyncio.Event()
    world.mcp.play = mcp(waits(go, runs(text('{"from":"mcp"}'))))
    narrow = {"connections": 1, "queue": 4, "queue_timeout": NEVER}
    sidecar = await world.sidecar(backends={"mcp": narrow})
    await learn(sidecar, world)
    go.clear()
    calls = [asyncio.create_task(sidecar.call(SLOTS, f"id_{n}")) for n in range(4)]
    upstream = sidecar.app.wiring.upstreams["mcp"]
    await until(lambda: upstream.waiting == 3)
    assert (await sidecar.metrics()).total("upstream_waiting", arm="mcp") == 3
    go.set()

    assert [(await call).arm for call in calls] == ["mcp"] * 4
    assert world.mcp.connections == 1


async def test_a_full_pool_is_no_failure_of_its_arm_and_the_other_answers(world: World) -> None:
    """Also a write: nothing of it was sent."""
    go = asyncio.Event()
    world.mcp.play = mcp(waits(go, runs(text('{"from":"mcp"}'))))
    narrow = {"connections": 1, "queue": 1, "queue_timeout": "50ms"}
    sidecar = await world.sidecar(backends={"mcp": narrow}, tools={BOOK: {"effect": "write"}})
    await learn(sidecar, world)
    go.clear()
    first = asyncio.create_task(sidecar.call(SLOTS, "id_first"))
    await until(lambda: sidecar.app.wiring.upstreams["mcp"].busy == 1)

    got = await asyncio.gather(*[sidecar.call(BOOK, f"id_{n}") for n in range(20)])
    go.set()

    assert {(answer.body, answer.reason) for answer in got} == {(FROM_WEBHOOK, "rescue_full")}
    assert len(world.webhook.seen) == 20
    assert (await first).arm == "mcp"
    breaker = await sidecar.breaker()
    assert (breaker["state"], breaker["failures"]) == ("closed", 0)
    metrics = await sidecar.metrics()
    assert metrics.total("rescues_total", reason="full") == 20
    assert metrics.total("upstream_full_total", arm="mcp") == 20


async def learn(sidecar: Sidecar, world: World) -> None:
    """Have the MCP arm's era known, so that a call is one exchange."""
    play, world.mcp.play = world.mcp.play, mcp(runs(text("{}")))
    await sidecar.call(SLOTS, "id_learn")
    world.mcp.play = play


# -- Too much at once.


async def crowd(sidecar: Sidecar, world: World, count: int) -> list[asyncio.Task[Answer]]:
    """So many reads that are under way, each waiting for its arm."""
    calls = [asyncio.create_task(sidecar.call(SLOTS, f"crowd_{n}")) for n in range(count)]
    await until(lambda: len(world.webhook.seen) == count)
    return calls


async def test_beyond_the_limit_callers_hear_say_and_events_come_again(world: World) -> None:
    go = asyncio.Event()
    world.webhook.play = waits(go, answers(FROM_WEBHOOK))
    sidecar = await world.sidecar(split={"percent": 0}, limits={"in_flight": 10})
    calls = await crowd(sidecar, world, 8)

    shed = await sidecar.post("/retell", event())
    assert (shed.status, shed.code, shed.value(b"retry-after")) == (503, "overloaded", b"5")

    calls += [asyncio.create_task(sidecar.call(SLOTS, f"more_{n}")) for n in range(2)]
    await until(lambda: len(world.webhook.seen) == 10)
    for body, target in ((function(BOOK, "id_b"), "/retell"), (tools_call(BOOK), "/mcp/id_m")):
        answer = await sidecar.post(target, body)
        assert answer.status == 200
        assert SAY in answer.body.decode()
        assert answer.reason == "last_answer"
    refused = await sidecar.post("/retell", inbound())
    assert (refused.status, refused.code) == (503, "overloaded")
    assert len(world.webhook.seen) == 10

    go.set()
    assert [(await call).body for call in calls] == [FROM_WEBHOOK] * 10
    assert (await sidecar.post("/retell", event())).status == 200
    metrics = await sidecar.metrics()
    assert metrics.total("shed_total", reason="in_flight") == 4
    assert metrics.total("shed_total", reason="in_flight", kind="event") == 1
    (told,) = sidecar.events("load_shed")
    assert (told["reason"], told["kind"]) == ("in_flight", "event")


async def test_an_event_that_was_shed_waits_in_the_outbox(world: World) -> None:
    go = asyncio.Event()
    world.webhook.play = waits(go, answers(FROM_WEBHOOK))
    sidecar = await world.sidecar(
        split={"percent": 0}, limits={"in_flight": 2}, outbox={"enabled": True}
    )
    calls = await crowd(sidecar, world, 1)

    taken = await sidecar.post("/retell", event(call_id="id_event"))
    go.set()

    assert taken.status == 200
    await calls[0]
    await until(lambda: any(seen.json.get("event") for seen in world.webhook.seen))
    assert (await sidecar.metrics()).total("shed_total", kind="event") == 1


async def test_a_late_loop_sheds_events_first_then_the_rest(world: World) -> None:
    sidecar = await world.sidecar(limits={"max_lag": "200ms"})
    lag, asked = sidecar.app.lag._lag, 0

    async def told() -> tuple[int, str]:
        nonlocal asked
        asked += 1
        event_said = await sidecar.post("/retell", event(call_id=f"event_{asked}"))
        return event_said.status, (await sidecar.call(SLOTS, f"id_{asked}")).reason

    def late(seconds: float) -> None:
        sidecar.app.lag.stop()  # from here on the test says what it measures
        for _ in range(5):
            lag.tick(seconds)

    late(0.1)
    assert await told() == (200, "share")
    late(0.3)
    assert await told() == (503, "share")
    late(0.5)
    assert await told() == (503, "last_answer")
    late(0.0)
    assert await told() == (200, "share")
    assert (await sidecar.metrics()).total("shed_total", reason="lag") == 3


async def test_the_lag_of_a_loop_that_is_blocked_is_seen(world: World) -> None:
    """The real thing: somebody computes on the loop."""
    sidecar = await world.sidecar()

    async def compute() -> None:
        import time

        while sidecar.app.lag.seconds < 0.12:
            time.sleep(0.25)
            await asyncio.sleep(0)

    await asyncio.wait_for(compute(), DEADLINE)
    assert (await sidecar.metrics()).total("event_loop_lag_seconds") > 0


# -- Circles: row B10.


async def turned_back(sidecar: Sidecar, world: World, **backends: Any) -> None:
    """Lead arms back to the sidecar, at these paths."""
    document = world.rules(split={"percent": 100 if "mcp" in backends else 0})
    for name, path in backends.items():
        document["backends"][name]["url"] = f"http://127.0.0.1:{sidecar.port}{path}"
    document["listen"]["address"] = f"127.0.0.1:{sidecar.port}"
    await sidecar.write(document)


@pytest.mark.parametrize("tool", [BOOK, SLOTS])
async def test_an_arm_that_leads_back_here_is_found_at_once_and_nothing_ran(
    world: World, tool: str
) -> None:
    sidecar = await world.sidecar()
    await turned_back(sidecar, world, mcp="/mcp")

    answer = await sidecar.call(tool)

    assert (answer.body, answer.reason) == (FROM_WEBHOOK, "rescue_config")
    assert len(world.webhook.seen) == 1
    lines = await sidecar.lines(1, code="loop_detected")
    assert {line["status"] for line in lines} == {508}
    assert len(lines) <= 2  # the handshake, perhaps, and the call
    metrics = await sidecar.metrics()
    assert metrics.total("config_faults_total", arm="mcp") == 1
    assert (await sidecar.breaker())["failures"] == 0


@pytest.mark.parametrize("body", [function(BOOK), event(), inbound()], ids=["f", "event", "in"])
async def test_with_every_arm_leading_back_a_request_still_ends(world: World, body: bytes) -> None:
    sidecar = await world.sidecar()
    await turned_back(sidecar, world, mcp="/mcp", webhook="/retell")

    answer = await sidecar.post("/retell", body)

    assert answer.status in (200, 503)
    assert b"loop" not in answer.body
    await sidecar.settled()
    assert len(await sidecar.lines(2)) <= 4


async def test_a_circle_through_other_sidecars_ends_at_the_limit(world: World) -> None:
    """A way that some other proxy turns back: our own word is lost on it, the count is not."""
    passed: list[bytes] = []

    async def bounce(peer: Peer, seen: Seen) -> bool:
        hops = seen.value(b"x-callsplit-hops") or b"-"
        passed.append(hops)
        client = await sidecar.connect()
        back = await client.ask(
            request(
                "POST", "/retell", seen.body, b"X-Callsplit-Hops: " + hops, b"Connection: close"
            )
        )
        await client.close()
        await peer.send(response(back.body, status=b"%d Back" % back.status))
        return True

    world.webhook.play = bounce
    sidecar = await world.sidecar(split={"percent": 0}, limits={"hops": 4})
    answer = await sidecar.call(SLOTS)

    assert passed == [b"1", b"2", b"3", b"4"]
    assert said(answer) == SAY
    assert (await sidecar.lines(1, code="loop_detected"))[0]["status"] == 508


@pytest.mark.parametrize("hops", [b"3", b"99", b"-1", b"1, 1", b"\x80"])
async def test_a_caller_who_counts_hops_harms_nobody_but_himself(world: World, hops: bytes) -> None:
    sidecar = await world.sidecar()
    own = await sidecar.post("/retell", function(SLOTS), b"X-Callsplit-Hops: " + hops)
    other = await sidecar.call(SLOTS)

    assert own.status in (400, 508)
    assert other.arm == "mcp"
    (seen,) = world.mcp.tools
    assert seen.values(b"x-callsplit-hops") == [b"1"]
    assert len(seen.values(b"x-callsplit-instance")) == 1


# -- A refusing MCP server.


async def test_a_server_that_refuses_everybody_is_not_asked_twice_by_everybody(
    world: World,
) -> None:
    """It is asked who it is, which runs nothing and is cheap, and no tool is asked of it."""
    sidecar = await world.sidecar()
    await learn(sidecar, world)
    before = len(world.mcp.seen)
    refusing: Play = answers(b"who are you", status=b"400 Bad Request")
    world.mcp.play = refusing

    got = [await sidecar.call(BOOK, f"id_{n}") for n in range(30)]

    assert {(answer.body, answer.reason) for answer in got} == {(FROM_WEBHOOK, "rescue_config")}
    assert len(world.mcp.tools) == 2  # the one that it answered, and the first that it refused
    assert len(world.mcp.seen) - before <= 2 * 30 + 2


# -- Hedges.


def hedged_reads(world: World) -> dict[str, Any]:
    return {"tools": {SLOTS: {"effect": "read", "hedge": True}}}


async def paced(sidecar: Sidecar) -> None:
    """Enough answers that the arm's pace is known."""
    for number in range(SAMPLES):
        await sidecar.call(SLOTS, f"pace_{number}")


async def test_the_other_arm_answers_a_read_whose_own_is_slow(world: World) -> None:
    """The slow one is let go: its connection goes back, its breaker hears nothing."""
    sidecar = await world.sidecar(**hedged_reads(world))
    await paced(sidecar)
    world.mcp.play = mcp(freezes)

    answer = await sidecar.call(SLOTS, "id_slow")

    assert (answer.body, answer.arm, answer.reason) == (FROM_WEBHOOK, "webhook", "hedged")
    assert len(world.webhook.seen) == 1
    (line,) = await sidecar.lines(1, call_id="id_slow")
    assert [(each["arm"], each["verdict"]) for each in line["attempts"]] == [
        ("webhook", "success"),
        ("mcp", "cut"),
    ]
    assert line["outcome"] == "ok"
    await sidecar.settled()
    assert (await sidecar.breaker())["failures"] == 0
    metrics = await sidecar.metrics()
    assert metrics.total("hedges_total", outcome="won") == 1
    assert metrics.total("rescues_total") == 0


async def test_a_write_and_a_read_that_is_not_hedged_are_never_asked_of_both(world: World) -> None:
    sidecar = await world.sidecar(
        backends={"mcp": {"timeout": "300ms"}},
        tools={SLOTS: {"effect": "read", "hedge": True}, BOOK: {"linger": "10ms"}},
    )
    await paced(sidecar)
    world.mcp.play = mcp(freezes)

    assert said(await sidecar.call(BOOK, "id_book")) == PENDING
    assert not world.webhook.seen
    assert (await sidecar.metrics()).total("hedges_total") == 0


async def test_hedges_stop_where_the_retry_budget_does(world: World) -> None:
    """An arm that has become slow is not asked twice by everybody."""
    sidecar = await world.sidecar(
        backends={"mcp": {"timeout": "400ms"}}, fallback={"retry_budget": "10%"},
        **hedged_reads(world),
    )  # fmt: skip
    await paced(sidecar)
    world.mcp.play = mcp(freezes)

    got = await asyncio.gather(*[sidecar.call(SLOTS, f"id_{n}") for n in range(50)])

    assert {answer.body for answer in got} == {FROM_WEBHOOK}
    assert len(world.webhook.seen) == 50
    metrics = await sidecar.metrics()
    won = metrics.total("hedges_total", outcome="won")
    assert metrics.total("hedges_total", outcome="refused") == 50 - won
    assert 3 <= won <= 10
    assert {answer.reason for answer in got} <= {"hedged", "rescue_timeout", "rescue_open"}
