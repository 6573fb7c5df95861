"""Rules that change under traffic, and rules that cannot be used."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.functional.conftest import World
from tests.functional.kit import BOOK, SLOTS, Crowd, Sidecar, event, function, write_rules
from tests.functional.wire import (
    Peer,
    Seen,
    answers,
    dies,
    finishes,
    mcp,
    request,
    response,
    runs,
    text,
    until,
)


def crowd_at(sidecar: Sidecar, callers: int = 6) -> Crowd:
    """Callers who go on until they are told to stop."""

    async def call(caller: int, crowd: Crowd) -> None:
        number = 0
        while not crowd.over:
            number += 1
            body = function(SLOTS, f"{caller}-{number}")
            crowd.got.append(await sidecar.post("/retell", body))

    return Crowd(*[partial(call, caller) for caller in range(callers)])


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_a_hundred_reloads_under_traffic_cost_nobody_anything(world: World) -> None:
    """C2.  Each exchange asks both arms, and both by the same version of the rules."""
    world.mcp.play = dies

    def version(number: int) -> dict[str, Any]:
        return world.rules(
            backends={
                "mcp": {
                    "handler": "tools",
                    "url": f"{world.mcp.url}/v{number}",
                    "breaker": {"enabled": False},
                },
                "webhook": {"url": f"{world.webhook.url}/v{number}"},
            }
        )

    sidecar = await world.sidecar(**version(0))
    loaded = sidecar.app.condition
    crowd = crowd_at(sidecar)
    for number in range(1, 101):
        write_rules(sidecar.rules_path, version(number))
        await sidecar.app.rules_watch.reload()
        await crowd.more(4)
    got = await crowd.stop()

    assert len(sidecar.events("rules_loaded")) == 101
    assert loaded.loaded.rules.backends["mcp"].url == f"{world.mcp.url}/v100"
    assert {(answer.status, answer.reason) for answer in got} == {(200, "rescue_reset")}
    asked = {seen.value(b"x-request-id"): seen.target for seen in world.mcp.seen}
    rescued = {seen.value(b"x-request-id"): seen.target for seen in world.webhook.seen}
    assert asked == rescued
    assert len(asked) == len(got)
    assert len(set(asked.values())) > 50


async def test_a_backend_that_moves_takes_its_new_calls_along(world: World) -> None:
    """C3: what runs on the old one ends there; its connections go, and no file is left open."""
    moved = await world.origin("moved", answers(b'{"from":"moved"}'))
    go = asyncio.Event()

    async def slow(peer: Peer, _: Seen) -> bool:
        await go.wait()
        await peer.send(response(b'{"from":"old"}'))
        return True

    world.webhook.play = slow
    sidecar = await world.sidecar(split={"percent": 0})
    running = [asyncio.create_task(sidecar.call(BOOK, f"old_{n}")) for n in range(5)]
    await until(lambda: len(world.webhook.seen) == 5)

    backend = {"url": f"{moved.url}/hook"}
    await sidecar.write(world.rules(split={"percent": 0}, backends={"webhook": backend}))
    new = await sidecar.call(BOOK, "new")
    assert world.webhook.open == 5
    go.set()
    old = await asyncio.gather(*running)
    await until(lambda: world.webhook.open == 0, "the old pool is empty")

    assert new.body == b'{"from":"moved"}'
    assert {answer.body for answer in old} == {b'{"from":"old"}'}


async def test_backends_that_keep_moving_leave_no_file_open(world: World) -> None:
    """C3, thirty times, under traffic."""
    other = await world.origin("other", answers(b'{"from":"other"}'))
    sidecar = await world.sidecar(split={"percent": 0})
    crowd = crowd_at(sidecar)
    await crowd.more(50)
    before = open_files()

    for number in range(30):
        url = other.url if number % 2 == 0 else world.webhook.url
        backend = {"url": f"{url}/hook"}
        write_rules(
            sidecar.rules_path, world.rules(split={"percent": 0}, backends={"webhook": backend})
        )
        await sidecar.app.rules_watch.reload()
        await crowd.more(5)
    await until(lambda: other.open == 0, "the other pool is empty")
    got = await crowd.stop()
    await sidecar.settled()

    assert {answer.status for answer in got} == {200}
    assert {answer.body for answer in got} == {b'{"from":"webhook"}', b'{"from":"other"}'}
    assert open_files() <= before + 4
    assert len(sidecar.app.tasks) < 10


async def test_a_late_write_outlives_the_backend_it_was_sent_to(world: World) -> None:
    go, ends = asyncio.Event(), list[str]()
    moved = await world.origin("moved", mcp(runs(text("{}"))))
    world.mcp.play = mcp(finishes(go, ends))
    timeouts = {"mcp": {"timeout": "100ms"}, "webhook": {"timeout": "100ms"}}
    sidecar = await world.sidecar(backends=timeouts)
    assert (await sidecar.call(BOOK, "one")).reason == "last_answer"

    backends = {**timeouts, "mcp": {"url": f"{moved.url}/mcp"}}
    await sidecar.write(world.rules(backends=backends))
    assert (await sidecar.call(BOOK, "two")).arm == "mcp"
    await asyncio.sleep(0.4)
    assert not ends
    go.set()
    await until(lambda: ends)

    assert ends == ["finished"]


@pytest.mark.parametrize("killed", [False, True])
async def test_a_live_call_stays_on_an_arm_that_leaves_the_split(
    world: World, killed: bool
) -> None:
    """Its tools stay, its events go to the webhook, its failures are rescued there."""
    second = await world.origin("second", mcp(runs(text('{"from":"second"}'))))
    sidecar = await world.sidecar()
    assert (await sidecar.call(SLOTS, "live")).arm == "mcp"
    rules = world.rules(
        split={"to": "mcp2", "enabled": not killed},
        backends={"mcp2": {"handler": "mcp", "url": f"{second.url}/mcp"}},
    )

    await sidecar.write(rules)
    tool = await sidecar.call(SLOTS, "live")
    ended = await sidecar.post("/retell", event(call_id="live"))
    await world.mcp.refuse()
    failed = await sidecar.call(BOOK, "live")
    del rules["backends"]["mcp"]
    await sidecar.write(rules)
    heir = await sidecar.call(SLOTS, "live")

    assert (ended.status, ended.arm) == (200, "webhook")
    if killed:
        assert {a.reason for a in (tool, failed, heir)} == {"kill_switch"}
        assert {a.arm for a in (tool, failed, heir)} == {"webhook"}
    else:
        assert (tool.arm, tool.reason) == ("mcp", "recorded")
        assert (failed.arm, failed.reason) == ("webhook", "rescue_connect")
        assert (heir.arm, heir.reason) == ("mcp2", "recorded")


async def test_an_arm_is_renamed_while_a_body_is_on_its_way(world: World) -> None:
    """Calls on record move with their arm at once, also those whose request had begun before."""
    sidecar = await world.sidecar()
    assert (await sidecar.call(BOOK)).arm == "mcp"
    client = await sidecar.connect()
    raw = request("POST", "/retell", function(BOOK, args={"another": 1}))
    await client.send(raw[:-1])
    await until(lambda: sidecar.app.handler.inflight == 1)

    renamed = world.rules(split={"to": "fresh"})
    renamed["backends"]["fresh"] = renamed["backends"].pop("mcp")
    await sidecar.write(renamed)
    await client.send(raw[-1:])
    answer = await client.answer()

    assert (answer.status, answer.arm, answer.reason) == (200, "fresh", "recorded")


async def test_a_change_that_says_nothing_new_disturbs_nothing(world: World) -> None:
    sidecar = await world.sidecar()
    await sidecar.call(SLOTS)
    opened = world.mcp.connections

    await sidecar.write(json.dumps(world.rules(), indent=4) + "\n# a comment\n")
    await sidecar.call(SLOTS, "other")

    assert world.mcp.connections == opened
    assert (await sidecar.status())["rules"]["fault"] is None


async def test_limits_remember_over_a_reload(world: World) -> None:
    """Or every saved file would be a fresh allowance."""
    limits = {"tools_per_minute": 2, "burst": 1}
    sidecar = await world.sidecar(limits=limits)
    await sidecar.call(BOOK, "one")
    await sidecar.call(BOOK, "two")

    await sidecar.write(world.rules(limits=limits, backends={"mcp": {"timeout": "3s"}}))

    assert (await sidecar.call(BOOK, "three")).reason == "last_answer"


BAD = {
    "no YAML": "split: {percent: 10",
    "a duplicate key": "split: {percent: 10, percent: 20}",
    "an unknown key": "splitt: {percent: 10}",
    "a wrong type": "split: {percent: no}",
    "out of range": "split: {percent: 101}",
    "no number": "split: {percent: .nan}",
    "empty": "",
    "only a comment": "# nothing\n",
    "a tag": "split: !!python/object/apply:os.system ['true']",
    "a list": "- a\n- b\n",
    "an unknown backend": "split: {to: nowhere}",
}


@pytest.mark.parametrize("text", BAD.values(), ids=BAD)
async def test_a_bad_file_changes_nothing_and_everybody_can_see_it(world: World, text: str) -> None:
    sidecar = await world.sidecar()
    digest = (await sidecar.status())["rules"]["digest"]
    whole = world.rules()
    lines = [f"{key}: {json.dumps(value)}" for key, value in whole.items() if key != "split"]
    content = "\n".join([*lines, text]) if "split" in text else text

    await sidecar.write(content)

    page = (await sidecar.status())["rules"]
    assert page["digest"] == digest
    assert page["fault"]
    assert (await sidecar.metrics()).total("rules_last_reload_success") == 0
    (refused,) = sidecar.events("rules_refused")
    assert refused["faults"]
    assert (await sidecar.call(SLOTS)).arm == "mcp"

    await sidecar.write(world.rules(backends={"mcp": {"timeout": "3s"}}))

    assert (await sidecar.status())["rules"]["fault"] is None
    assert (await sidecar.metrics()).total("rules_last_reload_success") == 1


async def test_a_bad_file_that_is_put_back_as_it_was_is_no_fault_any_more(world: World) -> None:
    """The way back that operators take first: undo the edit."""
    sidecar = await world.sidecar()

    await sidecar.write("nonsense: [")
    assert (await sidecar.status())["rules"]["fault"]
    await sidecar.write(world.rules())

    assert (await sidecar.status())["rules"]["fault"] is None
    assert (await sidecar.metrics()).total("rules_last_reload_success") == 1


async def test_rules_without_a_usable_credential_are_no_rules_at_reload(world: World) -> None:
    """A required credential that nobody can have: the old rules stay."""
    auth = {"tokens": ["env:T"], "require": {"mcp": ["token"], "tools": ["token"]}}
    sidecar = await world.sidecar({"T": "token"}, auth=auth)

    await sidecar.write(world.rules(auth={**auth, "tokens": ["env:GONE?"]}))

    assert "auth.require" in (await sidecar.status())["rules"]["fault"]
    assert (await sidecar.post("/mcp", b"{}")).status == 401


OPEN_TO_OTHERS: dict[str, Any] = {
    "listen": {"address": "0.0.0.0:0"},
    "admin": {"address": "0.0.0.0:0", "token": "env:ADMIN"},
    "auth": {
        "tokens": ["env:TOKEN"],
        "require": {
            kind: ["token"]
            for kind in ("alert", "args", "event", "function", "inbound", "mcp", "tools")
        },
    },
}


@pytest.mark.parametrize("kept", ["auth", "admin"])
async def test_a_new_address_opens_nothing_while_the_old_one_is_in_use(
    world: World, kept: str
) -> None:
    """It needs a restart: until then what is open to others must stay as guarded as that asks."""
    sidecar = await world.sidecar({"TOKEN": "t", "ADMIN": "a"}, **OPEN_TO_OTHERS)
    guards = {"auth": OPEN_TO_OTHERS["auth"], "admin": {"token": "env:ADMIN"}}

    await sidecar.write(world.rules(**{kept: guards[kept]}))

    assert len(sidecar.events("rules_refused")) == 1
    assert (await sidecar.call(BOOK)).status == 401
    assert (await sidecar.admin("/status")).status == 401


async def test_keys_that_need_a_restart_say_so(world: World) -> None:
    sidecar = await world.sidecar()

    await sidecar.write(world.rules(metrics={"namespace": "other"}))

    (told,) = sidecar.events("restart_needed")
    assert (told["key"], told["running"]) == ("metrics.namespace", "t")
    assert (await sidecar.metrics()).total("rules_last_reload_success") == 1


# -- In a process of its own: what could kill it must not.


def hostile() -> dict[str, str]:
    """File contents by name."""
    alias = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 9)}]\n" for n in range(9)
    )
    return {
        "200,000 brackets": "a: " + "[" * 200_000,
        "200,000 closed brackets": "a: " + "[" * 200_000 + "]" * 200_000,
        "200,000 braces": "{a: " * 200_000,
        "200,000 indents": "".join(" " * n + "a:\n" for n in range(800)),
        "200,000 dashes": "- " * 200_000 + "a",
        "an alias bomb": alias,
        "an alias of itself": "a: &a [*a]\n",
        "a merge of itself": "a: &a {<<: *a}\n",
        "python objects": "a: !!python/object/new:os._exit [1]\n",
        "binary": "\x00\x01\x02",
        "a long scalar": "a: " + "x" * 900_000,
        "many documents": "---\na: 1\n" * 1000,
        "many keys": "".join(f"k{n}: 1\n" for n in range(50_000)),
        "quotes that never end": 'a: "' + "\\x41" * 100_000,
        "a number of a million digits": "version: " + "9" * 1_000_000,
    }


async def test_no_rules_file_ends_the_process(world: World) -> None:
    """C1.  Under traffic, with the exit code as the witness."""
    process = world.process()
    await process.start(world.rules())
    await process.up()
    names = hostile()

    async def survives(name: str, refusals: int) -> None:
        def refused() -> bool:
            return len(process.events("rules_refused")) >= refusals

        await until(lambda: refused() or process.ended, name)
        assert not process.ended, name
        assert (await process.call(SLOTS)).arm == "mcp", name
        assert (await process.status())["rules"]["fault"], name

    for number, (name, content) in enumerate(names.items(), 1):
        write_rules(process.rules_path, content)
        await survives(name, number)
    assert (await process.metrics()).total("rules_last_reload_success") == 0
    for put in (as_huge_file, as_fifo, as_folder, as_nothing):
        count = len(process.events("rules_refused"))
        put(process.rules_path)
        process.signal(signal.SIGHUP)
        await survives(put.__name__, count + 1)

    write_rules(process.rules_path, world.rules(backends={"mcp": {"timeout": "3s"}}))
    await until(lambda: len(process.events("rules_loaded")) == 2)
    assert (await process.status())["rules"]["fault"] is None


def as_nothing(path: Path) -> None:
    if path.is_dir():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


def as_folder(path: Path) -> None:
    as_nothing(path)
    path.mkdir()


def as_fifo(path: Path) -> None:
    """Who opens one to read waits for ever."""
    as_nothing(path)
    os.mkfifo(path)


def as_huge_file(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(100 * 2**20)


async def test_a_config_map_swap_is_noticed(world: World) -> None:
    """Kubernetes swaps a link to a folder; the file itself never changes its name."""
    mount = world.folder / "mount"
    for number in (1, 2):
        (mount / f"..{number}").mkdir(parents=True)
    first = world.rules()
    second = world.rules(backends={"mcp": {"timeout": "3s"}})
    (mount / "..1" / "rules.yaml").write_text(json.dumps(first))
    (mount / "..2" / "rules.yaml").write_text(json.dumps(second))
    (mount / "..data").symlink_to("..1")
    (mount / "rules.yaml").symlink_to("..data/rules.yaml")
    process = world.process()
    process.rules_path = mount / "rules.yaml"
    await process.launch()
    await process.up()

    (mount / "..data_tmp").symlink_to("..2")
    (mount / "..data_tmp").replace(mount / "..data")
    await until(lambda: len(process.events("rules_loaded")) == 2, "the swap was noticed")

    assert (await process.admin("/config")).json["rules"]["backends"]["mcp"]["timeout"] == "3s"


async def test_sighup_reads_rules_and_secrets_anew(world: World) -> None:
    token = world.folder / "token"
    token.write_text("one")
    auth = {"tokens": [f"file:{token}"], "require": {"mcp": ["token"], "tools": ["token"]}}
    process = world.process()
    await process.start(world.rules(auth=auth))
    await process.up()
    ping = request("POST", "/mcp", b'{"jsonrpc":"2.0","id":1,"method":"ping"}', b"X-Call-ID: a")

    async def status(said: str) -> int:
        raw = ping.replace(b"Host:", f"Authorization: Bearer {said}\r\nHost:".encode())
        return (await process.ask(raw)).status

    before = [await status("one"), await status("two")]
    token.write_text("two")
    process.signal(signal.SIGHUP)
    await until(lambda: len(process.events("rules_loaded")) == 2)
    after = [await status("one"), await status("two")]

    assert (before, after) == ([200, 401], [401, 200])


async def test_a_half_written_file_is_not_half_a_rule_set(world: World) -> None:
    """An editor that writes in place, slowly."""
    sidecar = await world.sidecar()
    whole = json.dumps(world.rules(split={"percent": 50}), indent=1).encode()
    with sidecar.rules_path.open("wb", buffering=0) as file:
        for start in range(0, len(whole), len(whole) // 8 + 1):
            file.write(whole[start : start + len(whole) // 8 + 1])
            await asyncio.sleep(0.01)
    await until(lambda: sidecar.app.condition.loaded.rules.split.percent == 50)

    assert (await sidecar.post("/retell", event())).status == 200
    assert (await sidecar.status())["rules"]["fault"] is None
