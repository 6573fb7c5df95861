"""Who may ask, shown on a whole sidecar: Retell's own vectors, repeats, rotation, operators."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from retell.lib import webhook_auth

from tests.functional.conftest import World
from tests.functional.kit import BOOK, SLOTS, event, function
from tests.functional.test_bytes import KEY, signature
from tests.functional.wire import Answer, answers, request, until

VECTORS = json.loads((Path(__file__).parent.parent / "vectors" / "signature.json").read_text())
CALLED = [row for row in VECTORS["digests"] if row["key"] == "key_test_0123456789abcdef"]
EVER = "1000000h"
KINDS = ("event", "inbound", "function", "alert", "args", "tools", "mcp")
SIGNED = {kind: ["signature"] for kind in KINDS}


def sdk_accepts(body: bytes, proof: bytes, *, key: str, now: int) -> bool:
    """What an app behind us says that verifies with Retell's own library."""
    verify = webhook_auth.symmetric["verify"]
    return bool(verify(body.decode(), key, proof.decode(), {"timestamp": now}))


def wall_ms() -> int:
    return time.time_ns() // 1_000_000


# -- Retell's signature.


@pytest.mark.row("A4")
async def test_every_vector_of_retells_passes_and_what_goes_on_still_verifies(
    world: World,
) -> None:
    """Its own SDK, on the bytes that the arm gets.  JSON-RPC alone is another language there."""
    auth = {"retell_keys": ["env:KEY"], "signature_tolerance": EVER, "require": SIGNED}
    sidecar = await world.sidecar({"KEY": CALLED[0]["key"]}, auth=auth, split={"percent": 0})
    unchanged = 0
    for row in CALLED:
        body, proof = row["body"].encode(), f"v={row['ms']},d={row['digest']}".encode()

        answer = await sidecar.post("/retell", body, b"X-Retell-Signature: " + proof)

        assert answer.status == 200, row["why"]
        seen = world.webhook.seen[-1]
        if "jsonrpc" in row["body"]:
            continue
        assert seen.body == body
        (passed_on,) = seen.values(b"x-retell-signature")
        assert sdk_accepts(seen.body, passed_on, key=row["key"], now=row["ms"]), row["why"]
        unchanged += 1

    assert (len(CALLED), unchanged) == (10, 9)
    assert (await sidecar.metrics()).total("auth_failures_total") == 0


@pytest.mark.row("A4")
@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_a_request_without_a_body_is_signed_over_nothing(world: World, method: str) -> None:
    auth = {"retell_keys": ["env:KEY"], "require": SIGNED}
    sidecar = await world.sidecar({"KEY": KEY}, auth=auth, split={"percent": 0})
    proof = webhook_auth.symmetric["sign"]("", KEY, wall_ms()).encode()
    target = f"/retell/fn/{SLOTS}?call_id=call_a"

    def ask(*fields: bytes) -> Any:
        return sidecar.ask(request(method, target, None, *fields))

    good = await ask(b"X-Retell-Signature: " + proof)
    bare = await ask()
    other = await ask(b"X-Retell-Signature: " + signature(b"{}"))

    assert [answer.status for answer in (good, bare, other)] == [200, 401, 401]
    (seen,) = world.webhook.seen
    assert seen.method.decode() == method
    assert seen.value(b"x-retell-signature") == proof


@pytest.mark.row("A5")
async def test_what_is_stale_but_retells_own_is_counted_apart(world: World) -> None:
    """A forger's clock must not read as Retell's late delivery."""
    auth = {"retell_keys": ["env:KEY"], "signature_tolerance": "1m", "require": SIGNED}
    sidecar = await world.sidecar({"KEY": KEY}, auth=auth)
    late = wall_ms() - 61_000
    for key in (KEY, "key_of_somebody_else"):
        proof = signature(event(), key=key, wall_ms=late)
        await sidecar.post("/retell", event(), b"X-Retell-Signature: " + proof)

    metrics = await sidecar.metrics()
    failures = {
        reason: metrics.total("auth_failures_total", reason=reason)
        for reason in ("missing", "malformed", "wrong", "stale", "replayed")
    }
    assert failures == {"missing": 0, "malformed": 0, "wrong": 1, "stale": 1, "replayed": 0}


# -- The same signed request twice.


def signed_once(body: bytes) -> tuple[bytes, bytes]:
    return body, b"X-Retell-Signature: " + signature(body)


AUTH: dict[str, Any] = {"retell_keys": ["env:KEY"], "require": SIGNED}


@pytest.mark.row("A5")
async def test_a_captured_write_never_runs_again_not_even_after_another_write(
    world: World,
) -> None:
    """Booked, cancelled, and then somebody sends the booking's own bytes once more.

    Without its signature the guard would take it for the caller's second thought.
    """
    world.webhook.play = answers(b'{"success":true}')
    tools = {BOOK: {"effect": "write"}, "cancel": {"effect": "write"}}
    sidecar = await world.sidecar({"KEY": KEY}, auth=AUTH, split={"percent": 0}, tools=tools)
    book, cancel = signed_once(function(BOOK)), signed_once(function("cancel"))

    for asked in (book, cancel, book, book):
        assert (await sidecar.post("/retell", *asked)).json == {"success": True}
    meant = function(BOOK)
    again = await sidecar.post(
        "/retell", meant, b"X-Retell-Signature: " + signature(meant, wall_ms=wall_ms() + 1000)
    )

    assert again.value(b"x-callsplit-reason") == b"recorded"
    tools_run = [seen.json["name"] for seen in world.webhook.seen]
    assert tools_run == [BOOK, "cancel", BOOK]
    metrics = await sidecar.metrics()
    assert metrics.total("signature_repeats_total", kind="function") == 2
    assert metrics.total("replays_total", kind="write") == 2


@pytest.mark.row("A5")
async def test_where_the_rules_say_so_a_captured_request_is_refused(world: World) -> None:
    """Reads and answers too: nothing of it reaches an arm, nothing of an answer its sender."""
    auth = {**AUTH, "signature_repeats": "refuse"}
    sidecar = await world.sidecar({"KEY": KEY}, auth=auth, split={"percent": 0})
    captured = [signed_once(function(SLOTS)), signed_once(function(BOOK)), signed_once(event())]

    first = [(await sidecar.post("/retell", *asked)).status for asked in captured]
    again = [await sidecar.post("/retell", *asked) for asked in captured]

    assert first == [200] * 3
    assert [(answer.status, answer.code) for answer in again] == [(401, "unauthorised")] * 3
    assert len(world.webhook.seen) == 3
    metrics = await sidecar.metrics()
    assert metrics.total("auth_failures_total", reason="replayed") == 3
    assert metrics.total("signature_repeats_total") == 3


# -- Rotation.


def dated(ref: str, days_ago: int) -> dict[str, str]:
    day = time.strftime("%Y-%m-%d", time.gmtime(time.time() - days_ago * 86_400))
    return {"ref": ref, "since": day}


@pytest.mark.row("A2")
async def test_a_token_in_a_file_rotates_by_itself_and_no_valid_request_fails(
    world: World,
) -> None:
    """As a mounted Secret is swapped: no signal, no restart, both hold in between."""
    old, new = world.folder / "old", world.folder / "new"
    old.write_text("first-token-0123456789\n")
    auth = {
        "tokens": [f"file:{old}?", f"file:{new}?"],
        "require": {"tools": ["token"], "mcp": ["token"]},
    }
    sidecar = await world.sidecar(auth=auth, split={"percent": 0})
    in_use, got, stop = "first-token-0123456789", [], asyncio.Event()

    async def call(token: str) -> Answer:
        fields = [b"Authorization: Bearer " + token.encode(), b"X-Call-ID: call_a"]
        body = b'{"tool":"get_available_slots","arguments":{}}'
        return await sidecar.post("/api/mcp/retell/tools", body, *fields)

    async def caller() -> None:
        while not stop.is_set():
            got.append((await call(in_use)).status)

    async def holds(token: str, status: int) -> None:
        async with asyncio.timeout(20):
            while (await call(token)).status != status:
                await asyncio.sleep(0.02)

    calling = asyncio.create_task(caller())
    new.write_text("second-token-0123456789\n")
    await holds("second-token-0123456789", 200)
    in_use = "second-token-0123456789"
    asked = len(got) + 1
    await until(lambda: len(got) > asked, "the caller has the new one")
    old.unlink()
    await holds("first-token-0123456789", 401)
    stop.set()
    await calling

    assert set(got) == {200}
    assert not sidecar.events("rules_refused")


async def test_the_age_of_secrets_is_shown_counted_and_warned_of(world: World) -> None:
    auth = {
        "tokens": [dated("env:OLD", 91), dated("env:NEW", 3), "env:UNDATED"],
        "require": {"mcp": ["token"], "tools": ["token"]},
    }
    names = {"OLD": "o" * 32, "NEW": "n" * 32, "UNDATED": "u" * 32}
    sidecar = await world.sidecar(names, auth=auth)

    page = await sidecar.status()

    assert [(one["key"], one["ref"], one["age_days"]) for one in page["secrets"]] == [
        ("auth.tokens.0", "env:OLD", 91),
        ("auth.tokens.1", "env:NEW", 3),
    ]
    warned = [text for text in page["rules"]["warnings"] if "has been in use" in text]
    assert len(warned) == 1
    assert warned[0].startswith("auth.tokens.0: env:OLD has been in use for 91 days")
    assert warned[0] in [line["message"] for line in sidecar.events("rules_warned")]
    since = (await sidecar.metrics()).total("secret_since_timestamp_seconds", key="auth.tokens.0")
    assert 91 * 86_400 <= time.time() - since < 92 * 86_400 + 60


# -- Operators.

ADMIN = "admin-token-0123456789"


def holding(token: str) -> bytes:
    return b"Authorization: Bearer " + token.encode()


@pytest.mark.row("A9")
async def test_operators_prove_themselves_and_guesses_are_counted(world: World) -> None:
    sidecar = await world.sidecar({"ADMIN": ADMIN}, admin={"token": "env:ADMIN"})
    shown: list[list[bytes]] = [[], [holding("guess")], [holding(ADMIN[:-1])], [holding(ADMIN)]]
    statuses = [(await sidecar.admin("/status", *fields)).status for fields in shown]
    rebound = await sidecar.admin("/status", holding(ADMIN), b"Host: evil.test")
    by_get = await sidecar.admin("/breakers/mcp/open", holding(ADMIN))
    from_page = await sidecar.admin(
        "/breakers/mcp/open", holding(ADMIN), b"Origin: http://evil.test", method="POST"
    )

    assert statuses == [401, 401, 401, 200]
    assert [rebound.status, by_get.status, from_page.status] == [403, 405, 403]
    scraped = (await sidecar.admin("/metrics", holding(ADMIN))).body.decode()
    for reason, count in (("missing", 1), ("wrong", 2), ("host", 1), ("cross_site", 1)):
        assert f't_admin_refusals_total{{reason="{reason}"}} {count}.0' in scraped
    refusals = [one["reason"] for one in sidecar.events("admin_refused")]
    assert refusals == ["missing", "wrong", "host", "cross_site"]  # At most one a minute of each.
    assert not sidecar.events("operator_changed")


@pytest.mark.row("A9")
async def test_an_admin_token_whose_file_is_gone_still_guards(world: World) -> None:
    """Who can make a file vanish must not open the pages by it."""
    file = world.folder / "admin_token"
    file.write_text(ADMIN)
    sidecar = await world.sidecar(admin={"token": f"file:{file}"})
    file.unlink()
    await until(lambda: sidecar.events("rules_refused"), "it was noticed")

    assert (await sidecar.admin("/status")).status == 401
    assert (await sidecar.admin("/status", holding(ADMIN))).status == 200
    file.write_text("another-token-0123456789")
    async with asyncio.timeout(20):
        while (await sidecar.admin("/ready")).status != 200 or not sidecar.events("rules_loaded")[
            1:
        ]:
            await asyncio.sleep(0.02)
    assert (await sidecar.admin("/status", holding("another-token-0123456789"))).status == 200
    assert (await sidecar.admin("/status", holding(ADMIN))).status == 401


@pytest.mark.row("A9")
@pytest.mark.parametrize(
    "path",
    ["/status", "/config", "/metrics", "/breakers", "/replays", "/outbox", "/explain", "/live"],
)
async def test_the_operators_pages_are_not_on_the_callers_listener(world: World, path: str) -> None:
    sidecar = await world.sidecar()

    assert (await sidecar.get(path)).status == 404
    assert (await sidecar.post("/breakers/mcp/open", b"")).status == 404
    assert (await sidecar.breaker())["state"] == "closed"


@pytest.mark.row("A10")
async def test_of_changes_at_once_the_last_holds_and_each_leaves_its_line(world: World) -> None:
    """One after another they are told: each began where the one before had ended."""
    sidecar = await world.sidecar()
    wanted = ["open", "close", "metrics-only", "reset"] * 5

    done = await asyncio.gather(
        *[sidecar.admin(f"/breakers/mcp/{one}?reason=drill", method="POST") for one in wanted]
    )

    assert {answer.status for answer in done} == {200}
    lines = sidecar.events("operator_changed")
    assert len(lines) == len(wanted)
    assert [line["before"] for line in lines[1:]] == [line["after"] for line in lines[:-1]]
    assert lines[0]["before"] == "closed"
    assert lines[-1]["after"] == (await sidecar.breaker())["state"]
    assert {(line["who"], line["from"], line["why"]) for line in lines} == {
        ("local", "127.0.0.1", "drill")
    }


@pytest.mark.row("A10")
@pytest.mark.parametrize(
    ("target", "body", "status", "code"),
    [
        ("/explain", b"{", 400, "bad_body"),
        ("/explain", b"[1,2]", 400, "bad_body"),
        ("/explain", b"\xff\xfe", 400, "bad_body"),
        ("/explain", b"[" * 100_000, 400, "bad_body"),
        ("/explain", b"", 400, "call_id_missing"),
        ("/explain", b"x" * 300_000, 413, "body_too_large"),
        ("/breakers/mcp/explode", b"", 400, "unknown_action"),
        ("/breakers/nobody/open", b"", 404, "unknown_arm"),
        ("/breakers/%00/open", b"", 404, "unknown_arm"),
        ("/breakers/mcp/open?tool=%ff", b"", 404, "unknown_arm"),
        ("/replays/zz/release", b"", 404, "unknown_record"),
        ("/outbox/1e309/drop", b"", 503, "store_failed"),
    ],
)
async def test_what_an_operator_gets_wrong_changes_nothing_and_breaks_nothing(
    world: World, target: str, body: bytes, status: int, code: str
) -> None:
    sidecar = await world.sidecar()

    answer = await sidecar.admin(target, method="POST", body=body)

    assert (answer.status, answer.code) == (status, code)
    assert (await sidecar.breaker())["state"] == "closed"
    assert not sidecar.events("operator_changed")
    assert not sidecar.events("page_crashed")


@pytest.mark.row("A10")
async def test_a_change_of_the_rules_tells_what_was_before(world: World) -> None:
    sidecar = await world.sidecar()
    await sidecar.write(world.rules(split={"percent": 7}))

    first, second = sidecar.events("rules_loaded")
    assert second["before"] == first["digest"] != second["digest"]


@pytest.mark.row("A10")
@pytest.mark.parametrize("percent", ["101", ".nan"])
async def test_a_share_that_is_none_leaves_the_old_one(world: World, percent: str) -> None:
    sidecar = await world.sidecar(split={"percent": 25})
    whole = json.dumps(world.rules(split={"percent": 12345678}))
    await sidecar.write(whole.replace("12345678", percent))

    assert len(sidecar.events("rules_refused")) == 1
    assert (await sidecar.status())["split"]["percent"] == 25
