"""Who answers when an arm fails, and that nothing ever runs twice."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.functional.conftest import World
from tests.functional.kit import (
    BOOK,
    PENDING,
    SAY,
    SLOTS,
    Sidecar,
    event,
    function,
    running,
    tools_call,
)
from tests.functional.wire import (
    JSON,
    Answer,
    Peer,
    Play,
    Seen,
    answers,
    dies,
    finishes,
    freezes,
    in_turn,
    mcp,
    resets,
    response,
    rpc,
    runs,
    says,
    says_and_closes,
    text,
    until,
)

FROM_WEBHOOK = b'{"from":"webhook"}'


def rpc_error(code: int, message: str = "no", status: bytes = b"200 OK") -> Play:
    async def play(peer: Peer, seen: Seen) -> bool:
        error = {
            "jsonrpc": "2.0",
            "id": seen.json["id"],
            "error": {"code": code, "message": message},
        }
        await peer.send(response(json.dumps(error).encode(), JSON, status=status))
        return True

    return play


def spoken(answer: Answer) -> str:
    """What the agent can say of an answer that says no."""
    assert (answer.status, answer.json["success"]) == (200, False)
    return str(answer.json["message"])


async def test_an_arm_that_refuses_connections_costs_no_caller_anything(world: World) -> None:
    """B1: two hundred bookings at once; each reaches the webhook, each once."""
    await world.mcp.refuse()
    sidecar = await world.sidecar()

    got = await asyncio.gather(*[sidecar.call(BOOK, f"id_{n}", n=n) for n in range(200)])

    assert [answer.body for answer in got] == [FROM_WEBHOOK] * 200
    assert {answer.reason for answer in got} <= {"rescue_connect", "rescue_open"}
    assert {answer.arm for answer in got} == {"webhook"}
    delivered = sorted(seen.json["args"]["n"] for seen in world.webhook.seen)
    assert delivered == list(range(200))
    assert (await sidecar.breaker())["state"] == "open"
    assert (await sidecar.metrics()).total("rescues_total") == 200


# What an arm can do to a call: the play, whether a write may go on to the webhook, whether a
# read may, the reason then, and whether the breaker counts a failure.
ROWS: dict[str, tuple[Play, bool, bool, str, int]] = {
    "closes without an answer": (dies, False, True, "rescue_reset", 1),
    "resets": (resets, False, True, "rescue_reset", 1),
    "is silent": (freezes, False, True, "rescue_timeout", 1),
    "cuts its answer": (
        says_and_closes(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"),
        False, True, "rescue_reset", 1,
    ),
    "speaks no HTTP": (says(b"SSH-2.0-x\r\n\r\n"), False, True, "rescue_reset", 1),
    "answers no JSON-RPC": (answers(b"<html>"), False, True, "rescue_body", 1),
    "answers 500": (answers(b"{}", status=b"500 E"), False, True, "rescue_status", 1),
    "answers 502": (answers(b"{}", status=b"502 E"), False, True, "rescue_status", 1),
    "is busy": (answers(b"{}", JSON, status=b"429 E"), False, True, "rescue_status", 1),
    "asks to come later": (
        answers(b"", b"Retry-After: 1", status=b"503 E"), False, True, "rescue_status", 1,
    ),
    "fails inside": (rpc_error(-32603), False, True, "rescue_body", 1),
    "wants credentials": (answers(b"", status=b"401 E"), True, True, "rescue_config", 0),
    "forbids it": (answers(b"", status=b"403 E"), True, True, "rescue_config", 0),
    "is another path": (answers(b"nope", status=b"404 E"), True, True, "rescue_config", 0),
    "lacks the method": (rpc_error(-32601), True, True, "rescue_config", 0),
    "mistrusts the host": (answers(b"", status=b"421 E"), True, True, "rescue_config", 0),
    "lacks the tool": (
        runs(text(f"Unknown tool: {BOOK}", isError=True)), True, False, "rescue_config", 0,
    ),
}  # fmt: skip


def until_it_hangs(play: Play) -> dict[str, Any]:
    """Little patience only with an arm that never answers: the machine may be slow itself."""
    return {"mcp": {"timeout": "200ms"}} if play is freezes else {}


@pytest.mark.parametrize("tool", [BOOK, SLOTS])
@pytest.mark.parametrize(("play", "write", "read", "why", "failures"), ROWS.values(), ids=ROWS)
async def test_a_write_goes_on_only_if_it_cannot_have_run(
    world: World, play: Play, write: bool, read: bool, why: str, failures: int, tool: str
) -> None:
    """The table of what is rescued.  At most one arm runs a write; the caller is never lost."""
    if tool == SLOTS and not read:
        play = runs(text(f"Unknown tool: {SLOTS}", isError=True))
        read = True
    world.mcp.play = mcp(play)
    sidecar = await world.sidecar(backends=until_it_hangs(play), tools={BOOK: {"linger": "100ms"}})
    rescued = write if tool == BOOK else read

    answer = await sidecar.call(tool)

    assert len(world.webhook.seen) == rescued
    assert len(world.mcp.tools) == 1
    if rescued:
        assert (answer.body, answer.reason, answer.arm) == (FROM_WEBHOOK, why, "webhook")
    else:
        assert (spoken(answer), answer.reason, answer.arm) == (PENDING, "last_answer", "none")
    assert (await sidecar.breaker())["failures"] == failures
    assert (await sidecar.metrics()).total("config_faults_total") == (failures == 0)


@pytest.mark.parametrize("play", [dies, resets, freezes], ids=["closes", "resets", "hangs"])
async def test_what_fails_before_the_tool_was_asked_for_has_not_run_it(
    world: World, play: Play
) -> None:
    """The handshake with an MCP server runs nothing: a write goes on to the webhook."""
    world.mcp.play = play
    sidecar = await world.sidecar(backends=until_it_hangs(play))

    answer = await sidecar.call(BOOK)

    assert (answer.body, answer.arm) == (FROM_WEBHOOK, "webhook")
    assert len(world.webhook.seen) == 1
    assert not world.mcp.tools


async def test_a_legacy_mcp_server_without_sessions_is_asked_in_its_own_way(world: World) -> None:
    async def legacy(peer: Peer, seen: Seen) -> bool:
        if seen.value(b"mcp-protocol-version") == b"2026-07-28":
            await peer.send(response(b"", status=b"400 Bad Request"))
        else:
            result = {"content": [{"type": "text", "text": '{"old":true}'}]}
            await peer.send(rpc(seen, result))
        return True

    world.mcp.play = legacy
    sidecar = await world.sidecar()

    got = [await sidecar.call(BOOK, f"id_{n}") for n in range(3)]

    assert [answer.body for answer in got] == [b'{"old":true}'] * 3
    assert {answer.arm for answer in got} == {"mcp"}
    # Which era it is of, whether it keeps sessions (two messages), and the tools.
    assert (len(world.mcp.seen), len(world.mcp.tools)) == (6, 3)
    assert b"_meta" not in world.mcp.tools[0].body


async def test_kept_connections_die_of_age_before_the_arm_closes_them(world: World) -> None:
    """B3: the arm closes after 200 ms; requests come around that time, and none is lost."""
    world.webhook.idle = 0.2
    sidecar = await world.sidecar(backends={"webhook": {"keepalive": "150ms"}})

    async def caller(number: int) -> list[int]:
        got = []
        for turn in range(4):
            await asyncio.sleep(0.12 + (number * 7 + turn * 3) % 13 / 100)
            got.append((await sidecar.post("/retell", event(call_id=f"{number}-{turn}"))).status)
        return got

    got = await asyncio.gather(*[caller(number) for number in range(20)])

    assert got == [[200] * 4] * 20
    assert len(world.webhook.seen) == 80
    assert world.webhook.connections > 1


OWN_BACKEND = """
import asyncio
from proxy.core.model import Kind, Reply

class Own:
    kinds = frozenset({Kind.FUNCTION})

    def __init__(self, config):
        self.does = config.options["does"]

    async def handle(self, call, send):
        if self.does == "crash":
            raise KeyError("a detail nobody should hear")
        if self.does == "hang":
            await asyncio.sleep(60)
        return Reply(200, [(b"content-type", b"text/plain")], b"own " + call.arguments)
"""


@pytest.mark.parametrize(
    ("does", "tool", "arm"),
    [
        ("answer", BOOK, "mcp"),
        ("crash", SLOTS, "webhook"),
        ("crash", BOOK, "none"),
        ("hang", SLOTS, "webhook"),
        ("hang", BOOK, "none"),
    ],
)
async def test_a_backend_of_the_users_own_is_an_arm_like_any_other(
    world: World, monkeypatch: pytest.MonkeyPatch, does: str, tool: str, arm: str
) -> None:
    (world.folder / f"own_{does}.py").write_text(OWN_BACKEND)
    monkeypatch.syspath_prepend(world.folder)
    timeout = "150ms" if does == "hang" else "10s"
    own = {"handler": f"own_{does}:Own", "options": {"does": does}, "timeout": timeout}
    document = world.rules()
    document["backends"]["mcp"] = own
    async with running(world.folder, document, crashes=does == "crash") as sidecar:
        answer = await sidecar.call(tool, d=1)

    assert answer.arm == arm
    assert answer.status == 200
    assert b"a detail" not in answer.body
    if arm == "mcp":
        assert answer.body == b'own {"d": 1}'


ASKED = {
    "function": ("/retell", function(BOOK)),
    "args": (f"/retell/fn/{BOOK}?call_id=call_a", b'{"date":"2026-01-02"}'),
    "tools": (
        "/api/mcp/retell/tools",
        b'{"tool":"book_appointment","arguments":{},"call_id":"call_a"}',
    ),
    "mcp": ("/mcp/call_a", tools_call(BOOK)),
}


def sentence(answer: Answer) -> str:
    """The words of a last answer, whatever the caller's language."""
    said = answer.json
    if "jsonrpc" in said:
        assert said["id"] == 7
        assert said["result"]["isError"] is True
        return str(said["result"]["content"][0]["text"])
    return str(said.get("message") or said["error"])


@pytest.mark.parametrize(("target", "body"), ASKED.values(), ids=ASKED)
@pytest.mark.parametrize("handler", ["mcp", "tools", "webhook"])
@pytest.mark.parametrize("reused", [False, True], ids=["fresh connection", "reused connection"])
@pytest.mark.parametrize("death", [dies, resets], ids=["closed", "reset"])
async def test_a_write_whose_arm_dies_is_delivered_exactly_once(
    world: World, target: str, body: bytes, handler: str, reused: bool, death: Play
) -> None:
    """B2.  No kept connection is a reason to send it again, and no other arm may have it."""
    good = runs(text("{}")) if handler == "mcp" else answers(b"{}")
    call = in_turn(good, death) if reused else death
    world.mcp.play = mcp(call) if handler == "mcp" else call
    sidecar = await world.sidecar(backends={"mcp": {"handler": handler}})
    if reused:
        before = target.replace("call_a", "call_b"), body.replace(b"call_a", b"call_b")
        assert (await sidecar.post(*before)).status == 200
        world.mcp.seen.clear()

    answer = await sidecar.post(target, body)

    assert answer.status == 200
    assert sentence(answer) == PENDING
    assert answer.reason == "last_answer"
    ran = world.mcp.tools if handler == "mcp" else world.mcp.seen
    assert len(ran) + len(world.webhook.seen) == 1
    (line,) = await sidecar.lines(1, outcome="last_answer")
    assert line["flags"] == ["say_pending"]
    assert [attempt["arm"] for attempt in line["attempts"]] == ["mcp"]


@pytest.mark.parametrize("reused", [False, True], ids=["fresh connection", "reused connection"])
async def test_a_read_whose_arm_dies_is_rescued_once(world: World, reused: bool) -> None:
    world.mcp.play = mcp(in_turn(runs(text("{}")), dies) if reused else dies)
    sidecar = await world.sidecar()
    if reused:
        await sidecar.call(SLOTS)
        world.mcp.seen.clear()

    answer = await sidecar.call(SLOTS)

    assert (answer.body, answer.reason) == (FROM_WEBHOOK, "rescue_reset")
    assert (len(world.mcp.tools), len(world.webhook.seen)) == (1, 1)


@pytest.mark.parametrize("both_ways", [False, True])
async def test_at_share_0_nobody_reaches_mcp_however_the_webhook_fails(
    world: World, both_ways: bool
) -> None:
    """The direction: nothing is tried on the new arm before somebody asked for it."""
    await world.webhook.refuse()
    sidecar = await world.sidecar(split={"percent": 0}, fallback={"both_ways": both_ways})

    got = [await sidecar.post(target, body) for target, body in ASKED.values() for _ in range(5)]
    got += [await sidecar.post("/retell", event())]

    assert {answer.reason for answer in got} == {"last_answer"}
    assert world.mcp.connections == 0


@pytest.mark.parametrize(
    "shut", [{"enabled": False}, {"cap": 0}], ids=["kill switch", "cap 0"]
)  # fmt: skip
async def test_a_shut_arm_is_no_rescuer_either(world: World, shut: dict[str, Any]) -> None:
    await world.webhook.refuse()
    sidecar = await world.sidecar(split=shut, fallback={"both_ways": True})

    assert spoken(await sidecar.call(SLOTS)) == SAY
    assert world.mcp.connections == 0


async def test_both_ways_lets_mcp_answer_for_the_webhook(world: World) -> None:
    await world.webhook.refuse()
    override = {"when": {"agent_id": {"in": ["old"]}}, "to": "webhook"}
    sidecar = await world.sidecar(split={"overrides": [override]}, fallback={"both_ways": True})

    answer = await sidecar.post("/retell", function(SLOTS, agent_id="old"))

    assert (answer.body, answer.arm, answer.reason) == (b'{"from":"mcp"}', "mcp", "rescue_connect")


async def test_without_fallback_nobody_else_is_asked(world: World) -> None:
    await world.mcp.refuse()
    sidecar = await world.sidecar(fallback={"enabled": False})

    assert spoken(await sidecar.call(BOOK)) == SAY
    assert not world.webhook.seen


async def test_a_status_that_promises_nothing_ran_lets_a_write_go_on(world: World) -> None:
    world.mcp.play = mcp(answers(b"", b"Retry-After: 1", status=b"503 E"))
    sidecar = await world.sidecar(backends={"mcp": {"not_executed": [503]}})

    assert (await sidecar.call(BOOK)).reason == "rescue_status"


@pytest.mark.parametrize(
    ("own", "rescued"), [({"effect": "idempotent"}, True), ({}, False)], ids=["own", "default"]
)  # fmt: skip
async def test_idempotent_counts_only_in_the_tools_own_entry(
    world: World, own: dict[str, str], rescued: bool
) -> None:
    """It has to hold across both arms, which no default can know."""
    world.mcp.play = mcp(dies)
    tools = {"default": {"effect": "idempotent"}, "cancel": own}
    sidecar = await world.sidecar(tools=tools)

    await sidecar.call("cancel")

    assert len(world.webhook.seen) == rescued


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b'{"success":false,"error":"x","status_code":500}', "rescue_body"),
        (b'{"success":false,"error":"taken","status_code":409}', "share"),
        (b'{"success":false}', "share"),
        (b'{"success":true}', "share"),
        (b"plain words", "share"),
    ],
)
async def test_the_body_of_a_200_says_whether_it_failed(
    world: World, body: bytes, reason: str
) -> None:
    world.mcp.play = answers(body)
    sidecar = await world.sidecar(backends={"mcp": {"handler": "tools"}})

    answer = await sidecar.call(SLOTS)

    assert answer.reason == reason
    assert answer.body == (body if reason == "share" else FROM_WEBHOOK)


async def test_a_business_no_is_delivered_and_no_failure(world: World) -> None:
    world.mcp.play = mcp(runs(text("That slot is taken.", isError=True)))
    sidecar = await world.sidecar()

    assert spoken(await sidecar.call(BOOK)) == "That slot is taken."
    assert not world.webhook.seen
    assert (await sidecar.breaker())["failures"] == 0
    (line,) = await sidecar.lines(1)
    assert line["outcome"] == "business_no"


@pytest.mark.parametrize("status", [b"301 E", b"302 E", b"303 E", b"307 E", b"308 E", b"304 E"])
@pytest.mark.parametrize(("target", "body"), ASKED.values(), ids=ASKED)
async def test_a_redirect_is_never_relayed_to_a_tools_caller(
    world: World, status: bytes, target: str, body: bytes
) -> None:
    """Retell does not follow them: to it a 307 is a tool that silently failed."""
    elsewhere = answers(b"", b"Location: http://127.0.0.1:9/", status=status)
    world.webhook.play = elsewhere
    world.mcp.play = mcp(elsewhere)
    sidecar = await world.sidecar()

    answer = await sidecar.post(target, body)

    assert answer.status == 200
    assert sentence(answer) == SAY
    assert not world.webhook.seen


async def test_a_redirect_is_never_relayed_to_an_event(world: World) -> None:
    world.webhook.play = answers(b"", b"Location: /x", status=b"302 Found")
    sidecar = await world.sidecar()

    assert (await sidecar.post("/retell", event())).status == 503


async def test_a_redirect_of_an_unknown_shape_is_the_callers_own_business(world: World) -> None:
    """R15: relayed, not followed."""
    world.webhook.play = answers(b"", b"Location: /x", status=b"302 Found")
    sidecar = await world.sidecar()

    answer = await sidecar.post("/retell", b'{"unknown":1}')

    assert (answer.status, answer.value(b"location")) == (302, b"/x")
    assert len(world.webhook.seen) == 1


# -- Both down.


def is_event_answer(answer: Answer) -> bool:
    return answer.status == 503 and answer.value(b"retry-after") is not None


LAST: dict[str, tuple[str, bytes, Callable[[Answer], bool]]] = {
    "event": ("/retell", event(), is_event_answer),
    "chat event": ("/retell", b'{"event":"chat_ended","chat":{"chat_id":"x"}}', is_event_answer),
    "alert": ("/retell", b'{"event":"alert_triggered","alert":{}}', is_event_answer),
    "unknown": ("/retell", b'{"what":1}', is_event_answer),
    "inbound": (
        "/retell",
        b'{"event":"call_inbound","call_inbound":{"from_number":"+1","to_number":"+2"}}',
        lambda a: (a.status, a.json) == (200, {"call_inbound": {}}),
    ),
    "chat inbound": (
        "/retell",
        b'{"event":"chat_inbound","chat_inbound":{"chat_id":"chat_x"}}',
        lambda a: (a.status, a.json) == (200, {"chat_inbound": {}}),
    ),
    "function": (*ASKED["function"], lambda a: spoken(a) == SAY),
    "args": (*ASKED["args"], lambda a: spoken(a) == SAY),
    "tools": (
        *ASKED["tools"],
        lambda a: a.json == {"success": False, "error": SAY, "status_code": 503},
    ),
    "mcp": (*ASKED["mcp"], lambda a: a.status == 200 and sentence(a) == SAY),
}


@pytest.mark.parametrize(("target", "body", "fits"), LAST.values(), ids=LAST)
async def test_with_both_arms_down_every_kind_hears_its_own_last_answer(
    world: World, target: str, body: bytes, fits: Callable[[Answer], bool]
) -> None:
    """B7: no retry storm, no stack, nothing a client would choke on; the fifth like the first."""
    await world.mcp.refuse()
    await world.webhook.refuse()
    sidecar = await world.sidecar()

    got = [await sidecar.post(target, body) for _ in range(12)]

    assert all(fits(answer) for answer in got), got[0]
    assert {answer.reason for answer in got} == {"last_answer"}
    for line in await sidecar.lines(12):
        assert len(line["attempts"]) <= 2
        assert (line["arm"], line["outcome"]) == ("none", "last_answer")


async def test_with_both_arms_down_mcp_clients_hear_no_broken_protocol(world: World) -> None:
    """What runs no tool needs no arm: we answer it ourselves, and a notification is taken."""
    await world.mcp.refuse()
    await world.webhook.refuse()
    sidecar = await world.sidecar()

    ping = await sidecar.post("/mcp/call_a", b'{"jsonrpc":"2.0","id":"q","method":"ping"}')
    note = await sidecar.post("/mcp/call_a", b'{"jsonrpc":"2.0","method":"notifications/x"}')

    assert (ping.status, ping.json["id"], ping.json["result"]) == (200, "q", {})
    assert (note.status, note.body) == (202, b"")


async def test_the_last_answer_speaks_the_callers_language(world: World) -> None:
    await world.mcp.refuse()
    await world.webhook.refuse()
    say = {"en": "Sorry.", "de": "Leider nicht."}
    tools = {BOOK: {"say": say, "language": "dynamic_variables.language"}}
    sidecar = await world.sidecar(tools=tools)

    def asks(**variables: str) -> bytes:
        return function(BOOK, retell_llm_dynamic_variables=variables)

    assert spoken(await sidecar.post("/retell", asks(language="de-AT"))) == "Leider nicht."
    assert spoken(await sidecar.post("/retell", asks(language="fr"))) == "Sorry."
    assert spoken(await sidecar.post("/retell", asks())) == "Sorry."


async def test_a_split_between_two_webhooks_splits_and_rescues_everything(world: World) -> None:
    """The new arm is an app of the same wire: events go with their call, and are rescued."""
    world.mcp.play = answers(b'{"from":"new"}')
    sidecar = await world.sidecar(backends={"mcp": {"handler": "webhook"}})
    inbound = b'{"event":"call_inbound","call_inbound":{"from_number":"+1","to_number":"+2"}}'
    alert, unknown = b'{"event":"alert_triggered","alert":{}}', b"unknown"

    new = [await sidecar.post("/retell", body) for body in (event(), inbound, function(BOOK))]
    old = [await sidecar.post("/retell", body) for body in (alert, unknown)]
    world.mcp.play = dies
    rescued = [await sidecar.post("/retell", body) for body in (event("call_analyzed"), inbound)]

    assert {answer.arm for answer in new} == {"mcp"}
    assert {answer.arm for answer in old} == {"webhook"}
    assert {(answer.arm, answer.reason) for answer in rescued} == {("webhook", "rescue_reset")}


# -- Time.


async def held_until_free(sidecar: Sidecar, arm: str) -> None:
    upstream = sidecar.app.wiring.upstreams[arm]
    await until(lambda: upstream.busy == 0, f"{arm} is free")


async def test_both_arms_hanging_ends_inside_the_budget_and_the_webhooks_timeout(
    world: World,
) -> None:
    """B4: the rescue starts in time, and the caller hears words in the end."""
    world.mcp.play, world.webhook.play = mcp(freezes), freezes
    sidecar = await world.sidecar(
        backends={"mcp": {"timeout": "5s"}, "webhook": {"timeout": "300ms"}},
        fallback={"budget": {"function": "700ms"}, "min_attempt": "100ms"},
    )

    answer = await sidecar.call(SLOTS)

    assert spoken(answer) == SAY
    (line,) = await sidecar.lines(1)
    assert [one["why"] for one in line["attempts"]] == ["timeout", "timeout"]
    assert line["ms"] < 1500


async def test_a_write_that_is_late_is_not_cut(world: World) -> None:
    """It finishes at the arm while the caller hears that it is pending."""
    late = asyncio.Event()

    async def slow(peer: Peer, seen: Seen) -> bool:
        await late.wait()
        await peer.send(rpc(seen, text("booked")))
        return True

    world.mcp.play = mcp(slow)
    sidecar = await world.sidecar(backends={"mcp": {"timeout": "150ms"}})

    assert spoken(await sidecar.call(BOOK)) == PENDING
    assert sidecar.app.wiring.upstreams["mcp"].busy == 1
    assert world.mcp.open == 1
    late.set()
    await held_until_free(sidecar, "mcp")

    assert world.mcp.open == 1
    assert sidecar.app.wiring.upstreams["mcp"].idle == 1
    assert not world.webhook.seen


async def test_a_write_that_streams_is_not_cut_either(world: World) -> None:
    """The server answers at once, with a stream that says nothing yet."""
    go, ends = asyncio.Event(), list[str]()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n: working\n\n"
    world.mcp.play = mcp(finishes(go, ends, first=head))
    sidecar = await world.sidecar(backends={"mcp": {"timeout": "150ms"}})

    write, read = await sidecar.call(BOOK), await sidecar.call(SLOTS)
    assert (spoken(write), read.reason) == (PENDING, "rescue_timeout")
    await until(lambda: ends == ["cut"], "the read was let go")
    go.set()
    await held_until_free(sidecar, "mcp")

    assert ends == ["cut", "finished"]


async def test_a_write_lingers_only_so_long(world: World) -> None:
    world.mcp.play = mcp(freezes)
    sidecar = await world.sidecar(
        backends={"mcp": {"timeout": "150ms"}}, tools={BOOK: {"linger": "200ms"}}
    )

    assert spoken(await sidecar.call(BOOK)) == PENDING
    await held_until_free(sidecar, "mcp")
    await until(lambda: world.mcp.open == 0, "the connection is closed")


async def test_a_full_pool_is_no_failure_and_loses_nobody(world: World) -> None:
    go = asyncio.Event()

    async def slow(peer: Peer, seen: Seen) -> bool:
        await go.wait()
        await peer.send(rpc(seen, text("{}")))
        return True

    world.mcp.play = mcp(slow)
    sidecar = await world.sidecar(backends={"mcp": {"connections": 2}})
    first = [asyncio.create_task(sidecar.call(BOOK, f"id_{n}")) for n in range(2)]
    await until(lambda: len(world.mcp.tools) == 2, "both connections are in use")

    others = [await sidecar.call(BOOK, f"more_{n}") for n in range(8)]
    go.set()
    await asyncio.gather(*first)

    assert {answer.reason for answer in others} == {"rescue_full"}
    assert len(world.mcp.tools) == 2
    assert (await sidecar.breaker())["failures"] == 0


async def test_events_have_one_budget_for_everything(world: World) -> None:
    """Retell gives them 10 s in all: two patient arms must not use 60."""
    world.webhook.play = freezes
    sidecar = await world.sidecar(
        backends={"webhook": {"timeout": "30s"}}, fallback={"budget": {"event": "400ms"}}
    )

    assert (await sidecar.post("/retell", event())).status == 503
    (line,) = await sidecar.lines(1)
    assert line["ms"] < 1500


# -- Whose answer, in whose language.


@pytest.mark.parametrize(("target", "body"), ASKED.values(), ids=ASKED)
@pytest.mark.parametrize("down", [False, True], ids=["mcp answers", "the webhook answers"])
async def test_every_caller_hears_either_arm_in_his_own_language(
    world: World, target: str, body: bytes, down: bool
) -> None:
    if down:
        await world.mcp.refuse()
    sidecar = await world.sidecar()

    answer = await sidecar.post(target, body)

    said = {"from": "webhook" if down else "mcp"}
    assert answer.status == 200
    if target.startswith("/mcp"):
        assert answer.json["id"] == 7
        result = answer.json["result"]
        assert json.loads(result["content"][0]["text"]) == said
        assert result["isError"] is False
    elif target.startswith("/api") and not down:
        assert answer.json == {"success": True, "data": said}
    else:
        assert answer.json == said
