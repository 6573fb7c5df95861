"""What operators see: every exchange once in the metrics and once in the log, and the pages."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from typing import Any

import pytest

from proxy import __version__
from tests.functional.conftest import World
from tests.functional.kit import (
    BOOK,
    SLOTS,
    Metrics,
    Sidecar,
    ask_once,
    event,
    function,
    tools_call,
)
from tests.functional.wire import (
    Answer,
    Peer,
    Seen,
    answers,
    dies,
    mcp,
    request,
    resets,
    runs,
    text,
    until,
)

INBOUND = b'{"event":"call_inbound","call_inbound":{"from_number":"+1","to_number":"+2"}}'

# Target, body, and what the arms do; each is sent once.
MIX: list[tuple[str, str, bytes | None]] = [
    ("POST", "/retell", event()),
    ("POST", "/retell", INBOUND),
    ("POST", "/retell", b'{"event":"alert_triggered","alert":{}}'),
    ("POST", "/retell", function(SLOTS)),
    ("POST", "/retell", function(BOOK)),
    ("POST", "/retell", function("never_heard_of")),
    ("POST", "/retell", b'{"tool":"t","arguments":{},"call_id":"call_a"}'),
    ("POST", f"/retell/fn/{SLOTS}?call_id=call_a", b"{}"),
    ("GET", f"/retell/fn/{SLOTS}?call_id=call_a", None),
    ("POST", "/mcp/call_a", tools_call(SLOTS)),
    ("POST", "/mcp/call_a", b'{"jsonrpc":"2.0","id":1,"method":"ping"}'),
    ("POST", "/mcp", tools_call(SLOTS)),
    ("POST", "/retell", b"unknown"),
    ("POST", "/mcp", b"{malformed"),
    ("GET", "/mcp", None),
    ("GET", "/nowhere", None),
    ("GET", "/llm/call_a", None),
    ("GET", "/api/mcp/retell/health", None),
    ("HEAD", "/retell", None),
]
NOISE = [
    b"GET / HTTP/1.1\r\n\r\n",
    b"\x00\r\n\r\n",
    b"POST /retell HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n",
]
PLAYS = {
    "both answer": (mcp(runs(text("{}"))), answers(b"{}")),
    "mcp dies": (mcp(dies), answers(b"{}")),
    "mcp says no": (mcp(runs(text("no", isError=True))), answers(b'{"success":false}')),
    "both die": (mcp(resets), dies),
    "redirects": (mcp(answers(b"", status=b"302 F")), answers(b"", status=b"302 F")),
    "large answers": (mcp(runs(text("x" * 400_000))), answers(b"x" * 400_000, b"X: y")),
}


async def ask_everything(sidecar: Sidecar) -> int:
    """Send the whole mix; the number of requests."""
    for method, target, body in MIX:
        await sidecar.ask(request(method, target, body))
    for raw in NOISE:
        client = await sidecar.connect()
        await client.ask(raw)
    quitter = await sidecar.connect()
    await quitter.send(b"POST /retell HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{")
    await until(lambda: sidecar.app.handler.inflight == 1)
    quitter.abort()
    await sidecar.settled()
    return len(MIX) + len(NOISE) + 1


@pytest.mark.row("O3")
@pytest.mark.parametrize("plays", PLAYS.values(), ids=PLAYS)
async def test_every_exchange_is_counted_and_told_exactly_once(world: World, plays: Any) -> None:
    """O3: the sum over all outcomes is the number of requests, whatever went wrong."""
    world.mcp.play, world.webhook.play = plays
    sidecar = await world.sidecar(limits={"tools_per_minute": 2, "burst": 1})

    sent = await ask_everything(sidecar)

    lines = await sidecar.lines(sent)
    metrics = await sidecar.metrics()
    assert len(lines) == sent
    assert metrics.total("requests_total") == sent
    assert metrics.total("request_duration_seconds_count") == sent
    counted = Counter(
        (s.labels["kind"], s.labels["arm"], s.labels["outcome"], s.labels["code_class"])
        for s in metrics.samples
        if s.name == "t_requests_total"
        for _ in range(int(s.value))
    )
    told = Counter(
        (line["kind"], line["arm"], line["outcome"], f"{line['status'] // 100}xx") for line in lines
    )
    assert counted == told
    assert len({line["request_id"] for line in lines}) == sent
    attempts = sum(len(line["attempts"]) for line in lines)
    assert metrics.total("attempts_total") == attempts
    assert metrics.total("attempt_duration_seconds_count") == attempts
    assert metrics.total("rescues_total") == sum(line["outcome"] == "rescued" for line in lines)
    last = [line for line in lines if line["outcome"] == "last_answer"]
    assert metrics.total("last_answers_total") == len(last)
    tools = [line for line in lines if line["tool"] and line["decided_by"]]
    assert metrics.total("tool_executions_total") == len(tools)
    assert metrics.total("inflight") == 0


@pytest.mark.row("O3")
async def test_each_request_adds_exactly_one(world: World) -> None:
    sidecar = await world.sidecar()
    before = 0.0
    for method, target, body in MIX:
        await sidecar.ask(request(method, target, body))
        after = (await sidecar.metrics()).total("requests_total")
        assert after == before + 1, target
        before = after


async def test_an_access_line_tells_the_whole_story(world: World) -> None:
    world.mcp.play = mcp(dies)
    sidecar = await world.sidecar()
    body = function(SLOTS, "call_x", {"secret": "+14155550100"})

    answer = await sidecar.post("/retell?q=secret", body)

    (line,) = await sidecar.lines(1)
    timestamp, ms = line.pop("timestamp"), line.pop("ms")
    times = [attempt.pop("ms") for attempt in line["attempts"]]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", timestamp)
    assert ms >= max(times) >= 0
    assert line == {
        "level": "info",
        "session": None,
        "event": "exchange_ended",
        "request_id": (answer.value(b"x-request-id") or b"").decode(),
        "call_id": "call_x",
        "kind": "function",
        "tool": SLOTS,
        "call_event": None,
        "arm": "webhook",
        "reason": "rescue_reset",
        "decided": "mcp",
        "decided_by": "share",
        "outcome": "rescued",
        "status": 200,
        "code": None,
        "attempts": [
            {"arm": "mcp", "verdict": "failed", "why": "reset", "status": 0},
            {"arm": "webhook", "verdict": "success", "why": None, "status": 200},
        ],
        "flags": [],
        "method": "POST",
        "path": "/retell",
        "peer": "127.0.0.1",
        "bytes_in": len(body),
        "bytes_out": len(answer.body),
    }


async def test_the_request_id_leads_from_the_caller_to_the_arms(world: World) -> None:
    world.mcp.play = mcp(dies)
    sidecar = await world.sidecar()

    answer = await sidecar.call(SLOTS)

    request_id = answer.value(b"x-request-id")
    assert world.mcp.tools[0].value(b"x-request-id") == request_id
    assert world.webhook.seen[0].value(b"x-request-id") == request_id
    assert world.mcp.tools[0].value(b"x-callsplit-attempt") == b"1"
    assert world.webhook.seen[0].value(b"x-callsplit-attempt") == b"2"
    parent = world.webhook.seen[0].value(b"traceparent") or b""
    assert re.fullmatch(rb"00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]", parent)


async def test_a_callers_own_trace_is_carried_on(world: World) -> None:
    sidecar = await world.sidecar()
    trace = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"

    await sidecar.post("/retell", event(), b"Traceparent: " + trace, b"Tracestate: a=b")

    assert world.webhook.seen[0].values(b"traceparent") == [trace]
    assert world.webhook.seen[0].values(b"tracestate") == [b"a=b"]


NAUGHTY = ['a"b', "{}", "\u2028", "\\n", "'; drop", "<script>", "x" * 500, "日本", "%0a", "a,b=c"]


@pytest.mark.row("O1", "O2")
@pytest.mark.parametrize("text", NAUGHTY)
async def test_naughty_texts_make_one_valid_line_and_no_label(world: World, text: str) -> None:
    """O1, O2."""
    sidecar = await world.sidecar()

    answer = await sidecar.post(
        "/retell", function(text[:200], text), b"User-Agent: " + text.encode()
    )

    assert answer.status == 200
    (line,) = await sidecar.lines(1)
    assert line["tool"] == text[:200]
    metrics = await sidecar.metrics()
    assert metrics.total("tool_executions_total", tool="other") == 1
    assert not [s for s in metrics.samples if text in s.labels.values()]


@pytest.mark.row("O2")
async def test_invented_tools_are_one_series(world: World) -> None:
    sidecar = await world.sidecar()

    for number in range(300):
        await sidecar.call(f"tool_{number}", f"id_{number}")

    metrics = await sidecar.metrics()
    assert metrics.total("tool_executions_total", tool="other") == 300
    series = [s for s in metrics.samples if s.name == "t_tool_executions_total"]
    assert len(series) < 20


async def test_live_calls_and_the_ratio_follow_what_happens(world: World) -> None:
    sidecar = await world.sidecar()
    for call_id in ("one", "two", "three"):
        await sidecar.post("/retell", event("call_started", call_id))
        await sidecar.call(SLOTS, call_id)
    await sidecar.post("/retell", event("call_ended", "one"))
    await sidecar.post("/retell", event("call_analyzed", "two"))

    metrics = await sidecar.metrics()

    assert metrics.total("live_calls", arm="mcp") == 1
    assert metrics.total("rollout_target_ratio") == 1
    assert metrics.total("rollout_actual_ratio") == 1


async def test_work_under_way_shows(world: World) -> None:
    go = asyncio.Event()

    async def slow(peer: Peer, seen: Seen) -> bool:
        await go.wait()
        return await answers(b"{}")(peer, seen)

    world.webhook.play = slow
    sidecar = await world.sidecar()
    client = await sidecar.connect()
    await client.send(request("POST", "/retell", event()))
    await until(lambda: world.webhook.seen)

    status, metrics = await sidecar.status(), await sidecar.metrics()
    go.set()
    await client.answer()

    assert status["inflight"] == metrics.total("inflight") == 1
    assert status["arms"]["webhook"]["busy"] == 1
    assert status["connections"] == 1


async def test_access_lines_can_be_switched_off(world: World) -> None:
    sidecar = await world.sidecar(listen={"access_log": False})
    await sidecar.call(SLOTS)

    assert (await sidecar.metrics()).total("requests_total") == 1
    await asyncio.sleep(0.15)  # longer than lines are held back
    assert await sidecar.lines(0) == []


async def test_addresses_are_told_as_they_can_be_typed(world: World) -> None:
    try:
        sidecar = await world.sidecar(admin={"address": "[::1]:0"})
    except OSError:
        pytest.skip("this machine has no IPv6")

    (started,) = sidecar.events("sidecar_started")
    assert started["address"] == f"127.0.0.1:{sidecar.port}"
    assert started["admin"] == f"[::1]:{sidecar.admin_port}"


# -- The pages.


async def test_the_admin_pages_tell_what_is_true(world: World) -> None:
    sidecar = await world.sidecar(split={"percent": 25, "cap": 20})

    live, ready = await sidecar.admin("/live"), await sidecar.admin("/ready")
    status = await sidecar.status()
    config = (await sidecar.admin("/config")).json
    breakers = (await sidecar.admin("/breakers")).json

    assert (live.status, live.json) == (200, {"live": True})
    assert (ready.status, ready.json) == (200, {"ready": True, "reasons": []})
    assert status["version"] == __version__
    assert status["ready"] is True
    split = status["split"]
    assert (split["percent"], split["cap"], split["in_force_percent"]) == (25, 20, 20)
    assert (split["to"], split["otherwise"], split["kill_switch"]) == ("mcp", "webhook", False)
    assert set(status["arms"]) == set(breakers) == {"mcp", "webhook"}
    assert status["rules"]["fault"] is None
    assert config["digest"] == status["rules"]["digest"]
    assert config["rules"]["split"]["percent"] == 25
    assert breakers["mcp"]["state"] == "closed"


async def test_readiness_does_not_depend_on_the_arms(world: World) -> None:
    """A dead arm is what the sidecar is for; taking it away helps nobody."""
    await world.mcp.refuse()
    await world.webhook.refuse()
    sidecar = await world.sidecar()
    await sidecar.call(SLOTS)

    assert (await sidecar.admin("/ready")).status == 200


PAGES: dict[str, tuple[str, str, list[bytes], int]] = {
    "unknown page": ("GET", "/nothing", [], 404),
    "change by GET": ("GET", "/breakers/mcp/open", [], 405),
    "unknown arm": ("POST", "/breakers/nobody/open", [], 404),
    "unknown action": ("POST", "/breakers/mcp/explode", [], 400),
    "explain nothing": ("GET", "/explain", [], 400),
    "a foreign name": ("GET", "/status", [b"Host: evil.test"], 403),
    "another site": ("POST", "/breakers/mcp/open", [b"Origin: http://evil.test"], 403),
    "localhost": ("GET", "/status", [b"Host: localhost"], 200),
}


@pytest.mark.parametrize(("method", "page", "fields", "status"), PAGES.values(), ids=PAGES)
async def test_the_admin_pages_refuse_what_a_browser_could_be_tricked_into(
    world: World, method: str, page: str, fields: list[bytes], status: int
) -> None:
    sidecar = await world.sidecar()

    answer = await sidecar.admin(page, *fields, method=method)

    assert answer.status == status
    assert b"server" not in answer.names
    assert (await sidecar.breaker())["state"] == "closed"


async def test_the_admin_token_guards_all_but_the_probes(world: World) -> None:
    sidecar = await world.sidecar({"A": "admin-token"}, admin={"token": "env:A"})
    mine = b"Authorization: Bearer admin-token"

    async def statuses(*fields: bytes) -> list[int]:
        pages = ("/live", "/ready", "/metrics", "/status", "/config", "/breakers")
        return [(await sidecar.admin(page, *fields)).status for page in pages]

    assert await statuses() == [200, 200, 401, 401, 401, 401]
    assert await statuses(b"Authorization: Bearer wrong") == [200, 200, 401, 401, 401, 401]
    assert await statuses(mine) == [200] * 6


async def test_the_observing_listener_has_its_three_pages_and_no_others(world: World) -> None:
    sidecar = await world.sidecar(
        {"A": "admin-token"},
        listen={"observe": "127.0.0.1:0"},
        admin={"token": "env:A"},
    )
    assert sidecar.app.observe_address is not None
    port = sidecar.app.observe_address[1]

    async def asked(method: str, page: str) -> Answer:
        return await ask_once(port, method, page)

    for page in ("/live", "/ready", "/metrics"):
        assert (await asked("GET", page)).status == 200, page
        assert (await asked("POST", page)).status == 405, page
    for page in (
        "/status",
        "/config",
        "/explain?call_id=a",
        "/breakers",
        "/breakers/mcp/open",
        "/",
    ):
        assert (await asked("GET", page)).status == 404, page
        assert (await asked("POST", page)).status == 404, page
    scraped = Metrics((await asked("GET", "/metrics")).body.decode())
    assert scraped.total("rules_last_reload_success") == 1


async def test_the_exposition_has_both_forms_and_every_promised_name(world: World) -> None:
    sidecar = await world.sidecar()
    await sidecar.call(SLOTS)

    plain = (await sidecar.admin("/metrics")).body.decode()
    modern = await sidecar.admin("/metrics", b"Accept: application/openmetrics-text; version=1.0.0")

    assert modern.body.endswith(b"# EOF\n")
    for name in (
        "requests_total", "request_duration_seconds", "attempt_duration_seconds",
        "attempts_total", "rescues_total", "tool_executions_total", "breaker_state",
        "breaker_transitions_total", "rollout_target_ratio", "rollout_actual_ratio",
        "last_answers_total", "auth_failures_total", "rate_limited_total",
        "rules_last_reload_success", "rules_info", "inflight", "live_calls",
        "event_loop_lag_seconds", "build_info",
    ):  # fmt: skip
        assert f"# TYPE t_{name.removesuffix('_total').removesuffix('_info')}" in plain, name
    for edge in ("0.3", "0.5", "1.0"):
        assert f'le="{edge}"' in plain


async def test_guessing_is_counted_by_reason(world: World) -> None:
    auth = {"tokens": ["env:T"], "require": {"mcp": ["token"], "tools": ["token"]}}
    sidecar = await world.sidecar({"T": "token"}, auth=auth)

    await sidecar.post("/mcp", b"{}")
    await sidecar.post("/mcp", b"{}", b"Authorization: Bearer x")
    await sidecar.post("/mcp", b"{}", b"Authorization: x")

    metrics = await sidecar.metrics()
    for reason in ("missing", "wrong", "malformed"):
        assert metrics.total("auth_failures_total", reason=reason) == 1
