"""What every backend promises, ours and a user's alike."""

from __future__ import annotations

import asyncio
import json
from importlib.metadata import EntryPoint, EntryPoints
from typing import Any

import pytest
from mcp_types import methods
from mcp_types.jsonrpc import JSONRPCError, JSONRPCResponse

from backends import registry
from backends.base import Backend, BackendConfig, read_whole
from backends.demo import Salon
from proxy.core.model import Call, Kind, Outbound, Reply
from proxy.core.verdict import judge_reply
from proxy.errors import ProbeFailed, UpstreamFailed
from tests.backends.kit import (
    SECRET,
    Answer,
    Stream,
    body_of,
    json_reply,
    make_call,
    mcp_call,
    rpc_error,
    rpc_result,
    text_result,
)

SAMPLE = "tests.backends.sample_plugin:Plugin"
VERSIONS = ["2026-07-28", "2025-11-25", "2025-06-18"]


@pytest.fixture(autouse=True)
def _installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's package brings a backend by entry point."""
    entry = EntryPoint("installed", SAMPLE, registry.GROUP)
    monkeypatch.setattr(registry, "entry_points", lambda group: EntryPoints([entry]))


HANDLERS = [*registry.BUILT_IN, SAMPLE, "installed"]


def make(handler: str, **more: Any) -> Backend:
    options = {"salon": Salon()}
    config = BackendConfig("arm", path="/arm", options=options, wall_ms=lambda: 1, **more)
    return registry.create(handler, config)


def cases() -> list[Any]:
    """Every backend with every kind that it declares."""
    with pytest.MonkeyPatch.context() as patch:
        entry = EntryPoint("installed", SAMPLE, registry.GROUP)
        patch.setattr(registry, "entry_points", lambda group: EntryPoints([entry]))
        return [
            pytest.param(handler, kind, id=f"{handler.rpartition('.')[2]}-{kind}")
            for handler in HANDLERS
            for kind in sorted(make(handler).kinds)
        ]


CASES = cases()


class AnyServer:
    """An upstream that understands every language, runs tools and remembers on which legs.

    Whatever it runs it answers with what it was asked, so that a mix-up shows.
    """

    def __init__(self) -> None:
        self.ran: list[bool] = []  # per run: was the leg marked as one that can run the tool?
        self.sent: list[Outbound] = []
        self.dispatching = 0

    async def __call__(self, outbound: Outbound, *, dispatches: bool = True) -> Reply:
        self.sent.append(outbound)
        self.dispatching += dispatches
        await asyncio.sleep(0)
        asked = json.loads(outbound.body) if outbound.body else {}
        if asked.get("jsonrpc"):
            return self._mcp(asked, dispatches)
        if asked.get("event"):
            return json_reply({"call_inbound": {}})
        self.ran.append(dispatches)
        return json_reply({"success": True, "echo": f"{outbound.target} {asked}"})

    def _mcp(self, asked: dict[str, Any], dispatches: bool) -> Reply:
        result: dict[str, Any] = {"tools": [], "ttlMs": 0, "cacheScope": "private"}
        if asked["method"] == "server/discover":
            result["supportedVersions"] = ["2026-07-28"]
        if asked["method"] == "tools/call":
            self.ran.append(dispatches)
            said = {"success": True, "echo": str(asked["params"])}
            result = text_result(json.dumps(said))
        result["resultType"] = "complete"
        return json_reply({"jsonrpc": "2.0", "id": asked["id"], "result": result})


def check_language(call: Call, reply: Reply, version: str = VERSIONS[0]) -> Any:
    """The answer is one that its caller understands."""
    body = body_of(reply)
    assert 200 <= reply.status < 300
    if call.kind is Kind.MCP:
        return check_rpc(call, body, version)
    said = json.loads(body) if body else {}
    if call.kind is Kind.INBOUND:
        assert "call_inbound" in said
    if call.kind is Kind.TOOLS:
        assert isinstance(said["success"], bool)
    return said


def check_rpc(call: Call, body: bytes, version: str) -> Any:
    message = json.loads(body)
    assert call.rpc_id is not None
    assert message["id"] == json.loads(call.rpc_id)
    if "error" in message:
        return JSONRPCError.model_validate(message).error
    JSONRPCResponse.model_validate(message)
    methods.validate_server_result("tools/call", version, message["result"])
    return message["result"]


@pytest.mark.parametrize(("handler", "kind"), CASES)
async def test_every_kind_it_declares_is_answered_in_that_kinds_language(
    handler: str, kind: Kind
) -> None:
    for version in VERSIONS if kind is Kind.MCP else VERSIONS[:1]:
        call = mcp_call(version=version) if kind is Kind.MCP else make_call(kind)

        reply = await make(handler).handle(call, AnyServer())

        check_language(call, reply, version)


@pytest.mark.parametrize(("handler", "kind"), CASES)
async def test_a_tool_runs_once_and_only_on_a_leg_that_is_marked(handler: str, kind: Kind) -> None:
    server = AnyServer()

    await make(handler).handle(make_call(kind), server)

    assert all(server.ran)
    assert len(server.ran) <= server.dispatching <= 1


@pytest.mark.parametrize(("handler", "kind"), CASES)
async def test_what_the_backend_reads_itself_is_bounded_by_the_attempts_deadline(
    handler: str, kind: Kind
) -> None:
    server = AnyServer()

    await make(handler).handle(make_call(kind), server)

    reads = handler in ("webhook", "tools") and kind is Kind.MCP
    reads |= handler == "mcp" and kind is not Kind.MCP
    assert all(outbound.whole is reads for outbound in server.sent[-1:])


@pytest.mark.parametrize("secret", ["ours", None])
@pytest.mark.parametrize(("handler", "kind"), CASES)
async def test_the_callers_credential_never_reaches_an_arm_with_its_own(
    handler: str, kind: Kind, secret: str | None
) -> None:
    """Without a bearer, only Retell's own requests keep theirs, and only to the webhook."""
    server = AnyServer()

    bearer = secret.encode() if secret else None
    await make(handler, bearer=bearer).handle(make_call(kind), server)

    shown = [dict(outbound.headers) for outbound in server.sent]
    leaked = any(SECRET in headers.values() for headers in shown)
    translated = kind in (Kind.TOOLS, Kind.MCP)
    assert leaked is (handler == "webhook" and secret is None and not translated)


BROKEN = UpstreamFailed("reset", "cut half way", sent=True)
JSON_TYPE = (b"content-type", b"application/json")
SSE_TYPE = (b"content-type", b"text/event-stream")


def hostile() -> list[Answer]:
    """What an upstream may do; made anew for each use, since streams are read once."""
    raw = [b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 3000, b'{"a":1e999}', b"<html>" * 50]
    rpc = [
        b'{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"no"}}',
        b'{"jsonrpc":"2.0","id":"server-error","error":{"code":1,"message":"\\u0000"}}',
        b'{"jsonrpc":"2.0","id":99,"result":{}}',
        b'{"id":1,"result":{"content":[{"type":"text","text":"\\ud800"}]}}',
        b'{"id":1,"result":7}',
    ]
    no = [b'{"success":false}', b'{"success":false,"status_code":500}', b'{"success":"false"}']
    statuses = [200, 201, 202, 204, 301, 400, 401, 404, 409, 413, 421, 429, 500, 502, 503]
    return [
        *[json_reply(body) for body in (*raw, *rpc, *no)],
        *[json_reply(b'{"detail":"x"}', status) for status in statuses],
        *[rpc_error(code, status=400) for code in (-32601, -32602, -32020, -32022)],
        rpc_result({"content": []}),
        rpc_result({"content": None}),
        Reply(200, [JSON_TYPE], Stream(b'{"a"', b":1}")),
        Reply(200, [JSON_TYPE], Stream(b'{"a"', failure=BROKEN)),
        Reply(200, [SSE_TYPE], Stream(b"data: x\n\n")),
        Reply(200, [SSE_TYPE], Stream(b"data: {}\n\n", failure=BROKEN)),
        Reply(200, [SSE_TYPE], Stream(*[b"data: " + b"x" * 2**20] * 6)),
        Reply(200, [JSON_TYPE], Stream(*[b"x" * 2**20] * 6)),
        Reply(200, [JSON_TYPE, (b"content-encoding", b"gzip")], b"\x1f\x8b\x08\x00"),
        Reply(200),
        UpstreamFailed("connect", "nobody", sent=False),
        BROKEN,
    ]


class Hostile:
    """Always the same bad answer."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer

    async def __call__(self, outbound: Outbound, *, dispatches: bool = True) -> Reply:
        if isinstance(self._answer, UpstreamFailed):
            raise self._answer
        return self._answer(outbound) if callable(self._answer) else self._answer


@pytest.mark.parametrize(("handler", "kind"), CASES)
async def test_only_an_upstreams_failure_escapes_and_mcp_callers_hear_only_mcp(
    handler: str, kind: Kind
) -> None:
    for answer in hostile():
        call, arm = make_call(kind), make(handler)
        try:
            reply = await arm.handle(call, Hostile(answer))
        except UpstreamFailed:
            continue
        body = reply.body if isinstance(reply.body, bytes) else None
        verdict = reply.verdict or judge_reply(reply.status, reply.headers, body)
        if kind is not Kind.MCP or not verdict.delivers:
            continue
        if handler != "mcp":
            assert body is not None
            check_rpc(call, body, VERSIONS[0])
        elif reply.verdict is not None:  # relayed as it is, and read: at least it is the answer
            message = json.loads(body_of(reply))
            shape = JSONRPCError if "error" in message else JSONRPCResponse
            assert shape.model_validate(message).id == "own-1"


@pytest.mark.parametrize(("handler", "kind"), CASES)
async def test_callers_with_equal_ids_each_get_their_own_answer(handler: str, kind: Kind) -> None:
    if kind is Kind.INBOUND:
        return  # what it says does not depend on who asks
    arm, server = make(handler), AnyServer()

    async def ask(number: int) -> str:
        call = marked(kind, f"n{number}n")
        return json.dumps(check_language(call, await arm.handle(call, server)))

    said = await asyncio.gather(*[ask(number) for number in range(25)])

    for number, answer in enumerate(said):
        assert f"n{number}n" in answer or "echo" not in answer


def marked(kind: Kind, mark: str) -> Call:
    """A call that says `mark` wherever its tool and arguments stand."""
    arguments = {"mark": mark}
    raw = json.dumps(arguments).encode()
    if kind is Kind.MCP:
        call = mcp_call(params={"name": mark, "arguments": arguments}, tool=mark, rpc_id=b"1")
        call.arguments = raw
        return call
    bodies: dict[Kind, Any] = {
        Kind.FUNCTION: {"name": mark, "args": arguments},
        Kind.TOOLS: {"tool": mark, "arguments": arguments},
    }
    body = json.dumps(bodies.get(kind, arguments)).encode()
    tool = mark if kind in (Kind.FUNCTION, Kind.ARGS, Kind.TOOLS) else None
    return make_call(kind, body, tool=tool, arguments=raw)


@pytest.mark.parametrize("handler", HANDLERS)
async def test_a_probe_fails_in_its_own_way_only(handler: str) -> None:
    arm = make(handler)
    probe = getattr(arm, "probe", None)
    if probe is None:
        return
    for answer in hostile():
        try:
            await probe(Hostile(answer))
        except ProbeFailed:
            continue


async def test_an_answer_is_read_whole_whatever_form_it_has() -> None:
    stream = Stream(b"a", b"b")

    assert await read_whole(Reply(200, [], stream)) == b"ab"
    assert stream.closed
    assert await read_whole(Reply(200, [(b"Content-Encoding", b"identity")], b"ab")) == b"ab"


@pytest.mark.parametrize(
    "reply",
    [
        Reply(200, [], Stream(b"abc", b"abc")),
        Reply(200, [(b"Content-Encoding", b"br")], b"x"),
        Reply(200, [], Stream(b"a", failure=BROKEN)),
    ],
)
async def test_an_answer_that_cannot_be_read_is_its_upstreams_failure(reply: Reply) -> None:
    with pytest.raises(UpstreamFailed) as caught:
        await read_whole(reply, limit=5)

    assert caught.value.sent
    if isinstance(reply.body, Stream):
        assert reply.body.closed


async def test_a_stream_without_a_close_of_its_own_is_read_too() -> None:
    class Plain:
        def __init__(self) -> None:
            self._left = [b"b", b"a"]

        def __aiter__(self) -> Plain:
            return self

        async def __anext__(self) -> bytes:
            if not self._left:
                raise StopAsyncIteration
            return self._left.pop()

    assert await read_whole(Reply(200, [], Plain())) == b"ab"
