from __future__ import annotations

import json
from typing import Any

import pytest
from mcp_types import methods

from backends.base import ToolConfig
from proxy.core.body_verdicts import BodyVerdicts
from proxy.core.model import Call, Effect, Era, Form, Headers, Reply, Session
from proxy.core.verdict import FAILED_BODY
from proxy.errors import UpstreamFailed
from tests.backends.kit import Stream, json_reply, text_result
from tests.backends.told import (
    LEGACY,
    Rig,
    answer_of,
    bodiless,
    event,
    legacy,
    message,
    modern,
    refusal,
)

SESSION = Session("c1", "mcp", LEGACY, 0)
RICH = {
    "content": [
        {"type": "text", "text": "é"},
        {"type": "image", "data": "QQ==", "mimeType": "image/png"},
        {"type": "resource", "resource": {"uri": "file:///a", "text": "x"}},
    ],
    "structuredContent": {"n": 1.5, "big": 12345678901234567890},
    "_meta": {"example.com/x": [1]},
    "isError": False,
}


def rig_for(caller: Era, **more: Any) -> Rig:
    """A server of the other era only."""
    return Rig(caller.other, **more)


def call_of(caller: Era, method: str = "tools/call", params: Any = None, **more: Any) -> Call:
    if caller is Era.MODERN:
        return modern(method, params, **more)
    return legacy(method, params, session=SESSION, **more)


def check(caller: Era, method: str, reply: Reply) -> dict[str, Any]:
    """The answer is one of the caller's own era."""
    answer = answer_of(reply)
    assert answer["id"] == "own-1"
    result: dict[str, Any] = answer["result"]
    version = LEGACY if caller is Era.LEGACY else "2026-07-28"
    methods.validate_server_result(method, version, result)
    return result


@pytest.mark.parametrize("events", [True, False])
@pytest.mark.parametrize("sessions", [True, False])
async def test_a_modern_caller_runs_the_tools_of_a_legacy_server(
    sessions: bool, events: bool
) -> None:
    rig = Rig(Era.LEGACY, sessions=sessions, events=events)

    results = [check(Era.MODERN, "tools/call", await rig.ask(modern())) for _ in range(2)]

    assert results[0]["resultType"] == "complete"
    assert results[0]["_meta"]["io.modelcontextprotocol/serverInfo"]["name"] == "told"
    assert len({session for _, session in rig.told.ran}) == 1, "one session per call"
    assert rig.told.count["initialize"] == 1
    assert rig.told.dispatched == [False] * 3 + [True] * 2


async def test_a_legacy_caller_runs_the_tools_of_a_modern_server() -> None:
    rig = Rig(Era.MODERN)

    result = check(Era.LEGACY, "tools/call", await rig.ask(legacy(session=SESSION)))

    assert "resultType" not in result
    assert rig.told.sent[-1].target == "/mcp"
    assert dict(rig.told.sent[-1].headers)[b"mcp-name"] == b"book"


@pytest.mark.parametrize("caller", Era)
async def test_nothing_of_a_result_is_lost_on_the_way(caller: Era) -> None:
    rig = rig_for(caller)
    rig.told.answers["tools/call"] = RICH

    reply = await rig.ask(call_of(caller))

    result = check(caller, "tools/call", reply)
    assert {k: v for k, v in result.items() if k in RICH and k != "_meta"} == {
        k: v for k, v in RICH.items() if k != "_meta"
    }
    assert result["_meta"]["example.com/x"] == [1]
    assert b"12345678901234567890" in (reply.body if isinstance(reply.body, bytes) else b"")


@pytest.mark.parametrize("caller", Era)
@pytest.mark.parametrize(
    ("method", "params", "result"),
    [
        ("tools/list", {}, {"tools": [{"name": "a", "inputSchema": {"type": "object"}}]}),
        ("prompts/list", {"cursor": "x"}, {"prompts": [], "nextCursor": "y"}),
        ("prompts/get", {"name": "p"}, {"messages": []}),
        ("resources/list", {}, {"resources": []}),
        ("resources/templates/list", {}, {"resourceTemplates": []}),
        ("resources/read", {"uri": "file:///a"}, {"contents": []}),
        (
            "completion/complete",
            {"ref": {"type": "ref/prompt", "name": "p"}, "argument": {"name": "a", "value": "b"}},
            {"completion": {"values": []}},
        ),
    ],
)
async def test_every_method_that_both_eras_have_is_asked(
    caller: Era, method: str, params: dict[str, Any], result: dict[str, Any]
) -> None:
    rig = rig_for(caller)
    more = {"resultType": "complete", "ttlMs": 7, "cacheScope": "public"}
    rig.told.answers[method] = {**result, **more} if caller is Era.LEGACY else result

    reply = await rig.ask(call_of(caller, method, params))

    found = check(caller, method, reply)
    assert {k: v for k, v in found.items() if k in result} == result
    assert reply.verdict is not None
    assert reply.verdict.label == "success"
    asked = message(rig.told.sent[-1].body)["params"]
    assert {k: v for k, v in asked.items() if k != "_meta"} == params


async def test_a_legacy_server_is_discovered_with_one_handshake() -> None:
    rig = Rig(Era.LEGACY)

    results = [
        check(Era.MODERN, "server/discover", await rig.ask(modern("server/discover")))
        for _ in range(2)
    ]

    assert results[0] == results[1]
    assert results[0]["instructions"] == "Ask nicely."
    assert results[0]["capabilities"]["tools"] == {}
    assert rig.told.count["initialize"] == 1


async def test_a_modern_server_is_introduced_and_alive() -> None:
    rig = Rig(Era.MODERN)
    begin = legacy("initialize", {"protocolVersion": LEGACY}, session=SESSION)

    introduced = check(Era.LEGACY, "initialize", await rig.ask(begin))

    assert introduced["serverInfo"]["name"] == "told"
    for method in ("ping", "logging/setLevel"):
        reply = await rig.ask(legacy(method, {"level": "info"}, session=SESSION))
        assert answer_of(reply)["result"] == {}
    assert rig.told.count["ping"] == 0


@pytest.mark.parametrize(
    ("caller", "method", "status"),
    [
        (Era.MODERN, "ping", 404),
        (Era.MODERN, "logging/setLevel", 404),
        (Era.MODERN, "initialize", 404),
        (Era.MODERN, "resources/subscribe", 404),
        (Era.MODERN, "subscriptions/listen", 404),
        (Era.LEGACY, "resources/subscribe", 200),
        (Era.LEGACY, "resources/unsubscribe", 200),
    ],
)
async def test_what_the_other_side_has_no_way_for_is_unknown(
    caller: Era, method: str, status: int
) -> None:
    rig = rig_for(caller)
    await rig.ask(call_of(caller))
    rig.told.forget()

    reply = await rig.ask(call_of(caller, method, {}))

    assert reply.status == status
    assert answer_of(reply)["error"]["code"] == -32601
    assert not rig.told.asked


@pytest.mark.parametrize("caller", Era)
async def test_what_wants_no_answer_is_taken(caller: Era) -> None:
    rig = rig_for(caller)
    await rig.ask(call_of(caller))
    rig.told.forget()

    note = await rig.ask(call_of(caller, "notifications/cancelled", {}, rpc_id=None))
    assert note.status == 202
    if caller is Era.LEGACY:
        answer = legacy("", {}, session=SESSION)
        answer.form = Form.ANSWER
        assert (await rig.ask(answer)).status == 202
        assert (await rig.ask(bodiless(Form.STREAM, SESSION))).status == 405
        assert (await rig.ask(bodiless(Form.END, SESSION))).status == 204
    assert not rig.told.asked


@pytest.mark.parametrize(
    ("caller", "code", "heard", "status", "label"),
    [
        (Era.MODERN, -32601, -32601, 404, "business_no"),
        (Era.MODERN, -32602, -32602, 400, "business_no"),
        (Era.MODERN, -32002, -32602, 400, "business_no"),
        (Era.MODERN, -32603, -32603, 200, "failed"),
        (Era.LEGACY, -32601, -32601, 200, "business_no"),
        (Era.LEGACY, -32602, -32602, 200, "business_no"),
        (Era.LEGACY, 7, 7, 200, "business_no"),
    ],
)
async def test_an_error_keeps_what_it_says_and_gets_the_status_of_the_callers_era(
    caller: Era, code: int, heard: int, status: int, label: str
) -> None:
    rig = rig_for(caller)
    error = {"code": code, "message": "née", "data": {"n": 1.5}}
    at = {-32601: 404, -32602: 400}.get(code, 200) if caller is Era.LEGACY else 200
    rig.told.answers["prompts/get"] = lambda asked: json_reply(
        {"jsonrpc": "2.0", "id": asked["id"], "error": error}, at
    )

    reply = await rig.ask(call_of(caller, "prompts/get", {"name": "x"}))

    assert reply.status == status
    assert answer_of(reply) == {"jsonrpc": "2.0", "id": "own-1", "error": {**error, "code": heard}}
    assert reply.verdict is not None
    assert reply.verdict.label == label


@pytest.mark.parametrize("caller", Era)
@pytest.mark.parametrize(
    ("result", "label"),
    [
        (text_result("fine"), "success"),
        (text_result("taken", isError=True), "business_no"),
        (text_result("Unknown tool: x", isError=True), "refused"),
    ],
)
async def test_a_tools_answer_is_judged_as_ever(
    caller: Era, result: dict[str, Any], label: str
) -> None:
    rig = rig_for(caller)
    rig.told.answers["tools/call"] = result
    rig.told.tools.clear()

    reply = await rig.ask(call_of(caller))

    assert reply.verdict is not None
    assert reply.verdict.label == label


async def test_the_rules_may_read_a_failure_in_what_a_tool_says() -> None:
    crashed = BodyVerdicts([({"isError": True, "text": {"prefix": "Error"}}, FAILED_BODY)])
    rig = Rig(Era.LEGACY, by_rule=crashed)
    rig.told.answers["tools/call"] = text_result("Error: x", isError=True)

    assert (await rig.ask(modern())).verdict is FAILED_BODY


@pytest.mark.parametrize("caller", Era)
@pytest.mark.parametrize("status", [429, 503])
async def test_a_failing_status_is_left_to_whoever_knows_its_promise(
    caller: Era, status: int
) -> None:
    rig = rig_for(caller)
    rig.told.answers["tools/call"] = lambda _: json_reply(
        b"busy", status, headers=[(b"Retry-After", b"3")]
    )

    reply = await rig.ask(call_of(caller))

    assert (reply.status, reply.verdict) == (status, None)
    assert (b"Retry-After", b"3") in reply.headers
    assert answer_of(reply)["error"]["code"] == -32603


@pytest.mark.parametrize("method", ["tools/call", "prompts/get"])
async def test_a_legacy_caller_cannot_be_asked_for_more(method: str) -> None:
    rig = Rig(Era.MODERN)
    rig.told.answers[method] = {"resultType": "input_required", "inputRequests": {}}

    reply = await rig.ask(legacy(method, {"name": "book"}, session=SESSION))

    answer = answer_of(reply)
    if method == "tools/call":
        assert answer["result"]["isError"] is True
        assert "user" in answer["result"]["content"][0]["text"]
    else:
        assert answer["error"]["code"] == -32603
    assert reply.verdict is not None
    assert reply.verdict.label == "business_no"


@pytest.mark.parametrize("caller", Era)
@pytest.mark.parametrize(
    ("method", "result"), [("tools/call", {"content": 5}), ("prompts/get", [1]), ("tools/call", 5)]
)
async def test_what_is_no_result_may_have_run(caller: Era, method: str, result: Any) -> None:
    rig = rig_for(caller)
    rig.told.answers[method] = lambda asked: json_reply(
        {"jsonrpc": "2.0", "id": asked["id"], "result": result}
    )

    with pytest.raises(UpstreamFailed) as caught:
        await rig.ask(call_of(caller, method, {"name": "book"}))

    assert caught.value.sent


@pytest.mark.parametrize("caller", Era)
async def test_params_that_are_no_object_are_refused_here(caller: Era) -> None:
    rig = rig_for(caller)
    await rig.ask(call_of(caller))
    rig.told.forget()
    call = call_of(caller, "prompts/get", {})
    call.body = b'{"jsonrpc":"2.0","id":"own-1","method":"prompts/get","params":[]}'

    reply = await rig.ask(call)

    assert answer_of(reply)["error"]["code"] == -32602
    assert reply.status == (400 if caller is Era.MODERN else 200)
    assert not rig.told.asked


@pytest.mark.parametrize("caller", Era)
async def test_a_tool_may_have_another_name_there(caller: Era) -> None:
    rig = rig_for(caller, tools={"buchen": ToolConfig(name="book")})

    params = {"name": "buchen", "arguments": {}}
    await rig.ask(call_of(caller, "tools/call", params, tool="buchen"))

    assert message(rig.told.sent[-1].body)["params"]["name"] == "book"
    assert len(rig.told.ran) == 1


@pytest.mark.parametrize("caller", Era)
async def test_the_callers_credential_and_origin_stay_here(caller: Era) -> None:
    rig = rig_for(caller, bearer=b"ours")
    call = call_of(caller)
    fields: Headers = [(b"Origin", b"https://x"), (b"Authorization", b"Bearer theirs")]
    call.head.end_to_end = [*call.head.end_to_end, *fields]

    await rig.ask(call)

    for outbound in rig.told.sent[1:]:
        sent = {name.lower(): value for name, value in outbound.headers}
        assert sent[b"authorization"] == b"Bearer ours"
        assert b"origin" not in sent


async def test_a_session_that_is_lost_is_replaced_and_the_tool_run_once() -> None:
    rig = Rig(Era.LEGACY)
    await rig.ask(modern())
    rig.told.restart()

    reply = await rig.ask(modern())

    assert answer_of(reply)["result"]["content"]
    assert len(rig.told.ran) == 2


async def test_a_server_may_turn_modern_in_between() -> None:
    rig = Rig(Era.LEGACY)
    await rig.ask(modern())
    rig.told.eras = {Era.MODERN}

    reply = await rig.ask(modern())

    assert check(Era.MODERN, "tools/call", reply)["resultType"] == "complete"


async def test_a_late_read_is_taken_back() -> None:
    rig = Rig(Era.LEGACY, tools={"book": ToolConfig(Effect.READ)})

    async def gate(_: dict[str, Any]) -> None:
        raise UpstreamFailed("timeout", "slow", sent=True)

    rig.told.gate = gate
    with pytest.raises(UpstreamFailed):
        await rig.ask(modern())
    asked = message(rig.told.sent[-1].body)["id"]
    await rig.run_aside()

    taken = [each for each in rig.told.notified if each[0] == "notifications/cancelled"]
    assert [each[2]["requestId"] for each in taken] == [asked]


# Progress.


def progressing(rig: Rig, *more: bytes, failure: UpstreamFailed | None = None) -> list[Stream]:
    """The server tells of progress before it answers."""
    streams: list[Stream] = []

    def answer(asked: dict[str, Any]) -> Reply:
        token = asked["params"]["_meta"]["progressToken"]
        params = {"progressToken": token, "progress": 1, "message": "é"}
        note = {"jsonrpc": "2.0", "method": "notifications/progress", "params": params}
        final = {"jsonrpc": "2.0", "id": asked["id"], "result": text_result("done")}
        log = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"data": 1.50}}
        chunks = [b"id: 1\ndata:\n\n", event(note) + event(log)[:9], event(log)[9:], *more]
        if failure is None and not more:
            chunks += [event(final), event(final)]
        streams.append(Stream(*chunks, failure=failure))
        return Reply(200, [(b"content-type", b"text/event-stream")], streams[0])

    rig.told.answers["tools/call"] = answer
    return streams


def wanting_progress(caller: Era, token: object = "mine") -> Call:
    params = {"name": "book", "arguments": {}, "_meta": {"progressToken": token}}
    call = call_of(caller, "tools/call", params)
    if caller is Era.MODERN:
        raw = message(call.body)
        raw["params"]["_meta"]["progressToken"] = token
        call.body = json.dumps(raw).encode()
    return call


def events_in(raw: bytes) -> list[dict[str, Any]]:
    found = [part for part in raw.split(b"\n\n") if part]
    return [json.loads(part.partition(b"data: ")[2]) for part in found]


@pytest.mark.parametrize("caller", Era)
@pytest.mark.parametrize("token", ["mine", 7])
async def test_a_callers_progress_comes_under_his_own_token(caller: Era, token: object) -> None:
    rig = rig_for(caller)
    streams = progressing(rig)

    reply = await rig.ask(wanting_progress(caller, token))

    assert not isinstance(reply.body, bytes)
    assert reply.verdict is None
    assert (b"content-type", b"text/event-stream") in reply.headers
    heard = events_in(b"".join([chunk async for chunk in reply.body]))
    assert [each.get("method") for each in heard] == [
        "notifications/progress",
        "notifications/message",
        None,
    ]
    assert heard[0]["params"] == {"progressToken": token, "progress": 1, "message": "é"}
    assert heard[2]["id"] == "own-1"
    assert ("resultType" in heard[2]["result"]) is (caller is Era.MODERN)
    sent = message(rig.told.sent[-1].body)["params"]["_meta"]["progressToken"]
    assert sent != token, "ours, for tokens of strangers may be equal"
    assert streams[0].closed
    assert not rig.told.sent[-1].whole


async def test_the_session_is_in_use_until_the_stream_ends() -> None:
    rig = Rig(Era.LEGACY)
    progressing(rig)
    reply = await rig.ask(wanting_progress(Era.MODERN))
    (seat,) = rig.arm._cross._sessions._of.values()
    assert seat.users == 1

    assert not isinstance(reply.body, bytes)
    await reply.body.aclose()  # type: ignore[attr-defined]
    await reply.body.aclose()  # type: ignore[attr-defined]

    assert seat.users == 0


@pytest.mark.parametrize("effect", Effect)
async def test_a_read_whose_reader_leaves_is_taken_back(effect: Effect) -> None:
    rig = Rig(Era.LEGACY, tools={"book": ToolConfig(effect)})
    progressing(rig)
    reply = await rig.ask(wanting_progress(Era.MODERN))
    rig.asides.waiting.clear()
    assert not isinstance(reply.body, bytes)
    await anext(aiter(reply.body))

    reply.body.drop()  # type: ignore[attr-defined]

    assert bool(rig.asides.waiting) is (effect is not Effect.WRITE)


async def test_a_read_that_has_been_answered_is_not_taken_back() -> None:
    rig = Rig(Era.LEGACY, tools={"book": ToolConfig(Effect.READ)})
    progressing(rig)
    reply = await rig.ask(wanting_progress(Era.MODERN))
    rig.asides.waiting.clear()
    assert not isinstance(reply.body, bytes)

    [chunk async for chunk in reply.body]

    assert not rig.asides.waiting


@pytest.mark.parametrize(
    ("more", "why"),
    [((b"data: nonsense\n\n",), "body"), ((), "reset")],
)
async def test_a_stream_that_breaks_is_the_servers_failure(
    more: tuple[bytes, ...], why: str
) -> None:
    rig = Rig(Era.LEGACY)
    broken = UpstreamFailed("reset", "cut", sent=True) if not more else None
    progressing(rig, *more, failure=broken)
    reply = await rig.ask(wanting_progress(Era.MODERN))
    assert not isinstance(reply.body, bytes)

    with pytest.raises(UpstreamFailed) as caught:
        [chunk async for chunk in reply.body]

    assert caught.value.why == why
    (seat,) = rig.arm._cross._sessions._of.values()
    assert seat.users == 0


@pytest.mark.parametrize("status", [200, 400])
async def test_an_answer_without_progress_comes_whole(status: int) -> None:
    rig = Rig(Era.LEGACY)
    if status == 400:
        rig.told.answers["tools/call"] = lambda _: refusal(400, "Invalid params", code=-32602)

    reply = await rig.ask(wanting_progress(Era.MODERN))

    assert isinstance(reply.body, bytes)
    assert reply.verdict is not None


async def test_who_takes_no_events_hears_of_no_progress() -> None:
    rig = Rig(Era.LEGACY, events=True)
    call = wanting_progress(Era.MODERN)
    call.head.named[b"accept"] = b"application/json"

    reply = await rig.ask(call)

    assert isinstance(reply.body, bytes)
    assert "_meta" not in message(rig.told.sent[-1].body)["params"]


async def test_an_error_ends_a_stream_too() -> None:
    rig = Rig(Era.LEGACY)
    error = {"jsonrpc": "2.0", "id": None, "error": {"code": -32002, "message": "no"}}
    progressing(rig, event(error))

    reply = await rig.ask(wanting_progress(Era.MODERN))

    assert not isinstance(reply.body, bytes)
    heard = events_in(b"".join([chunk async for chunk in reply.body]))
    assert heard[-1]["id"] == "own-1"
    assert heard[-1]["error"]["code"] == -32602


async def test_a_handshake_that_fails_means_that_nothing_ran() -> None:
    rig = Rig(Era.LEGACY)
    rig.told.handshake = json_reply(b"", 503)

    with pytest.raises(UpstreamFailed) as caught:
        await rig.ask(modern())

    assert (caught.value.why, caught.value.sent) == ("status", False)
