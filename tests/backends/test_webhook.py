from __future__ import annotations

import json
from typing import Any

import pytest
from mcp_types.jsonrpc import JSONRPCError, JSONRPCResponse
from retell.lib.webhook_auth import symmetric

from backends import webhook
from backends.base import BackendConfig, ToolConfig
from backends.webhook import WebhookBackend
from proxy.core.body_verdicts import BodyVerdicts
from proxy.core.model import Call, Counts, Kind
from proxy.core.verdict import BUSINESS_NO
from proxy.errors import UpstreamFailed
from tests.backends.kit import (
    ARGUMENTS,
    HEADERS,
    ScriptedSend,
    Stream,
    body_of,
    json_reply,
    make_call,
    make_head,
    mcp_call,
)
from tests.fakes import FakeClock

KEY = b"key_of_ours"
OK = json_reply({"ok": True})


def backend(**more: Any) -> WebhookBackend:
    return WebhookBackend(BackendConfig("webhook", path="/hook", **more))


def signing(**more: Any) -> WebhookBackend:
    return backend(sign=KEY, wall_ms=FakeClock().wall_ms, **more)


@pytest.mark.parametrize("kind", sorted(WebhookBackend.kinds - {Kind.MCP, Kind.TOOLS}))
async def test_what_is_retells_own_goes_on_byte_for_byte(kind: Kind) -> None:
    call, send = make_call(kind, b'{ "raw":\t1.50 }'), ScriptedSend(OK)

    reply = await backend().handle(call, send)

    (outbound,) = send.sent
    assert (outbound.method, outbound.target) == ("POST", "/hook")
    assert outbound.body == b'{ "raw":\t1.50 }'
    assert outbound.headers == HEADERS
    assert reply is OK
    assert reply.verdict is None


async def test_an_arm_with_a_bearer_never_shows_it_the_callers() -> None:
    send = ScriptedSend(OK)

    await backend(bearer=b"ours").handle(make_call(Kind.EVENT), send)

    assert send.headers["authorization"] == "Bearer ours"
    assert send.headers["x-retell-signature"] == "v=1,d=00"


async def test_each_kind_goes_to_its_own_path() -> None:
    paths = {Kind.EVENT: "/events", Kind.ARGS: "/fn/{tool}", Kind.FUNCTION: "/functions"}
    arm, send = backend(paths=paths, query="v=2"), ScriptedSend(OK)

    for kind in (Kind.EVENT, Kind.ARGS, Kind.FUNCTION, Kind.INBOUND, Kind.TOOLS):
        await arm.handle(make_call(kind), send)
    await arm.handle(mcp_call(), send)

    targets = ["/events", "/fn/book", "/functions", "/hook", "/functions", "/functions"]
    assert [outbound.target for outbound in send.sent] == [f"{t}?v=2" for t in targets]


async def test_a_tools_request_becomes_a_function_post() -> None:
    send = ScriptedSend(OK)

    reply = await backend(bearer=b"ours").handle(make_call(Kind.TOOLS), send)

    assert send.message == {
        "name": "book",
        "call": {"call_id": "call_1"},
        "args": json.loads(ARGUMENTS),
    }
    assert ARGUMENTS in send.sent[0].body
    assert send.headers == {
        "x-tenant": "t1",
        "user-agent": "axios",
        "content-type": "application/json",
        "accept-encoding": "identity",
        "authorization": "Bearer ours",
    }
    assert reply is OK  # its body is the caller's too


@pytest.mark.parametrize("version", ["2026-07-28", "2025-11-25"])
async def test_an_mcp_caller_hears_the_webhook_as_a_result(version: str) -> None:
    send = ScriptedSend(json_reply({"slots": ["10:00"]}))

    reply = await backend().handle(mcp_call(version=version), send)

    message = JSONRPCResponse.model_validate_json(body_of(reply))
    assert message.id == "own-1"
    assert message.result["structuredContent"] == {"slots": ["10:00"]}
    assert message.result["isError"] is False
    assert send.message["name"] == "book"
    assert not {"mcp-method", "mcp-name", "mcp-protocol-version"} & set(send.headers)


async def test_a_result_honours_the_schema_that_the_rules_declare() -> None:
    schema = {"type": "object", "required": ["booking"]}
    arm = backend(tools={"book": ToolConfig(output_schema=schema)})

    reply = await arm.handle(mcp_call(), ScriptedSend(json_reply({"other": 1})))

    result = JSONRPCResponse.model_validate_json(body_of(reply)).result
    assert result["isError"] is True
    assert result["content"][0]["text"] == '{"other": 1}'
    assert "structuredContent" not in result


async def test_a_failing_webhook_is_judged_as_one_whoever_asked() -> None:
    said = {"success": False, "error": "db", "status_code": 500}

    reply = await backend().handle(mcp_call(), ScriptedSend(json_reply(said)))

    assert reply.verdict is not None
    assert reply.verdict.counts is Counts.FAILURE


async def test_a_streamed_answer_is_read_whole_to_be_translated() -> None:
    body = Stream(b'{"a":', b"1}")
    answer = json_reply(b"")
    answer.body = body

    reply = await backend().handle(mcp_call(), ScriptedSend(answer))

    result = JSONRPCResponse.model_validate_json(body_of(reply)).result
    assert result["structuredContent"] == {"a": 1}
    assert body.closed


@pytest.mark.parametrize(
    "call", [mcp_call("tools/list", {}, tool=None), mcp_call("initialize", {}, tool=None)]
)
async def test_other_mcp_requests_are_unknown_here_and_go_nowhere(call: Call) -> None:
    send = ScriptedSend(OK)

    reply = await backend().handle(call, send)

    assert JSONRPCError.model_validate_json(body_of(reply)).error.code == -32601
    assert send.sent == []


async def test_an_mcp_notification_goes_nowhere() -> None:
    send = ScriptedSend(OK)

    reply = await backend().handle(mcp_call(rpc_id=None), send)

    assert (reply.status, send.sent) == (202, [])


@pytest.mark.parametrize(
    ("kind", "member"), [(Kind.FUNCTION, "name"), (Kind.TOOLS, "name"), (Kind.MCP, "name")]
)
async def test_a_tool_may_have_another_name_here(kind: Kind, member: str) -> None:
    arm, send = backend(tools={"book": ToolConfig(name="bookAppointment")}), ScriptedSend(OK)

    await arm.handle(make_call(kind), send)

    assert send.message[member] == "bookAppointment"
    assert "x-retell-signature" not in send.headers  # it held for other bytes


async def test_bare_arguments_are_sent_to_the_other_names_path() -> None:
    paths = {Kind.ARGS: "/fn/{tool}"}
    arm = backend(tools={"book": ToolConfig(name="buchen")}, paths=paths)
    call, send = make_call(Kind.ARGS), ScriptedSend(OK)

    await arm.handle(call, send)

    assert (send.sent[0].target, send.sent[0].body) == ("/fn/buchen", call.body)
    assert send.headers["authorization"] == "Bearer downstream-secret"


def is_signed(send: ScriptedSend) -> bool:
    """What Retell's own SDK says of the signature, at the moment of the signing clock."""
    body, value = send.sent[-1].body.decode(), send.headers["x-retell-signature"]
    now = {"timestamp": FakeClock().wall_ms()}
    return bool(symmetric["verify"](body, KEY.decode(), value, now))


@pytest.mark.parametrize("call", [make_call(Kind.TOOLS), mcp_call()])
async def test_what_we_compose_is_signed_as_retell_would(call: Call) -> None:
    send = ScriptedSend(OK)

    await signing().handle(call, send)

    assert is_signed(send)


async def test_a_renamed_function_is_signed_anew() -> None:
    send = ScriptedSend(OK)

    arm = signing(tools={"book": ToolConfig(name="buchen")}, bearer=b"ours")
    await arm.handle(make_call(Kind.FUNCTION), send)

    assert is_signed(send)
    assert send.headers["authorization"] == "Bearer ours"


async def test_what_goes_on_unchanged_keeps_retells_signature() -> None:
    send = ScriptedSend(OK)

    await signing().handle(make_call(Kind.FUNCTION), send)

    assert send.headers["x-retell-signature"] == "v=1,d=00"


def started(call_id: str = "call_1", **more: Any) -> Call:
    body = {"event": "call_started", "call": {"call_id": call_id, "agent_id": "a1", **more}}
    return make_call(Kind.EVENT, json.dumps(body).encode(), id=call_id, event="call_started")


async def composed_call(arm: WebhookBackend, call_id: str = "call_1") -> Any:
    send = ScriptedSend(OK)
    await arm.handle(make_call(Kind.TOOLS, id=call_id), send)
    return send.message["call"]


async def test_a_signed_request_repeats_what_was_last_seen_of_its_call() -> None:
    arm, send = signing(), ScriptedSend(OK)
    await arm.handle(started(from_number="+1", metadata={"tenant": 7}), send)

    expected = {
        "call_id": "call_1",
        "agent_id": "a1",
        "from_number": "+1",
        "metadata": {"tenant": 7},
    }
    assert await composed_call(arm) == expected
    assert await composed_call(arm, "call_2") == {"call_id": "call_2"}


@pytest.mark.parametrize(
    "forgotten",
    [
        make_call(Kind.EVENT, event="call_analyzed"),
        make_call(Kind.EVENT, event="chat_analyzed"),
    ],
)
async def test_a_call_is_forgotten_after_its_last_event(forgotten: Call) -> None:
    arm, send = signing(), ScriptedSend(OK)
    await arm.handle(started(), send)
    await arm.handle(forgotten, send)

    assert await composed_call(arm) == {"call_id": "call_1"}


async def test_a_body_about_another_call_teaches_nothing() -> None:
    arm, send = signing(), ScriptedSend(OK)
    stranger = started("call_9")
    stranger.id = "call_1"
    await arm.handle(stranger, send)
    await arm.handle(make_call(Kind.EVENT, id=None), send)

    assert await composed_call(arm) == {"call_id": "call_1"}


async def test_the_calls_longest_unseen_are_forgotten_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(webhook, "CALLS_KEPT", 2)
    arm, send = signing(), ScriptedSend(OK)
    for call_id in ("call_1", "call_2", "call_1", "call_3"):
        await arm.handle(started(call_id), send)

    seen = [await composed_call(arm, call_id) for call_id in ("call_1", "call_2", "call_3")]
    assert ["agent_id" in call for call in seen] == [True, False, True]


async def test_nothing_is_kept_where_nothing_is_signed() -> None:
    arm, send = backend(), ScriptedSend(OK)
    await arm.handle(started(), send)

    assert await composed_call(arm) == {"call_id": "call_1"}


async def test_the_rules_judge_what_the_arm_said_not_what_an_mcp_caller_hears() -> None:
    by_rule = BodyVerdicts([({"ok": {"in": [False]}}, BUSINESS_NO)])
    arm, said = backend(by_rule=by_rule), json_reply({"ok": False})

    reply = await arm.handle(mcp_call(), ScriptedSend(said))

    assert reply.verdict is BUSINESS_NO
    assert json.loads(body_of(reply))["result"]["isError"] is True


async def test_an_upstreams_failure_passes_through() -> None:
    failure = UpstreamFailed("connect", "nobody there", sent=False)

    with pytest.raises(UpstreamFailed) as caught:
        await backend().handle(mcp_call(), ScriptedSend(failure))

    assert caught.value is failure


async def test_a_url_without_a_path_keeps_the_callers() -> None:
    arm, send = WebhookBackend(BackendConfig("webhook")), ScriptedSend(OK)
    call = make_call(Kind.EVENT)
    call.head = make_head(path="/retell", query="a=%20b")

    await arm.handle(call, send)

    assert send.sent[0].target == "/retell?a=%20b"
