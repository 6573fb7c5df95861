"""MCP callers whose arm speaks no MCP, or is away: on raw sockets, held to MCP's own schemas."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.functional.conftest import World
from tests.functional.kit import PENDING, Sidecar
from tests.functional.wire import (
    Answer,
    Peer,
    Play,
    Seen,
    answers,
    dies,
    method_of,
    request,
    rpc,
    text,
    until,
)
from tests.mcp_schema import LEGACY, MODERN, error_of, result_of

ACCEPT = b"Accept: application/json, text/event-stream"
OBJECT = {"type": "object", "properties": {"day": {"type": "string"}}}
SLOTS = {
    "name": "checkSlots",
    "description": "Free slots.",
    "inputSchema": OBJECT,
    "outputSchema": {
        "type": "object",
        "properties": {"slots": {"type": "array"}},
        "required": ["slots"],
    },
    "annotations": {"readOnlyHint": True},
}
BOOK = {"name": "book", "description": "Book.", "inputSchema": {"type": "object"}}
RULED = {"slots": {"names": {"mcp": "checkSlots"}}, "hang_up": {"description": "End the call."}}
META = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientCapabilities": {},
}
ALL = ["checkSlots", "book", "hang_up"]
ERAS = [pytest.param("2025-11-25", id="legacy"), pytest.param(MODERN, id="modern")]


def listing(*tools: dict[str, Any], call: Play | None = None) -> Play:
    """A modern MCP server with these tools, which plays `call` when one is called."""
    about = {
        "server/discover": {
            "resultType": "complete",
            "supportedVersions": [MODERN],
            "instructions": "Be kind.",
            "capabilities": {"tools": {}},
            "serverInfo": {"name": "told", "version": "1"},
        },
        "tools/list": {"resultType": "complete", "tools": list(tools)},
    }
    error = {"code": -32022, "message": "?", "data": {"supported": [MODERN], "requested": "?"}}
    refusal = {"jsonrpc": "2.0", "id": None, "error": error}
    refuse = answers(json.dumps(refusal).encode(), status=b"400 Bad Request")

    async def play(peer: Peer, seen: Seen) -> bool:
        if seen.value(b"mcp-protocol-version") != MODERN.encode():
            return await refuse(peer, seen)
        method = method_of(seen)
        if method == "tools/call":
            return await (call or dies)(peer, seen)
        await peer.send(rpc(seen, about[method]))
        return True

    return play


async def started(world: World, *, percent: int = 0, **more: Any) -> Sidecar:
    """A sidecar that knows what the server lists, or that it cannot."""
    sidecar = await world.sidecar(
        split={"percent": percent},
        backends={"mcp": {"catalogue_every": "60s"}},
        tools=RULED | more,
    )
    heard = ("catalogue_changed", "catalogue_not_renewed")
    await until(lambda: any(map(sidecar.events, heard)), "the server was asked")
    return sidecar


async def ask(
    sidecar: Sidecar, version: str, method: str, params: Any = None, *more: bytes
) -> Answer:
    """One request of an MCP caller, as its era has it."""
    fields = [ACCEPT, b"Content-Type: application/json", *more]
    params = dict(params or {})
    if method != "initialize":
        fields.append(b"MCP-Protocol-Version: " + version.encode())
    if version == MODERN:
        params["_meta"] = META
        fields.append(b"Mcp-Method: " + method.encode())
        if "name" in params:
            fields.append(b"Mcp-Name: " + params["name"].encode())
    message: dict[str, Any] = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
    return await sidecar.post("/mcp/call_a", json.dumps(message).encode(), *fields)


async def session(sidecar: Sidecar, version: str) -> tuple[bytes, ...]:
    """The header of a legacy caller's session, if it is given one; a modern caller never is."""
    if version == MODERN:
        return ()
    about = {"protocolVersion": version, "capabilities": {},
             "clientInfo": {"name": "c", "version": "1"}}  # fmt: skip
    opened = await ask(sidecar, version, "initialize", about)
    result = result_of(opened.body, "initialize", version)
    assert result["protocolVersion"] == version
    token = opened.value(b"mcp-session-id")
    return (b"Mcp-Session-Id: " + token,) if token is not None else ()


async def names(sidecar: Sidecar, version: str) -> list[str]:
    """Of the tools that a caller finds."""
    own = await session(sidecar, version)
    listed = await ask(sidecar, version, "tools/list", {}, *own)
    assert listed.status == 200
    return [tool["name"] for tool in result_of(listed.body, "tools/list", version)["tools"]]


@pytest.mark.parametrize("version", [*LEGACY[1:], MODERN])
async def test_callers_of_the_webhook_arm_find_the_servers_tools(
    world: World, version: str
) -> None:
    world.mcp.play = listing(SLOTS, BOOK)
    sidecar = await started(world)

    assert await names(sidecar, version) == ALL
    assert world.webhook.seen == []
    assert len(world.mcp.tools) == 0


@pytest.mark.parametrize("version", ERAS)
async def test_a_server_that_dies_takes_no_tools_along(world: World, version: str) -> None:
    world.mcp.play = listing(SLOTS, BOOK)
    sidecar = await started(world, percent=100)
    await world.mcp.refuse()

    assert await names(sidecar, version) == ALL


@pytest.mark.parametrize("version", ERAS)
async def test_a_sidecar_that_starts_in_an_outage_knows_the_tools(
    world: World, version: str
) -> None:
    world.mcp.play = listing(SLOTS, BOOK)
    before = await started(world)
    await until(lambda: (before.folder / "state/catalogue-mcp.json").exists(), "it was kept")
    await before.hang_up()
    await before.app.drain()
    await world.mcp.refuse()

    after = await started(world, percent=100)

    assert after.events("catalogue_not_renewed")
    assert await names(after, version) == ALL
    assert (await after.status())["arms"]["mcp"]["catalogue"]["tools"] == 2
    assert (await after.status())["arms"]["webhook"]["catalogue"] is None


async def test_an_outage_leaves_modern_callers_modern(world: World) -> None:
    """A client that hears any error to server/discover goes on in the old era."""
    world.mcp.play = listing(SLOTS)
    sidecar = await started(world, percent=100)
    await world.mcp.refuse()

    found = await ask(sidecar, MODERN, "server/discover")

    result = result_of(found.body, "server/discover", MODERN)
    assert result["supportedVersions"] == [MODERN]
    assert result["instructions"] == "Be kind."


@pytest.mark.parametrize("version", ERAS)
@pytest.mark.parametrize("percent", [0, 100])
@pytest.mark.parametrize("said", ["checkSlots", "slots"])
async def test_a_tool_has_its_servers_name_and_that_of_the_rules(
    world: World, version: str, percent: int, said: str
) -> None:
    """Whichever arm runs it hears the name that it knows."""
    ran: list[str] = []

    async def call(peer: Peer, seen: Seen) -> bool:
        ran.append(json.loads(seen.body)["params"]["name"])
        await peer.send(rpc(seen, text('{"slots":[]}', structuredContent={"slots": []})))
        return True

    world.mcp.play = listing(SLOTS, BOOK, call=call)
    world.webhook.play = answers(b'{"slots":[]}')
    sidecar = await started(world, percent=percent)
    own = await session(sidecar, version)

    answer = await ask(sidecar, version, "tools/call", {"name": said, "arguments": {}}, *own)

    result = result_of(answer.body, "tools/call", version)
    assert result["structuredContent"] == {"slots": []}
    if percent:
        assert ran == ["checkSlots"]
    else:
        assert [seen.json["name"] for seen in world.webhook.seen] == ["slots"]
    (line,) = await sidecar.lines(1, tool="slots")
    assert line["outcome"] == "ok"


@pytest.mark.parametrize("version", ERAS)
@pytest.mark.parametrize("tool", ["checkSlots", "book"])
async def test_only_a_tool_that_its_server_calls_read_only_is_rescued(
    world: World, version: str, tool: str
) -> None:
    """The server dies with the call in its hands: whatever it did, a read does no harm twice."""
    world.mcp.play = listing(SLOTS, BOOK, call=dies)
    world.webhook.play = answers(b'{"slots":[]}')
    sidecar = await started(world, percent=100)
    own = await session(sidecar, version)

    answer = await ask(sidecar, version, "tools/call", {"name": tool, "arguments": {}}, *own)

    assert answer.status == 200
    result = result_of(answer.body, "tools/call", version)
    if tool == "checkSlots":
        assert (answer.arm, result["isError"]) == ("webhook", False)
    else:
        assert result["isError"]
        assert result["content"][0]["text"] == PENDING
        assert world.webhook.seen == []


async def test_a_hint_speaks_for_every_caller(world: World) -> None:
    """Also for Retell's own functions, which know nothing of MCP."""
    world.mcp.play = listing(SLOTS, BOOK, call=dies)
    sidecar = await started(world, percent=100)

    assert (await sidecar.call("slots")).arm == "webhook"
    assert (await sidecar.call("book")).reason == "last_answer"


@pytest.mark.parametrize("version", ERAS)
@pytest.mark.parametrize("status", [b"500 Oops", b"503 Busy", b"302 Found", b"401 No"])
async def test_no_failing_status_reaches_a_caller_of_a_tool(
    world: World, version: str, status: bytes
) -> None:
    """A 5xx ends the session of a legacy client."""
    world.mcp.play = listing(BOOK)
    world.webhook.play = answers(b"no", status=status)
    sidecar = await started(world)
    own = await session(sidecar, version)

    answer = await ask(sidecar, version, "tools/call", {"name": "book", "arguments": {}}, *own)

    assert answer.status == 200
    assert result_of(answer.body, "tools/call", version)["isError"]


@pytest.mark.parametrize("version", ERAS)
async def test_a_declared_answer_is_told_and_kept_to(world: World, version: str) -> None:
    schema = {"type": "object", "properties": {"id": {"type": "integer"}}, "required": ["id"]}
    sidecar = await started(world, book={"description": "Book.", "output_schema": schema})
    own = await session(sidecar, version)
    asked = {"name": "book", "arguments": {}}

    listed = await ask(sidecar, version, "tools/list", {}, *own)
    world.webhook.play = answers(b'{"id": 7}')
    kept = await ask(sidecar, version, "tools/call", asked, *own)
    world.webhook.play = answers(b'{"id": "seven"}')
    other = {"name": "book", "arguments": {"again": True}}
    broken = await ask(sidecar, version, "tools/call", other, *own)

    (told,) = [
        tool
        for tool in result_of(listed.body, "tools/list", version)["tools"]
        if tool["name"] == "book"
    ]
    assert told["outputSchema"] == schema
    result = result_of(kept.body, "tools/call", version)
    assert (result["structuredContent"], result["isError"]) == ({"id": 7}, False)
    result = result_of(broken.body, "tools/call", version)
    assert result["isError"]
    assert result["content"][0]["text"] == '{"id": "seven"}'
    assert "structuredContent" not in result


@pytest.mark.parametrize("version", ERAS)
@pytest.mark.parametrize(
    ("said", "conforms"), [(b'{"slots":[]}', True), (b'{"slots":"none"}', False)]
)
async def test_a_rescuer_keeps_to_what_the_server_promised(
    world: World, version: str, said: bytes, conforms: bool
) -> None:
    """A caller of the MCP arm has its server's list, and refuses any other answer whole."""
    world.mcp.play = listing(SLOTS, call=dies)
    world.webhook.play = answers(said)
    sidecar = await started(world, percent=100)
    own = await session(sidecar, version)

    answer = await ask(
        sidecar, version, "tools/call", {"name": "checkSlots", "arguments": {}}, *own
    )

    assert answer.arm == "webhook"
    result = result_of(answer.body, "tools/call", version)
    assert result["content"][0]["text"] == said.decode()
    assert result["isError"] is not conforms
    assert result.get("structuredContent") == (json.loads(said) if conforms else None)


@pytest.mark.parametrize("version", ERAS)
async def test_what_the_face_does_not_have_is_told_by_its_era(world: World, version: str) -> None:
    sidecar = await started(world)
    own = await session(sidecar, version)

    unknown = await ask(sidecar, version, "resources/list", {}, *own)
    cursor = await ask(sidecar, version, "tools/list", {"cursor": "2"}, *own)

    modern = version == MODERN
    assert (unknown.status, error_of(unknown.body)[0]) == (404 if modern else 200, -32601)
    assert (cursor.status, error_of(cursor.body)[0]) == (400 if modern else 200, -32602)


async def test_small_talk_in_a_session_of_the_face(world: World) -> None:
    sidecar = await started(world)
    own = await session(sidecar, "2025-11-25")
    assert own
    version = b"MCP-Protocol-Version: 2025-11-25"

    ping = await ask(sidecar, "2025-11-25", "ping", {}, *own)
    level = await ask(sidecar, "2025-11-25", "logging/setLevel", {"level": "info"}, *own)
    note = await sidecar.post(
        "/mcp/call_a",
        b'{"jsonrpc":"2.0","method":"notifications/initialized"}',
        ACCEPT,
        version,
        *own,
    )
    stream = await sidecar.get("/mcp/call_a", b"Accept: text/event-stream", version, *own)

    assert ping.json["result"] == level.json["result"] == {}
    assert (note.status, note.body) == (202, b"")
    assert (stream.status, stream.value(b"allow")) == (405, b"POST")
    raw = request("DELETE", "/mcp/call_a", None, version, *own)
    assert (await sidecar.ask(raw)).status in (200, 204)


async def test_a_caller_that_takes_only_events_gets_one(world: World) -> None:
    sidecar = await started(world)
    own = await session(sidecar, "2025-11-25")
    message = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'

    answer = await sidecar.post("/mcp/call_a", message, b"Accept: text/event-stream", *own)

    assert answer.value(b"content-type") == b"text/event-stream"
    assert answer.body.startswith(b"event: message\ndata: {")
