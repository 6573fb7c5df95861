from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

import pytest
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import ToolAnnotations, methods
from mcp_types.jsonrpc import JSONRPCError, JSONRPCResponse
from pydantic import Field

from backends import mcp_translation
from backends.base import BackendConfig, ToolConfig
from backends.mcp import McpBackend
from backends.mcp_peer import SESSION
from proxy.core.body_verdicts import BodyVerdicts
from proxy.core.dialects.headers import value_of
from proxy.core.model import (
    Call,
    Counts,
    Effect,
    Form,
    Headers,
    Kind,
    Outbound,
    Ran,
    Reply,
    Session,
)
from proxy.core.verdict import FAILED_BODY
from proxy.errors import ProbeFailed, UpstreamFailed
from proxy.relay import Sender
from tests.backends.kit import (
    ARGUMENTS,
    Answer,
    App,
    AsgiSend,
    HttpSend,
    Receive,
    Scope,
    ScriptedSend,
    Stream,
    body_of,
    http_send,
    json_reply,
    make_call,
    mcp_call,
    rpc_error,
    rpc_result,
    serving,
    text_result,
)
from tests.backends.told import Asides, bodiless, legacy
from tests.backends.told import modern as modern_call

CLIENT = {"name": "test", "version": "1"}
BOOKED = text_result('{"booked": true}', resultType="complete")
LISTED = rpc_result({"tools": [{"name": "book", "annotations": {"readOnlyHint": True}}]})
UNKNOWN_TOOL = rpc_result(text_result("Unknown tool: book", isError=True))
NEEDS_HEADER = {
    "name": "book",
    "inputSchema": {
        "type": "object",
        "properties": {"date": {"type": "string", "x-mcp-header": "Date"}},
    },
}


class Server:
    """An MCP server by its answers per method; what is not given answers well."""

    def __init__(self, **answers: Answer) -> None:
        self._answers: dict[str, Answer] = {
            "server/discover": rpc_result({"supportedVersions": ["2026-07-28"]}),
            "tools/list": LISTED,
            "initialize": rpc_result({"protocolVersion": "2025-11-25"}),
            "notifications/initialized": Reply(202),
            "tools/call": rpc_result(BOOKED),
        }
        self._answers |= {name.replace("_", "/"): answer for name, answer in answers.items()}

    def __call__(self, outbound: Outbound) -> Reply:
        answer = self._answers[json.loads(outbound.body)["method"]]
        if isinstance(answer, UpstreamFailed):
            raise answer
        return answer(outbound) if callable(answer) else answer


def backend(**more: Any) -> McpBackend:
    return McpBackend(BackendConfig("mcp", path="/mcp", **more))


async def knowing(**more: Any) -> McpBackend:
    """One that knows its server to be modern."""
    arm = backend(**more)
    await arm.probe(ScriptedSend(Server()))
    return arm


async def ask(call: Call, *, arm: McpBackend | None = None, **answers: Answer) -> Reply:
    return await (arm or backend()).handle(call, ScriptedSend(Server(**answers)))


@pytest.mark.parametrize("kind", [Kind.FUNCTION, Kind.ARGS])
async def test_a_function_becomes_a_tools_call_and_hears_its_text(kind: Kind) -> None:
    send = ScriptedSend(Server())

    reply = await backend(bearer=b"ours").handle(make_call(kind), send)

    assert send.methods == ["server/discover", "tools/call"]
    assert send.dispatched == [False, True]
    assert ARGUMENTS in send.sent[1].body
    assert send.message["params"]["name"] == "book"
    assert send.headers["mcp-name"] == "book"
    assert send.headers["x-tenant"] == "t1"
    assert send.headers["authorization"] == "Bearer ours"
    assert "x-retell-signature" not in send.headers
    assert (reply.status, body_of(reply)) == (200, b'{"booked": true}')
    assert reply.headers == [(b"content-type", b"application/json")]
    assert reply.verdict is not None
    assert (reply.verdict.label, reply.verdict.ran) == ("success", Ran.YES)


async def test_a_tools_caller_hears_the_guides_form() -> None:
    reply = await ask(make_call(Kind.TOOLS))

    assert json.loads(body_of(reply)) == {"success": True, "data": {"booked": True}}


async def test_a_business_no_is_heard_as_one() -> None:
    said = rpc_result(text_result("That time is taken.", isError=True))

    reply = await ask(make_call(Kind.FUNCTION), tools_call=said)

    assert json.loads(body_of(reply)) == {"success": False, "message": "That time is taken."}
    assert reply.verdict is not None
    assert (reply.verdict.label, reply.verdict.counts) == ("business_no", Counts.SUCCESS)


@pytest.mark.parametrize("kind", [Kind.FUNCTION, Kind.TOOLS, Kind.MCP])
async def test_the_rules_may_read_a_failure_in_what_a_tool_says(kind: Kind) -> None:
    """Frameworks wrap any exception of a tool as an error that a business "no" would look like."""
    crashed = {"isError": True, "text": {"prefix": "Error executing tool"}}
    arm = backend(by_rule=BodyVerdicts([(crashed, FAILED_BODY)]))
    said = rpc_result(text_result("Error executing tool book: refused", isError=True))

    reply = await ask(make_call(kind), arm=arm, tools_call=said)

    assert reply.verdict is FAILED_BODY


async def test_the_era_is_asked_for_once() -> None:
    arm, send = backend(), ScriptedSend(Server())

    await arm.handle(make_call(Kind.FUNCTION), send)
    await arm.handle(make_call(Kind.FUNCTION), send)

    assert send.methods == ["server/discover", "tools/call", "tools/call"]


async def test_a_call_without_a_tool_or_arguments_is_still_well_formed() -> None:
    send = ScriptedSend(Server())

    await backend().handle(make_call(Kind.FUNCTION, tool=None, arguments=None), send)

    assert send.message["params"]["arguments"] == {}


async def test_a_tool_may_have_another_name_here() -> None:
    arm = backend(tools={"book": ToolConfig(name="bookAppointment")})
    send = ScriptedSend(Server())

    for kind in (Kind.FUNCTION, Kind.MCP):
        await arm.handle(make_call(kind), send)

        assert send.message["params"]["name"] == "bookAppointment"
        assert send.headers["mcp-name"] == "bookAppointment"


async def test_names_from_callers_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp_translation, "REQUESTS_KEPT", 1)
    arm, send = backend(), ScriptedSend(Server())

    for tool in ("one", "two", "two", "one"):
        await arm.handle(make_call(Kind.FUNCTION, tool=tool), send)
        assert send.message["params"]["name"] == tool

    assert len(arm._translation._requests) == 1


@pytest.mark.parametrize(
    ("answer", "label", "ran"),
    [
        (rpc_error(-32603), "failed", Ran.UNKNOWN),
        (rpc_error(-32601, status=404), "refused", Ran.NO),
        (rpc_error(-32022, status=400), "refused", Ran.NO),
        (json_reply(b"nobody knows you", 401), "refused", Ran.NO),
        (json_reply(b"", 302), "redirect", Ran.NO),
    ],
)
@pytest.mark.parametrize("kind", [Kind.FUNCTION, Kind.TOOLS, Kind.MCP])
async def test_an_answer_that_nobody_should_hear_is_judged_so(
    kind: Kind, answer: Reply, label: str, ran: Ran
) -> None:
    reply = await ask(make_call(kind), tools_call=answer)

    assert reply.verdict is not None
    assert (reply.verdict.label, reply.verdict.ran) == (label, ran)
    assert not reply.verdict.delivers
    if kind is not Kind.MCP:
        assert json.loads(body_of(reply))["success"] is False


@pytest.mark.parametrize("status", [429, 500, 502, 503])
@pytest.mark.parametrize("kind", [Kind.FUNCTION, Kind.MCP])
async def test_a_failing_status_is_left_to_whoever_knows_its_promise(
    kind: Kind, status: int
) -> None:
    """The rules may say of an arm that a 429 means: not executed."""
    later = [(b"Retry-After", b"3")]

    reply = await ask(make_call(kind), tools_call=json_reply(b"busy", status, headers=later))

    assert (reply.status, reply.verdict) == (status, None)
    assert (b"Retry-After", b"3") in reply.headers


@pytest.mark.parametrize(
    "answer", [json_reply(b"<html>"), rpc_result({"content": [], "resultType": "input_required"})]
)
async def test_a_good_status_with_no_answer_in_it_may_have_run(answer: Answer) -> None:
    with pytest.raises(UpstreamFailed) as caught:
        await ask(make_call(Kind.FUNCTION), tools_call=answer)

    assert caught.value.sent


@pytest.mark.parametrize(
    "answer",
    [
        UNKNOWN_TOOL,
        rpc_result(text_result("MCP error -32602: Tool book not found", isError=True)),
        rpc_error(-32602),
        rpc_error(-32602, status=400),
    ],
)
@pytest.mark.parametrize("kind", [Kind.FUNCTION, Kind.MCP])
async def test_a_tool_that_the_catalogue_lacks_has_not_run(kind: Kind, answer: Answer) -> None:
    others = rpc_result({"tools": [{"name": "other"}]})

    reply = await ask(make_call(kind), tools_call=answer, tools_list=others)

    assert reply.verdict is not None
    assert (reply.verdict.label, reply.verdict.ran) == ("refused", Ran.NO)


@pytest.mark.parametrize(
    ("answer", "label"), [(UNKNOWN_TOOL, "business_no"), (rpc_error(-32602), "failed")]
)
@pytest.mark.parametrize(
    "listing",
    [
        LISTED,
        rpc_result({"tools": [], "nextCursor": "in a circle"}),
        rpc_error(-32603),
        UpstreamFailed("timeout", "slow", sent=True),
    ],
)
async def test_a_tool_that_the_catalogue_has_or_may_have_is_not_unknown(
    answer: Answer, label: str, listing: Answer
) -> None:
    reply = await ask(make_call(Kind.FUNCTION), tools_call=answer, tools_list=listing)

    assert reply.verdict is not None
    assert reply.verdict.label == label


async def test_a_catalogue_from_before_proves_nothing_about_a_tool() -> None:
    """The server has learned the tool since: what refused it may have begun to run it."""
    arm = backend(probe="tools/list")
    await arm.probe(ScriptedSend(Server(tools_list=rpc_result({"tools": [{"name": "other"}]}))))
    send = ScriptedSend(Server(tools_call=rpc_error(-32602)))

    reply = await arm.handle(make_call(Kind.FUNCTION), send)

    assert send.methods == ["tools/call", "tools/list"]
    assert reply.verdict is not None
    assert (reply.verdict.label, reply.verdict.ran) == ("failed", Ran.UNKNOWN)


async def test_a_tool_that_the_server_has_dropped_since_has_not_run() -> None:
    arm = backend(probe="tools/list")
    await arm.probe(ScriptedSend(Server()))
    empty = rpc_result({"tools": []})

    reply = await ask(make_call(Kind.FUNCTION), arm=arm, tools_call=UNKNOWN_TOOL, tools_list=empty)

    assert reply.verdict is not None
    assert (reply.verdict.label, reply.verdict.ran) == ("refused", Ran.NO)


async def test_only_its_own_catalogue_makes_a_tool_read_only() -> None:
    arm = backend(probe="tools/list", tools={"buchen": ToolConfig(name="book")})
    assert not arm.is_read_only("book")

    await arm.probe(ScriptedSend(Server()))

    assert arm.is_read_only("book")
    assert arm.is_read_only("buchen")
    assert not arm.is_read_only("other")


def needs_header(outbound: Outbound) -> Reply:
    headers = dict(outbound.headers)
    if headers.get(b"mcp-param-Date") != b"2026-01-02":
        return rpc_error(-32020, "header is missing", status=400)
    return rpc_result(BOOKED)(outbound)


async def test_headers_that_a_tool_asks_for_are_learned_from_its_catalogue() -> None:
    arm, listing = backend(), rpc_result({"tools": [NEEDS_HEADER]})
    send = ScriptedSend(Server(tools_call=needs_header, tools_list=listing))

    first = await arm.handle(make_call(Kind.FUNCTION), send)
    second = await arm.handle(make_call(Kind.FUNCTION), send)

    assert body_of(first) == body_of(second) == b'{"booked": true}'
    assert send.methods[1:] == ["tools/call", "tools/list", "tools/call", "tools/call"]


async def test_headers_that_no_catalogue_explains_are_a_refusal() -> None:
    send = ScriptedSend(Server(tools_call=needs_header))

    reply = await backend().handle(make_call(Kind.FUNCTION), send)

    assert reply.verdict is not None
    assert reply.verdict.config_fault
    assert send.methods.count("tools/call") == 1


def of_era(version: bytes) -> Server:
    """A server of one era only."""
    refusal = rpc_error(-32600 if version < b"2026" else -32022, status=400)

    class OfEra(Server):
        def __call__(self, outbound: Outbound) -> Reply:
            asked = dict(outbound.headers).get(b"mcp-protocol-version", b"2025-11-25")
            return super().__call__(outbound) if asked == version else refusal

    return OfEra()


@pytest.mark.parametrize(
    ("before", "after"),
    [(b"2026-07-28", b"2025-11-25"), (b"2025-11-25", b"2026-07-28")],
)
async def test_a_call_survives_the_servers_change_of_era(before: bytes, after: bytes) -> None:
    arm = backend()
    await arm.handle(make_call(Kind.FUNCTION), ScriptedSend(of_era(before)))
    send = ScriptedSend(of_era(after))

    reply = await arm.handle(make_call(Kind.FUNCTION), send)

    assert body_of(reply) == b'{"booked": true}'
    runs = [method for method in send.methods if method in ("tools/call", "server/discover")]
    assert runs == ["tools/call", "server/discover", "tools/call"]


async def test_a_server_that_vanishes_while_its_era_is_asked_for_has_still_refused() -> None:
    """Nothing ran, and the answer that says so must not be lost to a failing question."""
    arm = backend()
    await arm.handle(make_call(Kind.FUNCTION), ScriptedSend(Server()))
    gone = UpstreamFailed("timeout", "slow", sent=True)
    send = Server(tools_call=json_reply(b"", 404), server_discover=gone)

    reply = await arm.handle(make_call(Kind.FUNCTION), ScriptedSend(send))

    assert reply.verdict is not None
    assert reply.verdict.ran is Ran.NO


@pytest.mark.parametrize(
    "refusing", [json_reply(b"", 404), rpc_error(-32020, "header is missing", status=400)]
)
async def test_without_a_budget_for_repeats_a_refusal_stands(refusing: Answer) -> None:
    """A server that refuses everybody must not be asked twice by everybody."""
    asked: list[bool] = []

    def may_repeat() -> bool:
        asked.append(True)
        return False

    arm = McpBackend(BackendConfig("mcp", path="/mcp", may_repeat=may_repeat))
    await arm.handle(make_call(Kind.FUNCTION), ScriptedSend(Server()))
    assert not asked
    send = ScriptedSend(Server(tools_call=refusing))

    reply = await arm.handle(make_call(Kind.FUNCTION), send)

    assert reply.verdict is not None
    assert (reply.verdict.label, reply.verdict.ran) == ("refused", Ran.NO)
    assert send.methods == ["tools/call"]
    assert asked == [True]


@pytest.mark.parametrize("version", ["2026-07-28", "2025-11-25"])
async def test_mcp_is_relayed_byte_for_byte_without_the_callers_credential(version: str) -> None:
    call = mcp_call(version=version)
    send = ScriptedSend(rpc_result(BOOKED, extra=[(b"Mcp-Extra", b"kept")]))

    reply = await (await knowing(bearer=b"ours")).handle(call, send)

    assert send.sent[0].body == call.body
    assert send.headers["mcp-protocol-version"] == version
    assert send.headers["authorization"] == "Bearer ours"
    assert "x-retell-signature" not in send.headers
    assert (b"Mcp-Extra", b"kept") in reply.headers
    assert reply.verdict is not None
    assert reply.verdict.label == "success"
    assert len(send.sent) == 1


async def test_a_relay_without_a_bearer_still_drops_the_callers() -> None:
    send = ScriptedSend(rpc_result(BOOKED))

    await backend().handle(mcp_call(), send)

    assert "authorization" not in send.headers


async def test_a_result_that_asks_for_more_is_the_callers_to_give() -> None:
    asks = rpc_result({"resultType": "input_required", "inputRequests": {}})

    reply = await ask(mcp_call(), tools_call=asks)

    assert reply.verdict is not None
    assert reply.verdict.delivers


@pytest.mark.parametrize(
    ("hints", "ttl", "private"),
    [
        ({}, None, False),
        ({"ttlMs": None, "cacheScope": None}, None, False),
        ({"ttlMs": 1500, "cacheScope": "public"}, 1.5, False),
        ({"ttlMs": 0, "cacheScope": "private"}, 0.0, True),
        ({"ttlMs": -1}, 0.0, False),
        ({"ttlMs": "60000", "cacheScope": 5}, 0.0, True),
    ],
)
@pytest.mark.parametrize("kind", [Kind.FUNCTION, Kind.TOOLS, Kind.MCP])
async def test_a_servers_word_on_keeping_its_answer_is_passed_on(
    kind: Kind, hints: dict[str, Any], ttl: float | None, private: bool
) -> None:
    said = rpc_result(text_result("Ten.", **hints))

    reply = await ask(make_call(kind), tools_call=said)

    assert (reply.ttl, reply.private) == (ttl, private)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, [(b"content-type", b"text/event-stream")], Stream(b"data: {}\n\n")),
        Reply(200, [(b"content-type", b"application/json")], Stream(b"{}")),
        json_reply(b"\x1f\x8b", headers=[(b"content-encoding", b"gzip")]),
    ],
)
async def test_what_streams_or_cannot_be_read_is_relayed_unjudged(reply: Reply) -> None:
    relayed = await (await knowing()).handle(mcp_call(), ScriptedSend(reply))

    assert relayed is reply
    assert relayed.verdict is None


async def test_a_notification_is_relayed_unjudged() -> None:
    call = mcp_call("notifications/initialized", {}, tool=None, rpc_id=None)

    reply = await (await knowing()).handle(call, ScriptedSend(Reply(202)))

    assert (reply.status, reply.verdict) == (202, None)


@pytest.mark.parametrize(
    ("answer", "label"),
    [
        (rpc_result({"prompts": []}), "success"),
        (rpc_error(-32601, status=404, rpc_id="own-1"), "business_no"),
        (rpc_error(-32020, status=400), "business_no"),
        (rpc_error(-32603), "failed"),
        (rpc_error(-32000, status=503), "failed"),
        (rpc_error(-32000, status=401), "refused"),
        (json_reply(b"gone", 404), "refused"),
    ],
)
async def test_an_error_about_no_tool_is_the_servers_to_tell(answer: Answer, label: str) -> None:
    arm, send = await knowing(), ScriptedSend(Server(prompts_list=answer))

    reply = await arm.handle(mcp_call("prompts/list", {}, tool=None), send)

    assert reply.verdict is not None
    assert reply.verdict.label == label


async def test_an_answer_with_a_strangers_id_would_leave_the_caller_waiting() -> None:
    answer = json_reply({"jsonrpc": "2.0", "id": "other", "result": BOOKED})

    with pytest.raises(UpstreamFailed):
        await (await knowing()).handle(mcp_call(), ScriptedSend(answer))


@pytest.mark.parametrize("probe", ["", "server/discover", "tools/list"])
async def test_a_probe_runs_nothing(probe: str) -> None:
    send = ScriptedSend(Server())

    await backend(probe=probe, query="k=v").probe(send)

    assert "tools/call" not in send.methods
    assert not any(send.dispatched)
    assert {outbound.target for outbound in send.sent} == {"/mcp?k=v"}


@pytest.mark.parametrize(
    "answer", [UpstreamFailed("connect", "nobody", sent=False), json_reply(b"", 503)]
)
async def test_a_probe_tells_of_a_server_that_is_not_well(answer: Answer) -> None:
    with pytest.raises(ProbeFailed):
        await backend().probe(ScriptedSend(answer))


# Against the SDK's own servers, over real connections.


def salon() -> MCPServer[Any]:
    server: MCPServer[Any] = MCPServer("salon")

    @server.tool(annotations=ToolAnnotations(read_only_hint=True))
    def get_available_slots(date: str) -> dict[str, Any]:
        return {"slots": ["10:00", "14:30"], "date": date}

    @server.tool()
    def greet(name: str) -> str:
        return f"Grüß Gott, {name}!"

    @server.tool()
    def book(date: str) -> str:
        raise ToolError(f"{date} is full")

    @server.tool()
    async def slow(date: str, context: Context) -> str:
        await context.report_progress(1, 2, "half way")  # makes the answer an event stream
        return f"done: {date}"

    @server.tool()
    async def sulk() -> str:
        await asyncio.sleep(30)
        return "never heard"

    @server.tool()
    def in_region(
        region: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})],
    ) -> str:
        return f"in {region}"

    return server


OLD_VERSIONS = {b"2024-11-05", b"2025-03-26", b"2025-06-18", b"2025-11-25"}


def knowing_only_old(app: App) -> App:
    """As a server of the SDK's first major version answers, word for word (mcp 1.30)."""
    body = (
        b'{"jsonrpc":"2.0","id":"server-error","error":{"code":-32600,'
        b'"message":"Bad Request: Unsupported protocol version: 2026-07-28."}}'
    )

    async def gate(scope: Scope, receive: Receive, send: AsgiSend) -> None:
        version = dict(scope.get("headers", [])).get(b"mcp-protocol-version", b"2025-03-26")
        if scope["type"] != "http" or version in OLD_VERSIONS:
            return await app(scope, receive, send)
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 400, "headers": headers})
        await send({"type": "http.response.body", "body": body})
        return None

    return gate


@pytest.fixture(scope="module")
def modern() -> Iterator[str]:
    with serving(salon().streamable_http_app()) as origin:
        yield origin


@pytest.fixture(scope="module")
def events() -> Iterator[str]:
    with serving(knowing_only_old(salon().streamable_http_app(stateless_http=True))) as origin:
        yield origin


@pytest.fixture(scope="module")
def json_only() -> Iterator[str]:
    app = salon().streamable_http_app(stateless_http=True, json_response=True)
    with serving(knowing_only_old(app)) as origin:
        yield origin


@pytest.fixture(scope="module")
def stateful() -> Iterator[str]:
    with serving(knowing_only_old(salon().streamable_http_app())) as origin:
        yield origin


@pytest.fixture(scope="module")
def stateful_json() -> Iterator[str]:
    with serving(knowing_only_old(salon().streamable_http_app(json_response=True))) as origin:
        yield origin


ORIGINS = ["modern", "events", "json_only", "stateful", "stateful_json"]


@pytest.fixture(params=ORIGINS)
def any_era(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


@pytest.fixture(params=["stateful", "stateful_json"])
def keeping_sessions(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


@pytest.fixture
async def with_sessions(keeping_sessions: str) -> AsyncIterator[HttpSend]:
    async with http_send(keeping_sessions) as send:
        yield send


@pytest.fixture
async def legacy_events(events: str) -> AsyncIterator[HttpSend]:
    async with http_send(events) as send:
        yield send


@pytest.fixture
async def real(any_era: str) -> AsyncIterator[HttpSend]:
    async with http_send(any_era) as send:
        yield send


@pytest.fixture
async def real_modern(modern: str) -> AsyncIterator[HttpSend]:
    async with http_send(modern) as send:
        yield send


def function(tool: str, **arguments: Any) -> Call:
    return make_call(Kind.FUNCTION, tool=tool, arguments=json.dumps(arguments).encode())


async def test_a_real_server_runs_a_function(real: HttpSend) -> None:
    arm = backend()

    reply = await arm.handle(function("get_available_slots", date="2026-01-02"), real)

    assert json.loads(body_of(reply)) == {"slots": ["10:00", "14:30"], "date": "2026-01-02"}
    assert (b"content-type", b"application/json") in reply.headers
    assert reply.verdict is not None
    assert reply.verdict.label == "success"


@pytest.mark.parametrize(
    ("tool", "arguments", "said"),
    [
        ("greet", {"name": "Zoë"}, "Grüß Gott, Zoë!"),
        ("slow", {"date": "2026-01-02"}, "done: 2026-01-02"),
    ],
)
async def test_a_real_servers_words_arrive_unwrapped(
    real: HttpSend, tool: str, arguments: dict[str, str], said: str
) -> None:
    reply = await backend().handle(function(tool, **arguments), real)

    assert body_of(reply).decode() == said


async def test_a_real_servers_no_is_a_business_no(real: HttpSend) -> None:
    reply = await backend().handle(function("book", date="2026-01-02"), real)

    said = json.loads(body_of(reply))
    assert said["success"] is False
    assert "2026-01-02 is full" in said["message"]
    assert reply.verdict is not None
    assert reply.verdict.label == "business_no"


async def test_a_real_server_that_lacks_a_tool_has_not_run_it(real: HttpSend) -> None:
    reply = await backend().handle(function("no_such_tool"), real)

    assert reply.verdict is not None
    assert (reply.verdict.label, reply.verdict.ran) == ("refused", Ran.NO)


async def test_bad_arguments_for_a_real_tool_are_not_an_unknown_tool(real: HttpSend) -> None:
    reply = await backend().handle(function("greet", wrong="x"), real)

    assert reply.verdict is not None
    assert reply.verdict.label == "business_no"


async def test_a_real_server_gets_the_headers_that_it_asks_for(real_modern: HttpSend) -> None:
    arm = backend()

    reply = await arm.handle(function("in_region", region="größer"), real_modern)

    assert body_of(reply).decode() == "in größer"


class Over:
    """A real way out in the shape of the port."""

    def __init__(self, send: HttpSend) -> None:
        self._send = send

    async def send(self, outbound: Outbound, extra: Headers, **more: Any) -> Reply:
        return await self._send(outbound)

    async def connect(self, *, deadline: float) -> None: ...

    async def aclose(self, grace: float) -> None: ...


async def test_a_real_stream_that_falls_silent_is_given_up_at_the_deadline(
    legacy_events: HttpSend,
) -> None:
    """Such a server sends its head at once, whatever its tool does afterwards."""
    arm = backend()
    await arm.probe(legacy_events)
    soon = asyncio.get_running_loop().time() + 0.2

    with pytest.raises(UpstreamFailed) as caught:
        await arm.handle(function("sulk"), Sender(Over(legacy_events), [], deadline=soon, linger=0))

    assert (caught.value.why, caught.value.sent) == ("timeout", True)


@pytest.mark.parametrize("probe", ["", "server/discover", "tools/list"])
async def test_a_real_server_is_probed(real: HttpSend, probe: str) -> None:
    arm = backend(probe=probe)

    await arm.probe(real)

    if probe == "tools/list":
        assert arm.is_read_only("get_available_slots")
        assert not arm.is_read_only("greet")


async def test_a_real_modern_server_is_relayed(real_modern: HttpSend) -> None:
    call = mcp_call(params={"name": "greet", "arguments": {"name": "Ana"}}, tool="greet")

    reply = await backend().handle(call, real_modern)

    message = JSONRPCResponse.model_validate_json(body_of(reply))
    assert message.id == "own-1"
    methods.validate_server_result("tools/call", "2026-07-28", message.result)
    assert message.result["structuredContent"] == {"result": "Grüß Gott, Ana!"}


async def test_what_a_real_server_cannot_do_is_relayed_too(real_modern: HttpSend) -> None:
    reply = await backend().handle(mcp_call("ping", {}, tool=None), real_modern)

    assert reply.status == 404
    assert JSONRPCError.model_validate_json(body_of(reply)).error.code == -32601
    assert reply.verdict is not None
    assert reply.verdict.delivers


async def lose(send: HttpSend) -> None:
    """End every session that the server has ever been asked in."""
    named = {value for each in send.sent for name, value in each.headers if name == SESSION}
    for session in named:
        fields = [(SESSION, session), (b"mcp-protocol-version", b"2025-11-25")]
        await send(Outbound("DELETE", "/mcp", fields))


async def test_a_real_servers_sessions_are_one_per_call_and_replaced_if_lost(
    with_sessions: HttpSend,
) -> None:
    arm = backend()
    calls = [function("greet", name=str(n)) for n in range(10)]
    for n, call in enumerate(calls):
        call.id = f"call {n % 2}"

    replies = await asyncio.gather(*(arm.handle(call, with_sessions) for call in calls))
    assert [body_of(reply).decode() for reply in replies] == [f"Grüß Gott, {n}!" for n in range(10)]
    await lose(with_sessions)
    reply = await arm.handle(function("greet", name="again"), with_sessions)

    assert body_of(reply).decode() == "Grüß Gott, again!"


def begun_at(session: Session, reply: Reply) -> Session:
    found = value_of(reply.headers, SESSION).decode()
    return Session(session.id, "mcp", session.version, 0, found)


async def heard(reply: Reply) -> dict[str, Any]:
    raw = reply.body
    if not isinstance(raw, bytes):
        raw = b"".join([chunk async for chunk in raw])
    found = json.loads(raw.rpartition(b"data: ")[2] if b"data: " in raw else raw)
    assert isinstance(found, dict)
    return found


async def test_a_real_session_is_relayed_repaired_and_ended(with_sessions: HttpSend) -> None:
    arm, draft = backend(), Session("c", "", "2025-11-25", 0)
    about = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": CLIENT}
    began = await arm.handle(legacy("initialize", about, session=draft), with_sessions)
    session = begun_at(draft, began)
    assert (await heard(began))["result"]["serverInfo"]["name"] == "salon"
    ready = legacy("notifications/initialized", {}, session=session, rpc_id=None)
    assert (await arm.handle(ready, with_sessions)).status == 202
    greeting = {"name": "greet", "arguments": {"name": "Ana"}}

    for lost in (False, True):
        if lost:
            await lose(with_sessions)
        call = legacy("tools/call", greeting, session=session, tool="greet")
        answer = await heard(await arm.handle(call, with_sessions))
        assert answer["id"] == "own-1"
        assert answer["result"]["structuredContent"] == {"result": "Grüß Gott, Ana!"}

    assert (await arm.handle(bodiless(Form.END, session), with_sessions)).status in (200, 204)


async def test_a_modern_caller_crosses_to_a_real_server_of_old(with_sessions: HttpSend) -> None:
    arm = backend()

    discovered = await heard(await arm.handle(modern_call("server/discover"), with_sessions))
    listed = await heard(await arm.handle(modern_call("tools/list"), with_sessions))
    greeting = {"name": "greet", "arguments": {"name": "Ana"}}
    call = modern_call("tools/call", greeting, tool="greet")
    greeted = await heard(await arm.handle(call, with_sessions))

    for method, answer in (
        ("server/discover", discovered),
        ("tools/list", listed),
        ("tools/call", greeted),
    ):
        methods.validate_server_result(method, "2026-07-28", answer["result"])
    assert greeted["result"]["structuredContent"] == {"result": "Grüß Gott, Ana!"}


async def test_progress_crosses_from_a_real_server_of_old(stateful: str) -> None:
    params = {"name": "slow", "arguments": {"date": "x"}}
    call = modern_call("tools/call", params, tool="slow")
    raw = json.loads(call.body)
    raw["params"]["_meta"]["progressToken"] = "mine"
    call.body = json.dumps(raw).encode()

    async with http_send(stateful) as send:
        reply = await backend().handle(call, send)
        assert not isinstance(reply.body, bytes)
        raw_events = b"".join([chunk async for chunk in reply.body])

    parts = [part.partition(b"data: ")[2] for part in raw_events.split(b"\n\n") if part]
    events = [json.loads(part) for part in parts]
    assert events[0]["params"] == {
        "progressToken": "mine",
        "progress": 1,
        "total": 2,
        "message": "half way",
    }
    assert events[-1]["result"]["resultType"] == "complete"


async def test_a_real_servers_catalogue_is_renewed(any_era: str) -> None:
    arm = backend()

    async with http_send(any_era) as send:
        await arm.refresh(send)

    assert arm.catalogue is not None
    assert arm.catalogue.whole
    assert set(arm.catalogue.tools) >= {"greet", "book", "slow"}
    assert arm.is_read_only("get_available_slots")


async def test_a_real_read_that_is_taken_back_stops(stateful: str) -> None:
    """On the legacy wire hanging up does not."""
    asides = Asides()
    tools = {"sulk": ToolConfig(Effect.READ)}
    arm = McpBackend(BackendConfig("mcp", path="/mcp", tools=tools, aside=asides))

    async with http_send(stateful) as send:
        await arm.probe(send)
        soon = asyncio.get_running_loop().time() + 0.3
        asides.waiting.clear()
        with pytest.raises(UpstreamFailed):
            await arm.handle(function("sulk"), Sender(Over(send), [], deadline=soon, linger=0))
        statuses: list[int] = []

        async def watched(outbound: Outbound, *, dispatches: bool = True) -> Reply:
            reply = await send(outbound, dispatches=dispatches)
            statuses.append(reply.status)
            return reply

        await asides.run(watched)

    assert 202 in statuses
