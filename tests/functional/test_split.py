"""Which calls reach which arm, and that a call stays where it began."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable
from typing import Any

import pytest

from proxy.core.split import call_hash, in_share
from tests.functional.conftest import World
from tests.functional.kit import SLOTS, Sidecar, event, function, running, tools_call
from tests.functional.wire import Answer, answers, mcp, runs, text, until

SALT = "functional"


def retell_id(number: int) -> str:
    """An ID as Retell makes them."""
    return f"call_{call_hash(str(number), 'a'):08x}{call_hash(str(number), 'b'):08x}{number:011x}"


def soon() -> int:
    """A start at which every change made so far is in force."""
    return time.time_ns() // 1_000_000 + 10_000


async def arms_of(sidecar: Sidecar, ids: Iterable[str], **call: Any) -> dict[str, Answer]:
    """Ask for each call once, some at a time."""
    found: dict[str, Answer] = {}
    waiting = iter(ids)

    async def caller() -> None:
        for call_id in waiting:
            found[call_id] = await sidecar.post("/retell", function(SLOTS, call_id, **call))

    await asyncio.gather(*[caller() for _ in range(16)])
    return found


async def test_two_thousand_calls_go_where_the_hash_says(world: World) -> None:
    """S2, one by one; the shares over 100,000 are the core's own test."""
    sidecar = await world.sidecar(split={"percent": 25})
    ids = [retell_id(number) for number in range(2000)]

    got = await arms_of(sidecar, ids)

    wanted = {i: "mcp" if in_share(call_hash(i, SALT), 25) else "webhook" for i in ids}
    assert {call_id: answer.arm for call_id, answer in got.items()} == wanted
    assert {answer.reason for answer in got.values()} == {"share"}
    assert len(world.webhook.seen) == sum(arm == "webhook" for arm in wanted.values())
    ratio = (await sidecar.metrics()).total("rollout_actual_ratio")
    assert ratio == pytest.approx(len(world.mcp.tools) / 2000)


@pytest.mark.parametrize(("percent", "arm"), [(0, "webhook"), (100, "mcp")])
async def test_nobody_is_nobody_and_everybody_is_everybody(
    world: World, percent: int, arm: str
) -> None:
    sidecar = await world.sidecar(split={"percent": percent})

    got = await arms_of(sidecar, [retell_id(number) for number in range(300)])

    assert {answer.arm for answer in got.values()} == {arm}


async def test_raising_the_share_only_ever_adds_calls(world: World) -> None:
    """S1: over restarts, nobody leaves MCP on the way up."""
    ids = [retell_id(number) for number in range(200)]
    before: set[str] = set()

    for percent in (0, 10, 25, 50, 75, 100):
        folder = world.folder / str(percent)
        folder.mkdir()
        async with running(folder, world.rules(split={"percent": percent})) as sidecar:
            got = await arms_of(sidecar, ids)
        on_mcp = {call_id for call_id, answer in got.items() if answer.arm == "mcp"}
        assert before <= on_mcp
        assert len(on_mcp) == pytest.approx(2 * percent, abs=25)
        before = on_mcp


@pytest.mark.parametrize(("first", "then"), [(25, 75), (75, 25), (100, 0), (0, 100)])
async def test_a_call_stays_where_it_began_when_the_share_changes(
    world: World, first: int, then: int
) -> None:
    """S5."""
    sidecar = await world.sidecar(split={"percent": first})
    ids = [retell_id(number) for number in range(120)]
    before = await arms_of(sidecar, ids)

    await sidecar.write(world.rules(split={"percent": then}))
    after = await arms_of(sidecar, ids, start_timestamp=soon())
    fresh = await arms_of(sidecar, [f"{i}-new" for i in ids], start_timestamp=soon())

    assert {i: a.arm for i, a in after.items()} == {i: a.arm for i, a in before.items()}
    assert {answer.reason for answer in after.values()} == {"recorded"}
    assert {i: a.arm for i, a in fresh.items()} == {
        f"{i}-new": "mcp" if in_share(call_hash(f"{i}-new", SALT), then) else "webhook" for i in ids
    }


async def test_a_call_that_began_before_the_change_is_judged_by_its_start(world: World) -> None:
    """Also without a record: every replica and every restart agrees."""
    sidecar = await world.sidecar(split={"percent": 100})
    began = time.time_ns() // 1_000_000

    await sidecar.write(world.rules(split={"percent": 0}))

    assert (
        await sidecar.post("/retell", function(SLOTS, "old", start_timestamp=began))
    ).arm == "mcp"
    assert (
        await sidecar.post("/retell", function(SLOTS, "new", start_timestamp=soon()))
    ).arm == "webhook"


async def test_all_surfaces_of_one_call_reach_one_arm(world: World) -> None:
    """Function, MCP, tools and bare arguments: half a call on each side helps nobody."""
    sidecar = await world.sidecar(split={"percent": 50})

    for number in range(40):
        call_id = retell_id(number)
        header = f"X-Call-ID: {call_id}".encode()
        got = [
            await sidecar.post("/retell", function(SLOTS, call_id)),
            await sidecar.post("/mcp", tools_call(SLOTS), header),
            await sidecar.post(f"/mcp/{call_id}", tools_call(SLOTS)),
            await sidecar.post(f"/retell/fn/{SLOTS}?call_id={call_id}", b"{}"),
            await sidecar.post("/api/mcp/retell/tools", b'{"tool":"t","arguments":{}}', header),
        ]
        assert len({answer.arm for answer in got}) == 1
        assert {answer.reason for answer in got[1:]} == {"recorded"}


async def test_a_call_on_mcp_has_its_events_at_the_webhook(world: World) -> None:
    """By nature, not as a rescue: an MCP server takes no events."""
    sidecar = await world.sidecar()

    started = await sidecar.post("/retell", event("call_started", "one"))
    tool = await sidecar.call(SLOTS, "one")

    assert (started.arm, started.reason) == ("webhook", "kind")
    assert (tool.arm, tool.reason) == ("mcp", "recorded")
    assert (await sidecar.metrics()).total("rescues_total") == 0


async def test_ids_crafted_against_a_known_salt_say_nothing_about_a_secret_one(
    world: World,
) -> None:
    """S4."""
    crafted = [i for i in map(retell_id, range(3000)) if in_share(call_hash(i, ""), 10)][:250]
    sidecar = await world.sidecar(
        {"SALT": "only-we-know"}, split={"percent": 10, "salt": "env:SALT"}
    )

    got = await arms_of(sidecar, crafted)

    assert sum(answer.arm == "mcp" for answer in got.values()) < 60


# -- What outranks the share.


STAGING = {"when": {"agent_id": {"in": ["agent_staging"]}}, "to": "mcp", "test": True}


async def decided(sidecar: Sidecar, call_id: str, **call: Any) -> tuple[str, str]:
    answer = await sidecar.post("/retell", function(SLOTS, call_id, **call))
    return answer.arm, answer.reason


async def test_overrides_choose_by_agent_number_metadata_and_variables(world: World) -> None:
    overrides = [
        {"when": {"agent_id": {"in": ["agent_a"]}}, "to": "mcp"},
        {"when": {"metadata.company_id": {"in": [42]}}, "percent": 100},
        {"when": {"metadata.company_id": {"in": [43]}}, "percent": 0},
        {"when": {"dynamic_variables.vip": {"in": ["yes"]}}, "to": "mcp"},
        {"when": {"to_number": {"in": ["+1555"]}}, "to": "mcp"},
    ]
    sidecar = await world.sidecar(split={"percent": 0, "overrides": overrides})

    assert await decided(sidecar, "a", agent_id="agent_a") == ("mcp", "override")
    assert await decided(sidecar, "b", metadata={"company_id": 42}) == ("mcp", "override")
    assert await decided(sidecar, "c", metadata={"company_id": 43}) == ("webhook", "override")
    assert await decided(sidecar, "d", retell_llm_dynamic_variables={"vip": "yes"}) == (
        "mcp", "override",
    )  # fmt: skip
    assert await decided(sidecar, "e", to_number="+1555") == ("mcp", "override")
    assert await decided(sidecar, "f", agent_id="agent_b") == ("webhook", "share")
    assert await decided(sidecar, "a") == ("mcp", "recorded")


async def test_the_cap_outranks_overrides_but_not_tests(world: World) -> None:
    overrides = [STAGING, {"when": {"agent_id": {"in": ["agent_a"]}}, "to": "mcp"}]
    sidecar = await world.sidecar(split={"percent": 100, "cap": 0, "overrides": overrides})

    assert await decided(sidecar, "a", agent_id="agent_a") == ("webhook", "cap")
    assert await decided(sidecar, "b", agent_id="agent_staging") == ("mcp", "override")
    assert await decided(sidecar, "c") == ("webhook", "cap")


async def test_the_kill_switch_outranks_everything(world: World) -> None:
    sidecar = await world.sidecar(
        {"F": "force-token"},
        split={
            "enabled": False,
            "overrides": [STAGING],
            "force": {"header": "x-force", "token": "env:F"},
        },
    )

    forced = await sidecar.post("/retell", function(SLOTS, "a"), b"X-Force: mcp force-token")

    assert (forced.arm, forced.reason) == ("webhook", "kill_switch")
    assert await decided(sidecar, "b", agent_id="agent_staging") == ("webhook", "kill_switch")
    assert await decided(sidecar, "c") == ("webhook", "kill_switch")
    assert world.mcp.connections == 0


async def test_an_override_by_tool_or_header_speaks_of_one_request(world: World) -> None:
    """The tool that MCP does not have yet; the call itself stays where it is."""
    overrides = [
        {"when": {"tool": "transfer"}, "to": "webhook"},
        {"when": {"header.x-debug": {"in": ["old"]}}, "to": "webhook"},
    ]
    sidecar = await world.sidecar(split={"overrides": overrides})

    first = await sidecar.call("transfer", "one")
    second = await sidecar.call(SLOTS, "one")
    third = await sidecar.post("/retell", function(SLOTS, "one"), b"X-Debug: old")

    assert (first.arm, first.reason) == ("webhook", "override")
    assert (second.arm, second.reason) == ("mcp", "recorded")
    assert (third.arm, third.reason) == ("webhook", "override")


FORCED: dict[str, tuple[list[bytes], str, str]] = {
    "by its holder": ([b"X-Force: mcp force-token"], "mcp", "forced"),
    "back": ([b"X-Force: webhook force-token"], "webhook", "forced"),
    "with a wrong token": ([b"X-Force: mcp wrong-token"], "webhook", "share"),
    "without a token": ([b"X-Force: mcp"], "webhook", "share"),
    "to nowhere": ([b"X-Force: elsewhere force-token"], "webhook", "share"),
    "twice": ([b"X-Force: mcp force-token", b"X-Force: mcp force-token"], "webhook", "share"),
}


@pytest.mark.row("H7")
@pytest.mark.parametrize(("fields", "arm", "reason"), FORCED.values(), ids=FORCED)
async def test_only_a_token_forces_an_arm(
    world: World, fields: list[bytes], arm: str, reason: str
) -> None:
    """And whether it does or not, neither arm ever sees the token."""
    force = {"header": "x-force", "token": "env:F"}
    sidecar = await world.sidecar({"F": "force-token"}, split={"percent": 0, "force": force})

    answer = await sidecar.post("/retell", function(SLOTS), *fields)

    assert (answer.arm, answer.reason) == (arm, reason)
    for seen in (*world.mcp.seen, *world.webhook.seen):
        assert b"x-force" not in seen.names
        assert b"force-token" not in seen.head


async def test_a_forced_call_keeps_its_arm(world: World) -> None:
    force = {"header": "x-force", "token": "env:F"}
    sidecar = await world.sidecar({"F": "force-token"}, split={"percent": 0, "force": force})

    await sidecar.post("/retell", function(SLOTS, "one"), b"X-Force: mcp force-token")

    assert await decided(sidecar, "one") == ("mcp", "recorded")
    assert await decided(sidecar, "two") == ("webhook", "share")


async def test_a_header_that_nobody_configured_forces_nothing(world: World) -> None:
    sidecar = await world.sidecar(split={"percent": 0})

    for name in (b"X-Force", b"X-Callsplit-Force", b"X-Callsplit-Arm"):
        answer = await sidecar.post("/retell", function(SLOTS), name + b": mcp")
        assert answer.arm == "webhook"


async def test_the_kill_switch_by_reload_reaches_live_calls_at_once(world: World) -> None:
    """And off again, nothing resurrects: only calls that begin later come back."""
    sidecar = await world.sidecar()
    began = time.time_ns() // 1_000_000
    assert await decided(sidecar, "live", start_timestamp=began) == ("mcp", "share")

    await sidecar.write(world.rules(split={"enabled": False}))
    killed = await decided(sidecar, "live", start_timestamp=began)
    await sidecar.write(world.rules())
    await until(
        lambda: not sidecar.app.handler.line.splitter.present(sidecar.app.clock.wall_ms()).kill
    )
    after = await decided(sidecar, "live", start_timestamp=began)
    unrecorded = await decided(sidecar, "also old", start_timestamp=began)
    fresh = await decided(sidecar, "fresh", start_timestamp=soon())

    assert killed == ("webhook", "kill_switch")
    assert after[0] == unrecorded[0] == "webhook"
    assert fresh == ("mcp", "share")
    status = (await sidecar.status())["split"]
    assert status["kill_switch"] is False


async def test_explain_says_what_will_happen_and_changes_nothing(world: World) -> None:
    sidecar = await world.sidecar(split={"percent": 50, "overrides": [STAGING]})
    ids = [retell_id(number) for number in range(30)]

    told = {i: (await sidecar.admin(f"/explain?call_id={i}")).json for i in ids}
    got = await arms_of(sidecar, ids)

    for call_id in ids:
        explained = told[call_id]
        assert (explained["arm"], explained["reason"]) == (got[call_id].arm, "share")
        assert explained["hashed"] == call_hash(call_id, SALT)
    body = json.loads(function(SLOTS, "x", agent_id="agent_staging"))
    page = await sidecar.admin("/explain", method="POST", body=json.dumps(body).encode())
    assert (page.json["arm"], page.json["reason"]) == ("mcp", "override")
    again = (await sidecar.admin(f"/explain?call_id={ids[0]}")).json
    assert again["reason"] == "recorded"


async def test_without_any_call_id_the_old_arm_answers(world: World) -> None:
    world.mcp.play = mcp(runs(text("no")))
    world.webhook.play = answers(b'{"fine":1}')
    sidecar = await world.sidecar()

    answer = await sidecar.call(SLOTS, None)

    assert (answer.arm, answer.reason, answer.body) == ("webhook", "no_call_id", b'{"fine":1}')
