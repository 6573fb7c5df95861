"""Events that no arm takes: answered, kept, delivered in their order, over restarts and crashes."""

from __future__ import annotations

import asyncio
import json
import signal
import time
from typing import Any

import pytest

from proxy.core.signature import SignatureResult, sign, verify
from tests.functional.conftest import World
from tests.functional.kit import Asking, Process, event, function
from tests.functional.wire import (
    OK,
    Origin,
    Play,
    answers,
    dies,
    freezes,
    in_turn,
    resets,
    until,
    waits,
)
from tests.redis_kit import redis_server

KEY = "key_outbox_0123456789"
QUICK: dict[str, Any] = {
    "outbox": {"enabled": True, "retry_first": "40ms", "retry_max": "200ms"},
    "backends": {
        "mcp": {"breaker": {"open_for": "200ms", "open_max": "200ms"}},
        "webhook": {"breaker": {"open_for": "200ms", "open_max": "200ms"}},
    },
}
NAMES = ("call_started", "call_ended", "call_analyzed")
UNPROCESSABLE = b"422 Unprocessable Content"


def names(origin: Origin) -> list[str]:
    """The events that reached an origin, in their order."""
    return [str(json.loads(seen.body)["event"]) for seen in origin.seen]


async def emptied(sidecar: Asking) -> None:
    async def empty() -> bool:
        shown = (await sidecar.admin("/outbox")).json
        return bool(shown["queued"] == shown["under_way"] == 0)

    async with asyncio.timeout(30):
        while not await empty():
            await asyncio.sleep(0.02)


async def test_events_wait_while_the_arms_are_down_and_arrive_once_in_order(world: World) -> None:
    await world.mcp.refuse()
    await world.webhook.refuse()
    sidecar = await world.sidecar(**QUICK)
    asked = [(name, f"call_x{call}") for name in NAMES for call in range(6)]
    taken = [await sidecar.post("/retell", event(name, call)) for name, call in asked]
    assert [answer.status for answer in taken] == [200] * 18

    await world.webhook.listen()
    await emptied(sidecar)

    by_call: dict[str, list[str]] = {}
    for seen in world.webhook.seen:
        body = json.loads(seen.body)
        by_call.setdefault(body["call"]["call_id"], []).append(body["event"])
    assert by_call == {f"call_x{call}": list(NAMES) for call in range(6)}
    metrics = await sidecar.metrics()
    assert metrics.total("outbox_taken_total") == 18
    assert metrics.total("outbox_deliveries_total", outcome="delivered") == 18
    assert metrics.total("outbox_entries") == 0


async def test_who_sent_it_hears_a_plain_2xx_and_the_line_says_queued(world: World) -> None:
    await world.webhook.refuse()
    sidecar = await world.sidecar(**QUICK)
    first = await sidecar.post("/retell", event("call_started"))
    second = await sidecar.post("/retell", event("call_ended"))

    assert (first.status, first.json) == (200, {"success": True, "status": "queued"})
    assert (first.arm, first.reason) == ("none", "last_answer")
    one, two = await sidecar.lines(2, flags=["queued"])
    assert [attempt["verdict"] for attempt in one["attempts"]] == ["not_sent"]
    assert two["attempts"] == [], "no arm is asked before those of its call that wait"
    assert second.status == 200


async def test_the_body_arrives_byte_by_byte_and_says_that_it_comes_again(world: World) -> None:
    world.webhook.play = in_turn(resets, answers(b""))
    sidecar = await world.sidecar(**QUICK)
    body = '{ "event":"call_ended", "call":{"call_id":"call_a"}, "x": "Grüß Gott ☎" }'.encode()
    first = await sidecar.post("/retell?tenant=7", body, b"X-App: yes")
    await emptied(sidecar)

    live, again = world.webhook.seen
    assert first.status == 200
    assert again.body == live.body == body
    assert again.value(b"x-app") == b"yes"
    assert again.head.split(b"\r\n")[0] == live.head.split(b"\r\n")[0]
    assert again.value(b"x-callsplit-call-id") == b"call_a"
    assert live.value(b"x-callsplit-redelivered") is None
    assert again.value(b"x-callsplit-redelivered") == b"1"
    assert again.value(b"x-request-id") != live.value(b"x-request-id")


def verifies(*, key: bytes, stale_after_ms: int) -> Play:
    """An app that checks Retell's signature as its SDK does."""

    async def play(peer: Any, seen: Any) -> bool:
        header = seen.value(b"x-retell-signature")
        result = verify([key], seen.body, header, time.time_ns() // 10**6, stale_after_ms)
        status = OK if result is SignatureResult.OK else b"401 Unauthorized"
        return await answers(b"{}", status=status)(peer, seen)

    return play


@pytest.mark.parametrize("signs", [True, False])
async def test_a_stale_signature_is_made_anew_or_named_as_the_reason(
    world: World, signs: bool
) -> None:
    """Signed an hour ago: within Retell's own window it would not hold any more."""
    world.webhook.play = verifies(key=KEY.encode(), stale_after_ms=300_000)
    sections = {**QUICK, "backends": {**QUICK["backends"]}, "auth": {"retell_keys": ["env:KEY"]}}
    if signs:
        own = {**QUICK["backends"]["webhook"], "sign": "env:KEY"}
        sections["backends"] = {**sections["backends"], "webhook": own}
    await world.webhook.refuse()
    sidecar = await world.sidecar({"KEY": KEY}, **sections)
    body = event()
    stamp = sign(KEY.encode(), body, time.time_ns() // 10**6 - 3_600_000)
    field = b"x-retell-signature: " + stamp

    assert (await sidecar.post("/retell", body, field)).status == 200
    await world.webhook.listen()

    if signs:
        await emptied(sidecar)
        return
    await until(lambda: world.webhook.seen, "it was tried again")

    async def reason() -> str:
        return str((await sidecar.admin("/outbox")).json["entries"][0]["reason"])

    async with asyncio.timeout(20):
        while "sign" not in (said := await reason()):
            await asyncio.sleep(0.02)
    assert said.startswith("webhook answered 401")
    assert "set backends.webhook.sign" in said
    assert any("outbox" in warning for warning in (await sidecar.status())["rules"]["warnings"])


async def test_a_queued_event_that_retell_sends_again_is_delivered_once(world: World) -> None:
    await world.webhook.refuse()
    sidecar = await world.sidecar(**QUICK)
    statuses = [(await sidecar.post("/retell", event())).status for _ in range(3)]
    await world.webhook.listen()
    await emptied(sidecar)

    assert all(200 <= status < 300 for status in statuses)
    assert names(world.webhook) == ["call_ended"]


async def test_an_alert_waits_too(world: World) -> None:
    """Retell sends it once, and never again."""
    await world.webhook.refuse()
    sidecar = await world.sidecar(**QUICK)
    alert = json.dumps({"event": "alert_triggered", "alert": {"name": "x"}}).encode()
    assert (await sidecar.post("/retell", alert)).status == 200

    await world.webhook.listen()
    await emptied(sidecar)

    assert names(world.webhook) == ["alert_triggered"]


async def test_what_a_caller_hears_is_never_queued(world: World) -> None:
    """A ringing phone and a tool want an answer, not a promise."""
    await world.mcp.refuse()
    await world.webhook.refuse()
    sidecar = await world.sidecar(**QUICK)
    inbound = json.dumps({"event": "call_inbound", "call_inbound": {"from_number": "+1"}}).encode()
    ringing = await sidecar.post("/retell", inbound)
    tool = await sidecar.post("/retell", function("get_available_slots"))

    assert ringing.json == {"call_inbound": {}}
    assert tool.json["success"] is False
    assert (await sidecar.admin("/outbox")).json["entries"] == []


async def test_without_an_outbox_events_get_503_as_ever(world: World) -> None:
    await world.webhook.refuse()
    sidecar = await world.sidecar(**{**QUICK, "outbox": {"enabled": False}})
    answer = await sidecar.post("/retell", event())

    assert answer.status == 503
    assert answer.value(b"retry-after") is not None
    assert not (world.folder / "state" / "outbox.db").exists()


async def test_a_full_outbox_is_503_too(world: World) -> None:
    await world.webhook.refuse()
    outbox = {**QUICK["outbox"], "limit": {"entries": 2}}
    sidecar = await world.sidecar(**{**QUICK, "outbox": outbox})
    statuses = [(await sidecar.post("/retell", event(call_id=f"call_x{n}"))).status
                for n in range(3)]  # fmt: skip

    assert statuses == [200, 200, 503]
    assert (await sidecar.metrics()).total("outbox_refused_total", reason="full") == 1
    await world.webhook.listen()
    await emptied(sidecar)


async def test_a_webhook_that_is_only_slow_is_not_overrun(world: World) -> None:
    """Of one call one at a time, of all as many as `parallel` says, beside live traffic."""
    await world.webhook.refuse()
    outbox = {**QUICK["outbox"], "parallel": 2}
    unbroken = {"webhook": {"breaker": {"enabled": False}}}  # Else one trial at a time goes out.
    sidecar = await world.sidecar(outbox=outbox, backends=unbroken)
    for number in range(8):
        await sidecar.post("/retell", event(call_id=f"call_x{number % 4}", name=f"e{number}"))
    go = asyncio.Event()
    world.webhook.play = waits(go, answers(b"{}"))
    await world.webhook.listen()
    await until(lambda: len(world.webhook.seen) >= 2, "both are under way")
    shown = (await sidecar.admin("/outbox")).json
    assert shown["under_way"] == 2

    go.set()
    await emptied(sidecar)

    assert len(world.webhook.seen) == 8


async def test_a_poisoned_event_is_dead_and_an_operator_brings_it_back(world: World) -> None:
    world.webhook.play = in_turn(dies, answers(b"{}", status=UNPROCESSABLE), answers(b"{}"))
    sidecar = await world.sidecar(**QUICK)
    assert (await sidecar.post("/retell", event())).status == 200

    async def dead() -> list[Any]:
        return list((await sidecar.admin("/outbox?state=dead")).json["entries"])

    async with asyncio.timeout(20):
        while not (found := await dead()):
            await asyncio.sleep(0.02)
    (entry,) = found
    assert entry["reason"] == "webhook answered 422"
    answer = await sidecar.admin(f"/outbox/{entry['id']}/retry?reason=mended", method="POST")
    assert answer.json == {"retried": 1, "left": 0}
    await emptied(sidecar)

    assert await dead() == []
    assert len(world.webhook.seen) == 3
    assert sidecar.events("outbox_gave_up")[0]["id"] == entry["id"]
    assert sidecar.events("operator_changed")[-1]["what"] == f"outbox retry {entry['id']}"


async def test_nothing_that_was_said_stands_in_the_log(world: World) -> None:
    await world.webhook.refuse()
    sidecar = await world.sidecar(**QUICK)
    said = "my number is 0123456789"
    await sidecar.post("/retell", event(transcript=said, from_number="+14155550100"))
    await world.webhook.listen()
    await emptied(sidecar)

    (line,) = await sidecar.lines(1)
    assert said not in sidecar.log + json.dumps(line)
    assert "+14155550100" not in sidecar.log


async def test_new_rules_reach_what_waits_already(world: World) -> None:
    """The webhook has moved: what waits goes to its new address."""
    await world.webhook.refuse()
    sidecar = await world.sidecar(**QUICK)
    assert (await sidecar.post("/retell", event())).status == 200
    moved = await world.origin("webhook", answers(b"{}"))

    document = world.rules(**QUICK, state_dir=str(world.folder / "state"))
    document["backends"]["webhook"]["url"] = f"{moved.url}/hook"
    await sidecar.write(document)
    await emptied(sidecar)

    assert names(moved) == ["call_ended"]


# -- Restarts.


async def started(world: World, **sections: Any) -> Process:
    process = world.process()
    document = world.rules(**{**QUICK, **sections}, state_dir=str(world.folder / "state"))
    await process.start(document)
    await process.up()
    return process


async def test_a_graceful_restart_loses_nothing_and_repeats_nothing(world: World) -> None:
    await world.webhook.refuse()
    first = await started(world)
    for name in NAMES:
        assert (await first.post("/retell", event(name))).status == 200
    first.signal(signal.SIGTERM)
    assert await first.code() == 0

    await world.webhook.listen()
    second = await started(world)
    await emptied(second)

    assert names(world.webhook) == list(NAMES)
    assert (await second.post("/retell", event("call_started"))).status in (200, 204)
    second.signal(signal.SIGTERM)
    assert await second.code() == 0


async def test_a_drain_lets_a_delivery_end(world: World) -> None:
    go = asyncio.Event()
    world.webhook.play = in_turn(dies, waits(go, answers(b"{}")))
    process = await started(world)
    assert (await process.post("/retell", event())).status == 200
    await until(lambda: len(world.webhook.seen) == 2, "it is under way")

    process.signal(signal.SIGTERM)
    await until(lambda: process.events("drain_started"), "the drain has begun")
    go.set()
    assert await process.code() == 0

    again = await started(world)
    assert (await again.admin("/outbox")).json["entries"] == []
    assert len(world.webhook.seen) == 2


async def test_a_second_sigterm_waits_for_no_delivery_and_loses_nothing(world: World) -> None:
    world.webhook.play = in_turn(dies, freezes, answers(b"{}"))
    backends = {"webhook": {**QUICK["backends"]["webhook"], "timeout": "10m"}}
    process = await started(world, listen={"drain_grace": "10m"}, backends=backends)
    assert (await process.post("/retell", event())).status == 200
    await until(lambda: len(world.webhook.seen) == 2, "it is under way")

    process.signal(signal.SIGTERM)
    await until(lambda: process.events("drain_started"), "the drain has begun")
    await process.hang_up()
    process.signal(signal.SIGTERM)
    assert await process.code() == 0

    again = await started(world)
    await emptied(again)
    assert names(world.webhook) == ["call_ended"] * 3


async def test_kill_9_between_the_answer_and_the_delivery_loses_nothing(world: World) -> None:
    await world.webhook.refuse()
    process = await started(world)
    clients = await asyncio.gather(
        *(process.post("/retell", event(call_id=f"call_x{n}")) for n in range(30))
    )
    assert [answer.status for answer in clients] == [200] * 30
    process.signal(signal.SIGKILL)
    await process.code()

    await world.webhook.listen()
    again = await started(world)
    await emptied(again)

    ids = [json.loads(seen.body)["call"]["call_id"] for seen in world.webhook.seen]
    assert sorted(ids) == sorted(f"call_x{n}" for n in range(30))


async def test_kill_9_in_the_middle_of_a_delivery_repeats_it_and_loses_nothing(
    world: World,
) -> None:
    """At least once: nobody can know whether the arm has taken it."""
    world.webhook.play = in_turn(dies, freezes, answers(b"{}"))
    process = await started(world)
    assert (await process.post("/retell", event())).status == 200
    await until(lambda: len(world.webhook.seen) == 2, "it is under way")
    process.signal(signal.SIGKILL)
    await process.code()

    again = await started(world)
    await emptied(again)

    assert names(world.webhook) == ["call_ended"] * 3


async def test_replicas_without_a_volume_share_a_redis(world: World) -> None:
    """The one that took it ends, and never comes back; another one delivers."""
    async with redis_server() as redis:
        store = {"outbox": {**QUICK["outbox"], "store": redis.url}}
        await world.webhook.refuse()
        one = await started(world, **store)
        assert (await one.post("/retell", event("call_started"))).status == 200
        one.signal(signal.SIGTERM)
        await one.code()

        two = await started(world, **store)
        assert (await two.post("/retell", event("call_ended"))).status == 200
        await until(lambda: two.out.read_text().endswith("}\n"), "its line is written")
        line = json.loads(two.out.read_text().splitlines()[-1])
        assert line["attempts"] == [], "it joined the queue that another replica had begun"
        await world.webhook.listen()
        await emptied(two)

        assert names(world.webhook) == ["call_started", "call_ended"]
        await two.stop()
