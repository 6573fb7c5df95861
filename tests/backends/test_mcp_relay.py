from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from backends.base import ToolConfig
from backends.mcp_repairs import PARAMS_KEPT
from proxy.core.model import Effect, Era, Form, Headers, Outbound, Ran, Reply, Session
from proxy.errors import UpstreamFailed
from tests.backends.kit import Stream, json_reply, rpc_error
from tests.backends.told import (
    LEGACY,
    Rig,
    answer_of,
    bodiless,
    legacy,
    message,
    modern,
    refusal,
)

FIELDS: Headers = [
    (b"Authorization", b"Bearer theirs"),
    (b"X-Retell-Signature", b"v=1,d=0"),
    (b"Origin", b"https://elsewhere.example"),
    (b"Accept-Encoding", b"gzip"),
    (b"Accept", b"application/json, text/event-stream"),
    (b"MCP-Protocol-Version", LEGACY.encode()),
    (b"Last-Event-ID", b"7"),
    (b"Mcp-Param-Region", b"eu"),
    (b"Mcp-Method", b"tools/call"),
    (b"Mcp-Name", b"book"),
]


class Droppable(Stream):
    dropped = False

    def drop(self) -> None:
        self.dropped = True


def named(outbound: Outbound) -> dict[bytes, bytes]:
    return {name.lower(): value for name, value in outbound.headers}


async def test_a_session_begins_with_the_callers_own_bytes() -> None:
    rig = Rig()
    call = legacy("initialize", {"protocolVersion": LEGACY}, session=Session("c", "", LEGACY, 0))

    reply = await rig.ask(call)

    assert rig.told.sent[0].body == call.body
    assert b"mcp-session-id" not in named(rig.told.sent[0])
    assert dict(reply.headers)[b"Mcp-Session-Id"] == b"s1"
    assert len(rig.told.sent) == 1


async def test_everything_in_a_session_goes_to_that_of_the_server() -> None:
    rig = Rig(Era.LEGACY, bearer=b"ours")
    session = await rig.begin()
    calls = [
        legacy("notifications/initialized", {}, session=session, rpc_id=None),
        legacy(session=session),
        legacy("resources/list", {}, session=session),
        bodiless(Form.STREAM, session),
    ]
    answer = legacy("", {}, session=session)
    answer.form, answer.rpc_method = Form.ANSWER, None
    answer.body = b'{"jsonrpc":"2.0","id":1,"result":{}}'

    for call in [*calls, answer]:
        call.head.end_to_end = list(FIELDS)
        await rig.ask(call)

    assert [each.body for each in rig.told.sent] == [call.body for call in [*calls, answer]]
    for each in rig.told.sent:
        fields = named(each)
        assert fields[b"mcp-session-id"] == b"s1"
        assert fields[b"authorization"] == b"Bearer ours"
        assert fields[b"accept-encoding"] == b"identity"
        assert not {b"origin", b"x-retell-signature"} & set(fields)
        assert {b"last-event-id", b"mcp-param-region", b"mcp-method", b"mcp-name"} <= set(fields)
        assert fields[b"mcp-protocol-version"] == LEGACY.encode()
        assert not each.whole


async def test_a_stream_is_handed_on_as_it_comes() -> None:
    rig = Rig(Era.LEGACY, events=True)
    session = await rig.begin()

    reply = await rig.ask(legacy(session=session))

    assert not isinstance(reply.body, bytes)
    assert reply.verdict is None
    chunks = [chunk async for chunk in reply.body]
    assert chunks[0] == b"id: 1\ndata:\n\n"
    assert json.loads(chunks[1].partition(b"data: ")[2])["id"] == "own-1"


async def test_a_lost_session_is_begun_anew_and_the_bytes_are_sent_once_more() -> None:
    rig = Rig(Era.LEGACY)
    said = {
        "protocolVersion": LEGACY,
        "clientInfo": {"name": "they"},
        "capabilities": {"roots": {}},
    }
    session = await rig.begin(params=said)
    rig.told.restart()
    call = legacy(session=session)

    reply = await rig.ask(call)

    assert answer_of(reply)["id"] == "own-1"
    assert reply.verdict is not None
    assert reply.verdict.label == "success"
    assert rig.told.asked == [
        "tools/call",
        "initialize",
        "notifications/initialized",
        "tools/call",
    ]
    assert rig.told.dispatched == [True, False, False, True]
    assert message(rig.told.sent[1].body)["params"] == said
    assert rig.told.sent[3].body == call.body
    assert rig.told.ran == [({"date": "2026-01-02", "n": 1.5}, "s2")]
    assert rig.repeated == 0  # A restart loses all sessions: no budget would do.

    await rig.ask(legacy("ping", {}, session=session))
    assert rig.told.asked[4:] == ["ping"], "the session goes on in the new one"


@pytest.mark.parametrize("form", [Form.STREAM, Form.NOTIFICATION, Form.ANSWER])
async def test_streams_and_notifications_are_repaired_too(form: Form) -> None:
    rig = Rig(Era.LEGACY)
    session = await rig.begin()
    rig.told.restart()
    call = legacy("notifications/progress", {}, session=session, rpc_id=None)
    if form is Form.STREAM:
        call = bodiless(form, session)

    reply = await rig.ask(call)

    assert reply.status == (200 if form is Form.STREAM else 202)
    assert rig.told.count["initialize"] == 1


async def test_a_session_that_began_while_the_server_was_away_is_begun_there_later() -> None:
    """Our face has answered its initialize: the server has never heard of it."""
    rig = Rig(Era.LEGACY)
    session = Session("c1", "mcp", "2025-03-26", 0)

    reply = await rig.ask(legacy("notifications/initialized", {}, session=session, rpc_id=None))

    assert reply.status == 202
    assert rig.told.asked == [
        "notifications/initialized",
        "initialize",
        "notifications/initialized",
    ], "that is not said twice"
    assert message(rig.told.sent[1].body)["params"]["protocolVersion"] == "2025-03-26"
    assert answer_of(await rig.ask(legacy(session=session)))["result"]["content"]


async def test_all_who_lose_one_session_share_its_repair() -> None:
    rig = Rig(Era.LEGACY)
    session = await rig.begin()
    rig.told.restart()
    calls = [legacy("ping", {}, session=session, rpc_id=b"%d" % n) for n in range(20)]

    replies = await asyncio.gather(*map(rig.ask, calls))

    assert [answer_of(reply)["id"] for reply in replies] == list(range(20))
    assert rig.told.count["initialize"] == 1


async def test_a_server_that_keeps_no_sessions_any_more_is_asked_without() -> None:
    rig = Rig(Era.LEGACY)
    session = await rig.begin()
    rig.told.restart()
    rig.told.answers["ping"] = lambda asked: (
        refusal(404, "Session not found")
        if b"mcp-session-id" in named(rig.told.sent[-1])
        else json_reply({"jsonrpc": "2.0", "id": asked["id"], "result": {}})
    )
    rig.told.keeps_sessions = False

    reply = await rig.ask(legacy("ping", {}, session=session))

    assert answer_of(reply)["result"] == {}
    assert b"mcp-session-id" not in named(rig.told.sent[-1])


async def test_a_caller_who_said_too_much_is_introduced_by_his_version_only() -> None:
    rig = Rig(Era.LEGACY)
    session = await rig.begin(params={"protocolVersion": LEGACY, "x": "y" * PARAMS_KEPT})
    rig.told.restart()

    await rig.ask(legacy("ping", {}, session=session))

    assert message(rig.told.sent[1].body)["params"]["clientInfo"]["name"] == "callsplit"


@pytest.mark.parametrize("method", ["tools/call", "ping"])
async def test_a_session_that_cannot_be_repaired_has_run_nothing(method: str) -> None:
    """Nobody hears 404: clients would give their session up, and it can be mended later."""
    rig = Rig(Era.LEGACY)
    session = await rig.begin()
    rig.told.restart()
    rig.told.handshake = json_reply(b"", 503)

    reply = await rig.ask(legacy(method, {"name": "book", "arguments": {}}, session=session))

    assert reply.verdict is not None
    assert (reply.verdict.ran, reply.verdict.delivers) == (Ran.NO, False)
    assert not reply.verdict.config_fault
    assert rig.told.ran == []


async def test_a_session_that_is_lost_at_once_again_is_not_repaired_for_ever() -> None:
    rig = Rig(Era.LEGACY)
    session = await rig.begin()
    rig.told.answers["ping"] = lambda _: refusal(404, "Session not found")

    reply = await rig.ask(legacy("ping", {}, session=session))

    assert reply.verdict is not None
    assert not reply.verdict.delivers
    assert rig.told.count == {"ping": 2, "initialize": 1, "notifications/initialized": 1}


async def test_what_is_not_about_the_session_is_the_servers_to_tell() -> None:
    rig = Rig(Era.LEGACY)
    session = await rig.begin()
    rig.told.answers["prompts/get"] = lambda _: refusal(400, "Parse error", code=-32700)

    reply = await rig.ask(legacy("prompts/get", {}, session=session))

    assert (reply.status, answer_of(reply)["id"]) == (400, "own-1"), "never with a strange ID"
    assert reply.verdict is not None
    assert reply.verdict.label == "business_no"
    assert rig.told.count["initialize"] == 0


async def test_a_caller_may_end_his_session() -> None:
    rig = Rig(Era.LEGACY)
    session = await rig.begin()
    rig.told.restart()
    await rig.ask(legacy("ping", {}, session=session))

    reply = await rig.ask(bodiless(Form.END, session))

    assert reply.status == 200
    assert rig.told.ended == ["s2"], "the one that it is now"
    await rig.ask(bodiless(Form.END, session))
    assert dict(rig.told.sent[-1].headers)[b"mcp-session-id"] == b"s1", "nothing is kept of it"


async def test_ending_what_the_server_does_not_know_is_no_fault() -> None:
    rig = Rig(Era.LEGACY)
    session = await rig.begin()
    rig.told.restart()

    assert (await rig.ask(bodiless(Form.END, session))).status == 204
    assert (await rig.ask(bodiless(Form.END, Session("c", "mcp", LEGACY, 0)))).status == 204
    assert rig.told.asked == ["DELETE"]


async def test_a_server_that_keeps_sessions_for_itself_says_so() -> None:
    rig = Rig(Era.LEGACY, sessions=False)
    session = Session("c", "mcp", LEGACY, 0, "of old")

    ending = await rig.ask(bodiless(Form.END, session))
    stream = await rig.ask(bodiless(Form.STREAM, session))

    for reply in (ending, stream):
        assert (reply.status, reply.headers) == (405, [(b"allow", b"POST")])
        assert reply.verdict is not None
        assert reply.verdict.label == "business_no"


async def test_a_bare_request_of_a_server_without_sessions_is_relayed() -> None:
    rig = Rig(Era.LEGACY, sessions=False)

    reply = await rig.ask(legacy())

    assert answer_of(reply)["id"] == "own-1"
    assert rig.told.asked == ["tools/call"]


@pytest.mark.parametrize("eras", [(Era.LEGACY,), (Era.LEGACY, Era.MODERN)])
async def test_a_bare_request_of_a_server_with_sessions_is_asked_in_one_of_ours(
    eras: tuple[Era, ...],
) -> None:
    rig = Rig(*eras)

    first, second = await rig.ask(legacy()), await rig.ask(legacy())

    assert answer_of(first) == answer_of(second)
    assert answer_of(first)["id"] == "own-1"
    assert len(rig.told.ran) == 2
    assert rig.told.count["initialize"] == (1 if len(eras) == 1 else 0)
    assert rig.told.count["tools/call"] == 3, "refused once, and never again"
    assert rig.repeated == 0


async def test_two_requests_with_one_id_in_one_session_are_both_answered() -> None:
    """The SDKs' servers would answer only one of them."""
    rig = Rig(Era.LEGACY)
    session = await rig.begin()
    go = asyncio.Event()

    async def gate(_: dict[str, Any]) -> None:
        if len(rig.told.ran) + len([each for each in rig.told.asked if each == "tools/call"]) > 1:
            go.set()
        await go.wait()

    rig.told.gate = gate
    replies = await asyncio.gather(*(rig.ask(legacy(session=session)) for _ in range(2)))

    assert [answer_of(reply)["id"] for reply in replies] == ["own-1"] * 2
    assert len({session for _, session in rig.told.ran}) == 2
    rig.told.ran.clear()
    await rig.ask(legacy(session=session))
    assert [session for _, session in rig.told.ran] == ["s1"], "once it is over, it is over"


@pytest.mark.parametrize("how", ["end", "break", "leave", "drop"])
async def test_a_streamed_answer_is_over_however_it_ends(how: str) -> None:
    rig = Rig(Era.LEGACY, events=True)
    session = await rig.begin()
    failure = UpstreamFailed("reset", "cut", sent=True) if how == "break" else None
    body = Droppable(b"data: 1\n\n", failure=failure)
    held = Reply(200, [(b"content-type", b"text/event-stream")], body)
    rig.told.answers["tools/call"] = lambda _: held
    reply = await rig.ask(legacy(session=session))
    assert not isinstance(reply.body, bytes)
    del rig.told.answers["tools/call"]
    await rig.ask(legacy(session=session))
    assert rig.told.count["initialize"] == 1, "as long as it is under way"

    stream = reply.body
    if how == "end":
        assert [chunk async for chunk in stream] == [b"data: 1\n\n"]
    elif how == "break":
        with pytest.raises(UpstreamFailed):
            [chunk async for chunk in stream]
    elif how == "leave":
        await stream.aclose()  # type: ignore[attr-defined]
        assert body.closed
    else:
        stream.drop()  # type: ignore[attr-defined]
        assert body.dropped

    rig.told.forget()
    await rig.ask(legacy(session=session))
    assert rig.told.count["tools/call"] == 1
    assert rig.told.count["initialize"] == 0


@pytest.mark.parametrize(
    ("effect", "taken_back"),
    [(Effect.READ, True), (Effect.IDEMPOTENT, True), (Effect.WRITE, False), (None, False)],
)
async def test_a_late_read_is_taken_back_and_a_write_never(
    effect: Effect | None, taken_back: bool
) -> None:
    tools = {"book": ToolConfig(effect)} if effect is not None else {}
    rig = Rig(Era.LEGACY, tools=tools)
    session = await rig.begin()

    async def gate(_: dict[str, Any]) -> None:
        raise UpstreamFailed("timeout", "slow", sent=True)

    rig.told.gate = gate
    with pytest.raises(UpstreamFailed):
        await rig.ask(legacy(session=session))
    await rig.run_aside()

    told = [each for each in rig.told.notified if each[0] == "notifications/cancelled"]
    assert bool(told) is taken_back
    if taken_back:
        assert told[0][1] == "s1"
        assert told[0][2]["requestId"] == "own-1"


@pytest.mark.parametrize(
    ("failure", "taken_back"),
    [
        (asyncio.CancelledError(), True),
        (UpstreamFailed("timeout", "unsent", sent=False), False),
        (UpstreamFailed("reset", "gone", sent=True), False),
    ],
)
async def test_only_what_may_be_under_way_is_taken_back(
    failure: BaseException, taken_back: bool
) -> None:
    rig = Rig(Era.LEGACY, tools={"book": ToolConfig(Effect.READ)})
    session = await rig.begin()

    async def gate(_: dict[str, Any]) -> None:
        raise failure

    rig.told.gate = gate
    with pytest.raises(type(failure)):
        await rig.ask(legacy(session=session))

    assert bool(rig.asides.waiting) is taken_back


async def test_without_a_session_there_is_nowhere_to_take_a_read_back() -> None:
    rig = Rig(Era.LEGACY, sessions=False, tools={"book": ToolConfig(Effect.READ)})
    session = await rig.begin()

    async def gate(_: dict[str, Any]) -> None:
        raise UpstreamFailed("timeout", "slow", sent=True)

    rig.told.gate = gate
    with pytest.raises(UpstreamFailed):
        await rig.ask(legacy(session=session))

    assert not rig.asides.waiting


@pytest.mark.parametrize("why", ["initialize", "bare", "in a session"])
async def test_a_legacy_caller_of_a_server_that_is_modern_only_is_crossed_over(why: str) -> None:
    rig = Rig(Era.MODERN)
    session = Session("c", "mcp", LEGACY, 0, "s9")
    call = legacy(session=session if why == "in a session" else None)
    if why == "initialize":
        draft = Session("c", "", LEGACY, 0)
        call = legacy("initialize", {"protocolVersion": LEGACY}, session=draft)

    reply = await rig.ask(call)

    assert reply.status == 200
    result = answer_of(reply)["result"]
    assert "resultType" not in result
    assert ("serverInfo" in result) is (why == "initialize")
    rig.told.forget()
    await rig.ask(call)
    assert rig.told.count["initialize"] == 0, "that is known by now"


async def test_a_lost_session_of_a_server_that_has_become_modern_only_is_crossed_over() -> None:
    rig = Rig(Era.LEGACY)
    session = await rig.begin()
    rig.told.eras = {Era.MODERN}

    reply = await rig.ask(legacy(session=session))

    assert answer_of(reply)["result"]["content"]


async def test_a_bad_initialize_does_not_make_a_server_modern_only() -> None:
    rig = Rig()
    session = await rig.begin("other")
    rig.told.handshake = refusal(400, "Invalid params", code=-32602)
    ours = rig.told._begin

    def picky(asked: dict[str, Any]) -> Reply:
        if asked["params"].get("clientInfo"):
            rig.told.handshake = None
        return ours(asked)

    rig.told._begin = picky  # type: ignore[method-assign]
    draft = Session("c", "", LEGACY, 0)

    reply = await rig.ask(legacy("initialize", {"protocolVersion": 5}, session=draft))

    assert reply.status == 400
    assert answer_of(reply)["error"]["code"] == -32602
    assert (await rig.ask(legacy("ping", {}, session=session))).status == 200


async def test_a_modern_caller_is_relayed_and_a_server_that_is_not_modern_any_more_found_out() -> (
    None
):
    rig = Rig()
    call = modern()
    reply = await rig.ask(call)
    assert answer_of(reply)["id"] == "own-1"
    assert rig.told.sent[-1].body == call.body
    rig.told.eras = {Era.LEGACY}

    reply = await rig.ask(modern())

    assert answer_of(reply)["result"]["resultType"] == "complete"
    assert len(rig.told.ran) == 2


async def test_a_modern_refusal_stands_if_the_server_is_still_modern_or_away() -> None:
    rig = Rig()
    await rig.ask(modern())
    rig.told.answers["tools/call"] = lambda _: json_reply(b"not here", 404)

    reply = await rig.ask(modern())
    assert reply.status == 404

    rig.told.answers["server/discover"] = lambda _: json_reply(b"", 503)
    assert (await rig.ask(modern())).status == 404
    rig.repeats = False
    rig.told.forget()
    assert (await rig.ask(modern())).status == 404
    assert rig.told.asked == ["tools/call"]


async def test_a_server_that_goes_away_while_its_era_is_asked_for_has_still_refused() -> None:
    rig = Rig()
    await rig.ask(modern())

    def gone(_: dict[str, Any]) -> Reply:
        rig.told.down = UpstreamFailed("connect", "nobody", sent=False)
        return json_reply(b"not here", 404)

    rig.told.answers["tools/call"] = gone

    reply = await rig.ask(modern())

    assert reply.verdict is not None
    assert reply.verdict.ran is Ran.NO


async def test_the_servers_invitation_to_its_tokens_is_not_passed_on() -> None:
    rig = Rig()
    await rig.ask(modern())
    invited = [(b"WWW-Authenticate", b'Bearer resource_metadata="https://up/.well-known"')]
    rig.told.answers["tools/call"] = lambda _: json_reply(b"", 401, headers=invited)

    reply = await rig.ask(modern())

    assert reply.verdict is not None
    assert reply.verdict.config_fault
    assert not [name for name, _ in reply.headers if name.lower() == b"www-authenticate"]


@pytest.mark.parametrize("rpc_id", [None, "server-error", 7, "own-1"])
async def test_the_callers_id_stands_in_every_answer_that_he_hears(rpc_id: object) -> None:
    rig = Rig()
    await rig.ask(modern())
    rig.told.answers["prompts/get"] = lambda _: rpc_error(-32602, status=400, rpc_id=rpc_id)

    reply = await rig.ask(modern("prompts/get", {"name": "x"}))

    assert answer_of(reply)["id"] == "own-1"
    assert answer_of(reply)["error"]["code"] == -32602


async def test_a_session_that_can_only_be_begun_anew_in_the_other_era_is_crossed_over() -> None:
    rig = Rig(Era.LEGACY)
    session = await rig.begin()

    def become_modern(_: dict[str, Any]) -> Reply:
        rig.told.eras = {Era.MODERN}
        del rig.told.answers["tools/call"]
        return refusal(404, "Session not found")

    rig.told.answers["tools/call"] = become_modern

    assert answer_of(await rig.ask(legacy(session=session)))["result"]["content"]


async def test_a_tool_may_have_another_name_there() -> None:
    rig = Rig(Era.LEGACY, tools={"buchen": ToolConfig(name="book")})
    session = await rig.begin()
    call = legacy("tools/call", {"name": "buchen", "arguments": {}}, session=session, tool="buchen")

    await rig.ask(call)

    assert message(rig.told.sent[0].body)["params"]["name"] == "book"
    assert named(rig.told.sent[0])[b"mcp-name"] == b"book"


async def test_a_server_that_forgets_all_the_time_is_asked_twice_only_within_the_budget() -> None:
    rig = Rig(Era.LEGACY)
    session = await rig.begin()
    rig.told.restart()
    await rig.ask(legacy("ping", {}, session=session))
    rig.told.restart()
    rig.repeats = False
    rig.told.forget()

    reply = await rig.ask(legacy(session=session))

    assert rig.told.asked == ["tools/call"]
    assert reply.verdict is not None
    assert (reply.verdict.ran, reply.verdict.delivers) == (Ran.NO, False)
    rig.clock.advance(60)
    assert answer_of(await rig.ask(legacy(session=session)))["result"]["content"]
