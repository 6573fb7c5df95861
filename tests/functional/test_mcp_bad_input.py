"""What an MCP caller hears of a request that is none, in each era; no arm hears of it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.functional.conftest import World
from tests.functional.kit import BOOK, PENDING, SLOTS, function, tools_call
from tests.functional.test_edge import AUTH, SECRETS, TOKEN, authorization, signed
from tests.functional.wire import (
    JSON,
    Answer,
    finishes,
    mcp,
    method_of,
    request,
    response,
    rpc,
    text,
)

MODERN = "2026-07-28"
LEGACY = ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"]
META: dict[str, Any] = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientCapabilities": {},
}
WANTS = [b"Content-Type: application/json", b"Accept: application/json, text/event-stream"]


def version(value: str) -> bytes:
    return b"MCP-Protocol-Version: " + value.encode()


def head(method: str, name: str | None = None, at: str = MODERN) -> list[bytes]:
    named = [] if name is None else [b"Mcp-Name: " + name.encode()]
    return [version(at), b"Mcp-Method: " + method.encode(), *named]


def message(method: str = "tools/call", rpc_id: object = 7, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": rpc_id, "method": method, "params": params}


def call(meta: object = META, tool: str = BOOK) -> dict[str, Any]:
    return message(name=tool, arguments={}, _meta=meta)


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in META.items() if not name.endswith(key)}


def nothing_ran(world: World) -> bool:
    """Neither arm has heard of any caller; a catalogue may have been asked for."""
    own = {"server/discover", "tools/list", "initialize", "notifications/initialized"}
    return not world.webhook.seen and {method_of(seen) for seen in world.mcp.seen} <= own


def told(answer: Answer) -> tuple[int, int, object]:
    """Status, JSON-RPC code and ID of an error; `...`: it has none, null is none in MCP."""
    error = answer.json
    assert error["jsonrpc"] == "2.0"
    assert answer.value(b"content-type") == b"application/json"
    assert error.keys() <= {"jsonrpc", "id", "error"}
    return answer.status, error["error"]["code"], error.get("id", ...)


Case = tuple[object, list[bytes], tuple[int, int, object]]
HUGE = json.dumps(message("ping", "x" * 2000)).encode()

EVERY_ERA: dict[str, tuple[object, tuple[int, int, object]]] = {
    "malformed JSON": (b'{"jsonrpc":"2.0","id":7,"method"', (400, -32700, ...)),
    "no JSON": (b"hello", (400, -32700, ...)),
    "nothing": (b"", (400, -32700, ...)),
    "not UTF-8": (b'{"jsonrpc":"2.0","id":7,"method":"ping","x":"\xff"}', (400, -32700, ...)),
    "nested to death": (b"[" * 100_000, (400, -32700, ...)),
    "an ID of null": (message(rpc_id=None, name=BOOK), (400, -32600, ...)),
    "an ID that is true": (message("ping", True), (400, -32600, ...)),
    "an ID that is a list": (message("ping", [7]), (400, -32600, ...)),
    "an endless ID": (HUGE, (400, -32600, ...)),
    "a tool's call that wants no answer": (
        {"jsonrpc": "2.0", "method": "tools/call", "params": {"name": BOOK}}, (400, -32600, ...),
    ),
    "JSON-RPC 1.0": (message("ping") | {"jsonrpc": "1.0"}, (400, -32600, 7)),
    "no method": ({"jsonrpc": "2.0", "id": "a"}, (400, -32600, "a")),
    "a number for a method": (message("ping") | {"method": 5}, (400, -32600, 7)),
    "a result of nothing": ({"jsonrpc": "2.0", "result": {}}, (400, -32600, ...)),
    "a function": (function(BOOK), (400, -32600, ...)),
    "an object": ({}, (400, -32600, ...)),
    "a number": (5, (400, -32600, ...)),
}  # fmt: skip
LEGACY_ONLY: dict[str, Case] = {
    "a batch where there are none": ([call()], [version("2025-06-18")], (400, -32600, ...)),
    "an empty batch": ([], [], (400, -32600, ...)),
    "an endless batch": ([call()] * 51, [], (400, -32600, ...)),
    "a session begun in a batch": ([message("initialize")], [], (400, -32600, ...)),
    "a batch with a stranger": ([call(), 5], [], (400, -32600, ...)),
    "half a batch": (json.dumps([call()])[:-1].encode(), [], (400, -32700, ...)),
    "two versions": (call(), [version("2025-11-25")] * 2, (400, -32600, 7)),
    "a tool that is a way up": (message(name=".."), [], (200, -32602, 7)),
}
MODERN_ONLY: dict[str, Case] = {
    "an unknown version": (call(), head("tools/call", BOOK, "2027-01-01"), (400, -32022, 7)),
    "an unknown old version": (call(), [version("1999-01-01")], (400, -32022, 7)),
    "no version in its header": (call(), head("tools/call", BOOK, ""), (400, -32022, 7)),
    "another version in the body": (
        call({**META, "io.modelcontextprotocol/protocolVersion": "2025-11-25"}),
        head("tools/call", BOOK),
        (400, -32020, 7),
    ),
    "two versions": (call(), [*head("tools/call", BOOK), version(MODERN)], (400, -32020, 7)),
    "two methods": (
        call(), [*head("tools/call", BOOK), b"mcp-method: tools/call"], (400, -32020, 7),
    ),
    "two names": (call(), [*head("tools/call", BOOK), b"MCP-NAME: x"], (400, -32020, 7)),
    "another method": (call(), head("tools/list", BOOK), (400, -32020, 7)),
    "another case": (call(), head("TOOLS/CALL", BOOK), (400, -32020, 7)),
    "no method": (call(), [version(MODERN), b"Mcp-Name: x"], (400, -32020, 7)),
    "another name": (call(), head("tools/call", SLOTS), (400, -32020, 7)),
    "no name": (call(), head("tools/call"), (400, -32020, 7)),
    "a name in broken base64": (call(), head("tools/call", "=?base64?Ym9v?b=?="), (400, -32020, 7)),
    "another name in base64": (call(), head("tools/call", "=?base64?Ym9vaw==?="), (400, -32020, 7)),
    "another prompt": (
        message("prompts/get", name="p", _meta=META), head("prompts/get", "q"), (400, -32020, 7),
    ),
    "another resource": (
        message("resources/read", uri="a:b", _meta=META), head("resources/read", "a:c"),
        (400, -32020, 7),
    ),
    "no _meta": (message(name=BOOK), head("tools/call", BOOK), (400, -32602, 7)),
    "no params": (
        {"jsonrpc": "2.0", "id": 7, "method": "server/discover"}, head("server/discover"),
        (400, -32602, 7),
    ),
    "no version in _meta": (
        call(without("protocolVersion")), head("tools/call", BOOK), (400, -32602, 7),
    ),
    "no capabilities": (
        call(without("clientCapabilities")), head("tools/call", BOOK), (400, -32602, 7),
    ),
    "a nameless tool": (message(_meta=META), head("tools/call"), (400, -32602, 7)),
    "a tool that is a way up": (
        message(name="..", _meta=META), head("tools/call", ".."), (400, -32602, 7),
    ),
    "a batch": ([call()], [version(MODERN)], (400, -32600, ...)),
    "an answer": ({"jsonrpc": "2.0", "id": 7, "result": {}}, [version(MODERN)], (400, -32600, ...)),
    "a notification of an unknown version": (
        {"jsonrpc": "2.0", "method": "notifications/x"}, [version("2027-01-01")],
        (400, -32022, ...),
    ),
}  # fmt: skip
CASES: dict[str, Case] = {
    **{
        f"{era or 'no version'}: {name}": (body, [version(era)] if era else [], expected)
        for era in (None, *LEGACY, MODERN)
        for name, (body, expected) in EVERY_ERA.items()
    },
    **{f"legacy: {name}": case for name, case in LEGACY_ONLY.items()},
    **{f"modern: {name}": case for name, case in MODERN_ONLY.items()},
}


async def test_bad_input_is_answered_here_in_json_rpc(world: World) -> None:
    """One sidecar for the whole table: what is refused leaves nothing behind."""
    sidecar = await world.sidecar()
    wrong: dict[str, object] = {}

    for name, (body, fields, expected) in CASES.items():
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        for target in ("/mcp", "/mcp/call_a"):
            answer = await sidecar.post(target, raw, *WANTS, *fields)
            if told(answer) != expected:
                wrong[f"{name} at {target}"] = told(answer)

    assert not wrong
    assert nothing_ran(world)
    lines = await sidecar.lines(2 * len(CASES), outcome="refused")
    assert {line["arm"] for line in lines} == {"none"}
    assert (await sidecar.post("/mcp/call_a", tools_call(BOOK))).arm == "mcp"


@pytest.mark.parametrize("target", ["/retell", "/api/mcp/retell/tools"])
async def test_json_rpc_is_judged_wherever_it_is_recognised(world: World, target: str) -> None:
    sidecar = await world.sidecar()
    wrong: dict[str, object] = {}
    cases = {name: case for name, case in MODERN_ONLY.items() if not isinstance(case[0], list)}
    cases.pop("an answer")

    for name, (body, fields, expected) in cases.items():
        answer = await sidecar.post(target, json.dumps(body).encode(), *fields)
        if told(answer) != expected:
            wrong[name] = told(answer)

    assert not wrong
    assert nothing_ran(world)


async def test_an_unknown_version_hears_which_are_known(world: World) -> None:
    sidecar = await world.sidecar()

    body = json.dumps(call()).encode()
    answer = await sidecar.post("/mcp", body, *head("tools/call", BOOK, "v999.0.0"))

    data = answer.json["error"]["data"]
    assert data == {"supported": [MODERN], "requested": "v999.0.0"}
    assert answer.value(b"x-request-id")


async def test_every_other_refusal_says_our_word_for_it(world: World) -> None:
    sidecar = await world.sidecar()

    answer = await sidecar.post("/mcp", json.dumps(call()).encode(), version(MODERN))

    error = answer.json["error"]
    assert error["data"]["code"] == answer.code == "rpc_header_mismatch"
    assert error["data"]["request_id"].encode() == answer.value(b"x-request-id")
    (line,) = await sidecar.lines(1, code="rpc_header_mismatch")
    assert (line["status"], line["arm"]) == (400, "none")


# -- Methods.


@pytest.mark.parametrize("method", ["GET", "DELETE"])
@pytest.mark.parametrize("value", [MODERN, "2027-01-01"])
async def test_the_modern_era_has_no_streams_and_no_sessions(
    world: World, method: str, value: str
) -> None:
    sidecar = await world.sidecar()

    answer = await sidecar.ask(request(method, "/mcp/call_a", None, version(value)))

    assert told(answer) == (405, -32600, ...)
    assert answer.value(b"allow") == b"POST"
    assert nothing_ran(world)


@pytest.mark.parametrize("method", ["PUT", "PATCH", "OPTIONS"])
async def test_other_methods_are_told_which_there_are(world: World, method: str) -> None:
    sidecar = await world.sidecar()

    answer = await sidecar.ask(request(method, "/mcp", b"{}"))

    assert told(answer) == (405, -32600, ...)
    assert answer.value(b"allow") == b"POST, GET, DELETE"
    assert nothing_ran(world)


# -- Size.


@pytest.mark.parametrize("chunked", [False, True])
async def test_an_oversized_body_is_413(world: World, chunked: bool) -> None:
    sidecar = await world.sidecar(listen={"body_limit": "2kB"})
    raw = request("POST", "/mcp", tools_call(BOOK, {"x": "y" * 3000}), chunked=chunked)

    answer = await sidecar.ask(raw)

    assert told(answer) == (413, -32600, ...)
    assert answer.code == "body_too_large"
    assert nothing_ran(world)


# -- Pages.


@pytest.mark.parametrize(
    "origin",
    [b"https://evil.example", b"null", b"http://localhost.evil.example", b"localhost", b""],
)
@pytest.mark.parametrize("at", [None, MODERN])
async def test_a_strange_page_is_403_before_any_arm(
    world: World, origin: bytes, at: str | None
) -> None:
    sidecar = await world.sidecar()
    fields = [b"Origin: " + origin, *([] if at is None else head("tools/call", BOOK))]

    for target in ("/mcp", "/mcp/call_a", "/retell", "/api/mcp/retell/tools"):
        answer = await sidecar.post(target, json.dumps(call()).encode(), *fields)
        rpc_id = ... if target.startswith("/mcp") else 7
        assert told(answer) == (403, -32600, rpc_id)
        assert answer.code == "origin_not_allowed"
    for method in ("GET", "DELETE"):
        answer = await sidecar.ask(request(method, "/mcp", None, b"Origin: " + origin))
        assert told(answer) == (403, -32600, ...)
    assert nothing_ran(world)


async def test_a_strange_page_has_its_body_left_unread(world: World) -> None:
    sidecar = await world.sidecar()
    client = await sidecar.connect()
    lines = [b"POST /mcp HTTP/1.1", b"Host: a", b"Origin: null", b"Content-Length: 1000000",
             b"Expect: 100-continue"]  # fmt: skip

    answer = await client.ask(b"\r\n".join(lines) + b"\r\n\r\n")

    assert told(answer) == (403, -32600, ...)


async def test_pages_of_this_machine_may_ask_until_the_rules_name_others(world: World) -> None:
    sidecar = await world.sidecar()
    ours, theirs = b"Origin: http://localhost:5173", b"Origin: https://Console.example"

    assert (await sidecar.post("/mcp/call_a", tools_call(SLOTS), ours)).arm == "mcp"
    assert (await sidecar.post("/mcp/call_a", tools_call(SLOTS), theirs)).status == 403
    await sidecar.write(world.rules(listen={"origins": ["https://console.example:443"]}))
    assert (await sidecar.post("/mcp/call_a", tools_call(SLOTS), ours)).status == 403
    assert (await sidecar.post("/mcp/call_a", tools_call(SLOTS), theirs)).arm == "mcp"


# -- Credentials.


async def test_without_a_credential_an_mcp_caller_hears_so_in_json_rpc(world: World) -> None:
    sidecar = await world.sidecar(SECRETS, auth=AUTH)

    before = await sidecar.post("/mcp", tools_call(BOOK))
    after = await sidecar.post("/retell", tools_call(BOOK), signed(tools_call(BOOK)))

    assert told(before) == (401, -32600, ...)
    assert told(after) == (401, -32600, 7)
    assert before.value(b"www-authenticate") == b"Bearer"
    assert nothing_ran(world)


# -- Batches.


def batch(*messages: object) -> bytes:
    return json.dumps(messages).encode()


NOTE = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 9}}


@pytest.mark.parametrize("fields", [[], [version("2025-03-26")]])
async def test_a_batch_is_one_exchange_per_message(world: World, fields: list[bytes]) -> None:
    sidecar = await world.sidecar()

    answer = await sidecar.post(
        "/mcp/call_a",
        batch(message(name=SLOTS, rpc_id="a"), NOTE, message("ping", "b"), message(name=BOOK)),
        *fields,
    )

    assert (answer.status, answer.value(b"content-type")) == (200, b"application/json")
    assert [each["id"] for each in answer.json] == ["a", "b", 7]
    assert all("result" in each for each in answer.json)
    tools = {line["tool"]: line for line in await sidecar.lines(2, arm="mcp") if line["tool"]}
    assert tools.keys() == {SLOTS, BOOK}
    assert len({line["request_id"] for line in tools.values()}) == 2
    (whole,) = await sidecar.lines(1, flags=["batch"])
    assert (whole["status"], whole["arm"], whole["outcome"]) == (200, "none", "ok")


async def test_a_batch_that_wants_no_answer_has_none(world: World) -> None:
    sidecar = await world.sidecar()

    answer = await sidecar.post("/mcp/call_a", batch(NOTE, NOTE))

    assert (answer.status, answer.body) == (202, b"")


async def test_a_write_that_stands_twice_in_a_batch_runs_once(world: World) -> None:
    sidecar = await world.sidecar()

    answer = await sidecar.post("/mcp/call_a", batch(*[message(name=BOOK)] * 10))

    assert [each["id"] for each in answer.json] == [7] * 10
    assert all(each["result"]["isError"] is False for each in answer.json)
    assert len(world.mcp.tools) == 1


async def test_each_message_of_a_batch_is_limited_and_authorised_by_itself(world: World) -> None:
    """A token is one for all; a signature is over the whole body, and so over none of its parts."""
    auth = {**AUTH, "require": {**AUTH["require"], "mcp": ["token", "signature"]}}
    limits = {"tools_per_minute": 2, "burst": 1}
    sidecar = await world.sidecar(SECRETS, auth=auth, limits=limits)
    body = batch(*[message(name=SLOTS, rpc_id=n, arguments={"n": n}) for n in range(3)])

    by_token = await sidecar.post("/mcp/call_a", body, authorization(TOKEN))
    by_hand = await sidecar.post("/mcp/call_a", body, signed(body))
    by_nobody = await sidecar.post("/mcp/call_a", body)

    assert by_token.status == 200
    assert [each["result"]["isError"] for each in by_token.json] == [False, False, True]
    assert by_hand.status == 401
    assert {each["error"]["code"] for each in by_hand.json} == {-32600}
    assert told(by_nobody) == (401, -32600, ...)
    assert len(world.mcp.tools) == 2


async def test_the_messages_of_a_batch_run_side_by_side(world: World) -> None:
    """Each waits for the others at the arm: one after another they would never end."""
    together = asyncio.Barrier(3)

    async def meet(peer: Any, seen: Any) -> bool:
        await together.wait()
        await peer.send(rpc(seen, text("met")))
        return True

    world.mcp.play = mcp(meet)
    sidecar = await world.sidecar()
    body = batch(*[message(name=SLOTS, rpc_id=n, arguments={"n": n}) for n in range(3)])

    answer = await sidecar.post("/mcp/call_a", body)

    assert [each["result"]["content"][0]["text"] for each in answer.json] == ["met"] * 3


async def test_answers_that_stream_stand_in_the_array_too(world: World) -> None:
    """Notifications on the way have no place there; the connections live on."""

    async def streams(peer: Any, seen: Any) -> bool:
        answer = json.dumps({"jsonrpc": "2.0", "id": seen.json["id"], "result": text("streamed")})
        progress = json.dumps({"jsonrpc": "2.0", "method": "notifications/message", "params": {}})
        events = f"data: {progress}\n\nevent: message\ndata: {answer}\n\n".encode()
        await peer.send(response(events, b"Content-Type: text/event-stream"))
        return True

    world.mcp.play = mcp(streams)
    sidecar = await world.sidecar()
    body = batch(*[message(name=SLOTS, rpc_id=n, arguments={"n": n}) for n in range(3)])

    answer = await sidecar.post("/mcp/call_a", body)

    assert [each["id"] for each in answer.json] == [0, 1, 2]
    assert [each["result"]["content"][0]["text"] for each in answer.json] == ["streamed"] * 3
    assert {line["outcome"] for line in await sidecar.lines(3, tool=SLOTS)} == {"ok"}
    await sidecar.settled()


async def test_the_other_arm_answers_for_each_message_of_a_batch(world: World) -> None:
    await world.mcp.refuse()
    sidecar = await world.sidecar()

    answer = await sidecar.post(
        "/mcp/call_a", batch(message(name=SLOTS, rpc_id="a"), message(name=BOOK, rpc_id="b"))
    )

    assert [each["id"] for each in answer.json] == ["a", "b"]
    for each in answer.json:
        assert each["result"]["structuredContent"] == {"from": "webhook"}
    assert len(await sidecar.lines(2, outcome="rescued")) == 2


async def test_a_late_write_of_a_batch_is_said_to_be_pending_and_finishes(
    world: World,
) -> None:
    go, ends = asyncio.Event(), list[str]()
    done = response(
        json.dumps({"jsonrpc": "2.0", "id": 1, "result": text("booked")}).encode(), JSON
    )
    world.mcp.play = mcp(finishes(go, ends, last=done))
    tools = {BOOK: {"linger": "20s", "budget": "400ms"}}
    arms = {"mcp": {"timeout": "300ms"}}
    sidecar = await world.sidecar(tools=tools, backends=arms)

    answer = await sidecar.post("/mcp/call_a", batch(message(name=BOOK), message("ping", "b")))
    go.set()
    await sidecar.settled()

    late, ping = answer.json
    assert (late["id"], late["result"]["isError"]) == (7, True)
    assert late["result"]["content"][0]["text"] == PENDING
    assert ping["id"] == "b"
    assert ends == ["finished"]
