"""What the rules add to breakers: rates, tools of their own, verdicts by body, active health."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from tests.functional.conftest import World
from tests.functional.kit import BOOK, SLOTS, Sidecar, function, tools_call
from tests.functional.wire import (
    Origin,
    Peer,
    Play,
    Seen,
    answers,
    dies,
    freezes,
    in_turn,
    mcp,
    method_of,
    response,
    rpc,
    runs,
    text,
    until,
)

GOOD = runs(text('{"from":"mcp"}'))
CRASHED = runs(text("Error executing tool: connection refused", isError=True))
READS_CRASHES: dict[str, Any] = {
    "body_verdicts": [
        {"when": {"isError": True, "text": {"prefix": "Error executing"}}, "verdict": "failed"}
    ]
}
SHORT = {"open_for": "150ms"}


def whys(sidecar: Sidecar) -> list[str]:
    return [one["why"] for one in sidecar.events("breaker_changed")]


def named(of: dict[str, Play]) -> Play:
    """A play for each tool."""

    async def play(peer: Peer, seen: Seen) -> bool:
        return await of[orjson.loads(seen.body)["params"]["name"]](peer, seen)

    return play


# Rates.


async def test_an_arm_of_which_half_fails_is_opened_and_no_caller_notices(world: World) -> None:
    """Never two failures in a row: only the rate can see it."""
    world.mcp.play = mcp(in_turn(*[GOOD, dies] * 8))
    rates = {"failure_rate": "40%", "min_volume": 10, "window": "60s"}
    sidecar = await world.sidecar(backends={"mcp": {"breaker": rates}})

    got = [await sidecar.call(SLOTS, f"id_{n}") for n in range(12)]

    assert {answer.status for answer in got} == {200}
    assert [answer.arm for answer in got[:10]] == ["mcp", "webhook"] * 5
    assert [answer.reason for answer in got[10:]] == ["rescue_open"] * 2
    assert whys(sidecar) == ["failure_rate"]
    assert (await sidecar.breaker())["window"] == {
        "volume": 10, "failure_rate": 50.0, "slow_rate": None,
    }  # fmt: skip


async def test_an_arm_that_answers_too_slowly_is_opened(world: World) -> None:
    async def slow(peer: Peer, seen: Seen) -> bool:
        await asyncio.sleep(0.02)
        return await GOOD(peer, seen)

    world.mcp.play = mcp(slow)
    rates = {"slow": "10ms", "min_volume": 5, "window": "60s"}
    sidecar = await world.sidecar(backends={"mcp": {"breaker": rates}})

    got = [await sidecar.call(SLOTS, f"id_{n}") for n in range(6)]

    assert [answer.arm for answer in got] == ["mcp"] * 5 + ["webhook"]
    assert whys(sidecar) == ["slow_rate"]


# A breaker for each tool.


async def test_a_broken_tool_is_closed_off_alone_and_comes_back_alone(world: World) -> None:
    world.mcp.play = mcp(named({SLOTS: CRASHED, BOOK: GOOD}))
    keys = {"breaker": {"per_tool": True, **SHORT}, **READS_CRASHES}
    sidecar = await world.sidecar(backends={"mcp": keys})
    breaker = sidecar.app.handler.line.arms["mcp"].breaker

    broken = [await sidecar.call(SLOTS, f"id_{n}") for n in range(6)]
    booked = await sidecar.call(BOOK, "other")

    assert {answer.status for answer in broken} == {200}
    assert [answer.reason for answer in broken] == ["rescue_body"] * 5 + ["rescue_open"]
    assert booked.arm == "mcp"
    page = await sidecar.breaker()
    assert (page["state"], page["tools"][BOOK]["state"]) == ("closed", "closed")
    metrics = await sidecar.metrics()
    assert metrics.total("tool_breaker_state", arm="mcp", tool=SLOTS) == 1
    assert metrics.total("tool_breaker_transitions_total", arm="mcp", tool=SLOTS, to="open") == 1
    assert metrics.total("breaker_transitions_total", arm="mcp") == 0

    world.mcp.play = mcp(GOOD)
    await until(lambda: breaker.tools[SLOTS].snapshot(0.0).probed, "the arm was probed for it")
    trials = [await sidecar.call(SLOTS, f"trial_{n}") for n in range(3)]

    assert [answer.arm for answer in trials] == ["mcp"] * 3
    assert breaker.tools[SLOTS].is_passing
    told = [(one["tool"], one["why"]) for one in sidecar.events("breaker_changed")]
    assert told == [(SLOTS, "failures"), (SLOTS, "time_up"), (SLOTS, "trials_passed")]


async def test_an_arm_that_cannot_be_reached_is_closed_off_as_a_whole(world: World) -> None:
    sidecar = await world.sidecar(backends={"mcp": {"breaker": {"per_tool": True}}})
    await world.mcp.refuse()

    for n in range(5):
        await sidecar.call(SLOTS if n % 2 else BOOK, f"id_{n}")

    page = await sidecar.breaker()
    assert page["state"] == "open"
    assert {one["failures"] for one in page["tools"].values()} == {0}


async def test_an_operator_closes_off_one_tool(world: World) -> None:
    sidecar = await world.sidecar(backends={"mcp": {"breaker": {"per_tool": True}}})

    await sidecar.admin(f"/breakers/mcp/open?tool={SLOTS}&reason=test", method="POST")
    assert (await sidecar.call(SLOTS)).reason == "rescue_open"
    assert (await sidecar.call(BOOK, "b")).arm == "mcp"
    await sidecar.admin("/breakers/mcp/reset", method="POST")

    assert (await sidecar.call(SLOTS, "again")).arm == "mcp"
    assert sidecar.events("operator_changed")[0]["what"] == f"breaker open mcp {SLOTS}"


async def test_tools_that_a_reload_names_get_breakers_and_others_lose_theirs(world: World) -> None:
    sidecar = await world.sidecar(backends={"mcp": {"breaker": {"per_tool": True}}})
    await sidecar.admin(f"/breakers/mcp/open?tool={SLOTS}", method="POST")

    keys: dict[str, Any] = {"mcp": {"breaker": {"per_tool": True}}}
    await sidecar.write(world.rules(backends=keys, tools={"cancel": {"effect": "write"}}))
    page = await sidecar.breaker()
    assert {tool: one["state"] for tool, one in page["tools"].items()} == {
        BOOK: "closed", SLOTS: "forced_open", "cancel": "closed",
    }  # fmt: skip
    await sidecar.write(world.rules())

    assert (await sidecar.breaker())["tools"] == {}
    assert (await sidecar.metrics()).total("tool_breaker_state") == 0
    assert (await sidecar.call(SLOTS)).arm == "mcp"


# Verdicts from bodies.


@pytest.mark.parametrize("body", [function(SLOTS), tools_call(SLOTS)], ids=["function", "mcp"])
async def test_a_tool_that_crashed_is_no_business_no(world: World, body: bytes) -> None:
    world.mcp.play = mcp(CRASHED)
    target = "/mcp/call_a" if b"jsonrpc" in body else "/retell"
    plain = await world.sidecar()
    assert (await plain.post(target, body)).arm == "mcp"

    await plain.write(world.rules(backends={"mcp": READS_CRASHES}))

    assert (await plain.post(target, body)).reason == "rescue_body"


@pytest.mark.parametrize(
    ("target", "body"),
    [("/mcp/call_a", tools_call(SLOTS)), ("/retell", function(SLOTS))],
    ids=["mcp", "function"],
)
async def test_what_a_webhook_says_in_its_own_words_is_read(
    world: World, target: str, body: bytes
) -> None:
    world.webhook.play = answers(b'{"error":{"code":"DB_DOWN"}}')
    said = [{"when": {"error.code": "DB_DOWN"}, "verdict": "failed"}]
    webhook = {"body_verdicts": said}
    sidecar = await world.sidecar(split={"percent": 0}, backends={"webhook": webhook})

    answer = await sidecar.post(target, body)

    assert answer.reason == "last_answer"
    assert b"DB_DOWN" not in answer.body
    assert (await sidecar.breaker("webhook"))["failures"] == 1


# Active health.


async def page(world: World, *bodies: bytes) -> Origin:
    """An arm of the guide's kind: its health page says 200 whatever it finds."""
    latest = list(bodies)

    async def play(peer: Peer, seen: Seen) -> bool:
        if seen.target == b"/health":
            await peer.send(response(latest.pop(0) if len(latest) > 1 else latest[0]))
            return True
        await peer.send(response(b'{"from":"app"}'))
        return True

    return await world.origin("app", play)


async def test_a_health_page_that_says_200_whatever_it_finds_is_read(world: World) -> None:
    ill, well = b'{"status":"unhealthy"}', b'{"status":"healthy"}'
    app = await page(world, *[ill] * 3, well)
    health = {"path": "/health", "expect": {"status": ["healthy", "ok"]}, "every": "30ms",
              "unhealthy_after": 2}  # fmt: skip
    keys = {"handler": "tools", "url": f"{app.url}/tools", "health": health, "breaker": SHORT}
    sidecar = await world.sidecar(backends={"mcp": keys})
    breaker = sidecar.app.handler.line.arms["mcp"].breaker

    await until(lambda: whys(sidecar), "the breaker opened")
    assert whys(sidecar) == ["unhealthy"]
    assert (await sidecar.call(SLOTS)).reason == "rescue_open"
    status = (await sidecar.status())["arms"]["mcp"]["health"]
    assert status["ok"] or status["detail"] == "status is not as expected"
    await until(lambda: breaker.snapshot(0.0).probed, "it is well again")
    assert (await sidecar.call(SLOTS, "trial")).arm == "mcp"


@pytest.mark.parametrize("handler", ["mcp", "tools"])
async def test_an_arm_can_be_asked_what_callers_ask_it(world: World, handler: str) -> None:
    """Its catalogue may be fine while its database is gone."""
    seen_by: list[Seen] = []
    failing = asyncio.Event()

    async def play(peer: Peer, seen: Seen) -> bool:
        if handler == "mcp" and method_of(seen) != "tools/call":
            return await mcp(GOOD)(peer, seen)
        seen_by.append(seen)
        if failing.is_set():
            await peer.send(response(b"no", status=b"500 E"))
        elif handler == "mcp":
            await peer.send(rpc(seen, text("{}")))
        else:
            await peer.send(response(b'{"success":true}'))
        return True

    app = await world.origin("app", play)
    health = {"probe": SLOTS, "arguments": {"date": "tomorrow"}, "every": "30ms",
              "timeout": "5s", "unhealthy_after": 2}  # fmt: skip
    keys = {"handler": handler, "url": f"{app.url}/mcp", "health": health}
    sidecar = await world.sidecar(backends={"mcp": keys})

    await until(lambda: sidecar.app.probes.well("mcp"), "it is well")
    said = orjson.loads(seen_by[0].body)
    arguments = said["params"]["arguments"] if handler == "mcp" else said["arguments"]
    assert arguments == {"date": "tomorrow"}
    assert seen_by[0].value(b"user-agent") == b"callsplit-probe"
    failing.set()
    await until(lambda: whys(sidecar), "the breaker opened")

    assert whys(sidecar) == ["unhealthy"]
    assert (await sidecar.call(SLOTS)).reason == "rescue_open"


async def test_a_probe_that_hangs_is_given_up_and_wedges_nothing(world: World) -> None:
    hung: list[Seen] = []

    async def play(peer: Peer, seen: Seen) -> bool:
        if method_of(seen) == "tools/call":
            return await dies(peer, seen)
        if not hung:
            hung.append(seen)
            return await freezes(peer, seen)
        return await mcp(GOOD)(peer, seen)

    sidecar = await world.sidecar(backends={"mcp": {"breaker": SHORT, "timeout": "200ms"}})
    breaker = sidecar.app.handler.line.arms["mcp"].breaker
    await sidecar.call(SLOTS, "era")
    world.mcp.play = play
    for n in range(5):
        await sidecar.call(SLOTS, f"id_{n}")

    await until(lambda: breaker.snapshot(0.0).probed, "the second probe passed")

    assert len(hung) == 1
    assert whys(sidecar)[:4] == ["failures", "time_up", "probe_failed", "time_up"]


async def test_a_probe_that_a_reload_gives_up_wedges_nothing(world: World) -> None:
    """The arm moves while it is being probed."""
    asked = asyncio.Event()

    async def stuck(peer: Peer, seen: Seen) -> bool:
        asked.set()
        return await freezes(peer, seen)

    sidecar = await world.sidecar(backends={"mcp": {"breaker": SHORT}})
    breaker = sidecar.app.handler.line.arms["mcp"].breaker
    world.mcp.play = mcp(dies)
    for n in range(5):
        await sidecar.call(SLOTS, f"id_{n}")
    world.mcp.play = stuck
    await asked.wait()
    other = await world.origin("other", mcp(GOOD))

    keys = {"url": f"{other.url}/mcp", "breaker": SHORT, "timeout": "200ms"}
    await sidecar.write(world.rules(backends={"mcp": keys}))
    await until(lambda: breaker.snapshot(0.0).probed, "the arm was probed where it is now")

    assert (await sidecar.call(SLOTS, "trial")).arm == "mcp"
