"""The face speaks to every message, in both eras, as MCP's own schemas have it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy import __version__
from proxy.core.dialects.catalogue import Catalogue, parse_page
from proxy.core.dialects.sse import Parser
from proxy.core.mcp.face import Face
from proxy.core.model import Call, Counts, Era, Form, Head, Kind, Ran, Reply, Session
from proxy.core.rules.tools import Tool, ToolEntry, resolve
from tests.mcp_schema import LEGACY, MODERN, error_of, result_of

SELF = {"name": "callsplit", "version": __version__}
TOOLS = ({"name": "book", "inputSchema": {"type": "object"}}, {"name": "greet"})
ERAS = [pytest.param(version, id=version) for version in (*LEGACY, MODERN)]


def catalogue(*tools: dict[str, Any], instructions: str = "") -> Catalogue:
    found = parse_page(json.dumps({"tools": tools}).encode()).tools
    return Catalogue({tool.name: tool for tool in found}, instructions=instructions)


def tool(name: str, **entry: Any) -> Tool:
    return resolve({name: ToolEntry.model_validate(entry)}, name)


def face(*tools: Tool, known: Catalogue | None = None) -> Face:
    return Face(tools, arm="mcp", catalogue=lambda: known)


def call(
    version: str,
    method: str | None,
    params: Any = None,
    *,
    http: str = "POST",
    rpc_id: bytes | None = b"1",
    form: Form | None = Form.REQUEST,
    accept: bytes = b"application/json, text/event-stream",
) -> Call:
    named = {b"mcp-protocol-version": version.encode(), b"accept": accept}
    body = b'{"jsonrpc":"2.0","id":1,"method":"x"' + (
        b',"params":%b}' % json.dumps(params).encode() if params is not None else b"}"
    )
    return Call(
        Kind.MCP,
        Head(http, "/mcp", "", named, [], b"h", "127.0.0.1"),
        body,
        rpc_id=rpc_id,
        rpc_method=method,
        form=form,
        era=Era.MODERN if version == MODERN else Era.LEGACY,
    )


def result(reply: Reply, method: str, version: str) -> dict[str, Any]:
    assert reply.status == 200
    assert (b"content-type", b"application/json") in reply.headers
    assert isinstance(reply.body, bytes)
    return result_of(reply.body, method, version)


def error(reply: Reply) -> tuple[int, int]:
    """The HTTP status, and the error's code."""
    assert isinstance(reply.body, bytes)
    assert reply.verdict is not None
    assert reply.verdict.label == "business_no"
    return reply.status, error_of(reply.body)[0]


# Introductions.


@pytest.mark.parametrize("version", LEGACY)
def test_whatever_legacy_version_is_asked_for_is_spoken(version: str) -> None:
    asked = call("2025-11-25", "initialize", {"protocolVersion": version})

    said = result(face().answer(asked), "initialize", version)

    assert said == {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": SELF}


@pytest.mark.parametrize("asked", ["2026-07-28", "1999-01-01", "", "\udc00"])
def test_any_other_version_is_answered_with_our_newest(asked: str) -> None:
    """It has the handshake, and 2026-07-28 has none."""
    said = face().answer(call("2025-11-25", "initialize", {"protocolVersion": asked}))

    assert result(said, "initialize", "2025-11-25")["protocolVersion"] == "2025-11-25"


@pytest.mark.parametrize(
    "params", [None, {}, {"protocolVersion": 7}, [], {"protocolVersion": None}]
)
def test_an_introduction_that_names_no_version_is_refused(params: Any) -> None:
    assert error(face().answer(call("2025-11-25", "initialize", params))) == (200, -32602)


def test_a_modern_caller_discovers_what_it_needs_to_stay_modern() -> None:
    said = result(face().answer(call(MODERN, "server/discover")), "server/discover", MODERN)

    assert said == {
        "resultType": "complete",
        "_meta": {"io.modelcontextprotocol/serverInfo": SELF},
        "supportedVersions": [MODERN],
        "capabilities": {"tools": {}},
        "ttlMs": 60000,
        "cacheScope": "private",
    }


@pytest.mark.parametrize(
    ("version", "method"), [("2025-11-25", "initialize"), (MODERN, "server/discover")]
)
def test_the_servers_instructions_are_passed_on(version: str, method: str) -> None:
    ours = face(known=catalogue(instructions='Say "hi".'))

    said = ours.answer(call(version, method, {"protocolVersion": version}))

    assert result(said, method, version)["instructions"] == 'Say "hi".'


# Tools.


@pytest.mark.parametrize("version", ERAS)
def test_the_tools_are_listed_on_one_page(version: str) -> None:
    ours = face(tool("hang_up", description="End it."), known=catalogue(*TOOLS))

    said = result(ours.answer(call(version, "tools/list", {})), "tools/list", version)

    assert [tool["name"] for tool in said["tools"]] == ["book", "greet", "hang_up"]
    assert "nextCursor" not in said
    if version == MODERN:
        assert (said["resultType"], said["ttlMs"], said["cacheScope"]) == (
            "complete",
            60000,
            "private",
        )


@pytest.mark.parametrize("version", ERAS)
def test_no_tools_are_an_empty_list(version: str) -> None:
    said = result(face().answer(call(version, "tools/list")), "tools/list", version)

    assert said["tools"] == []


@pytest.mark.parametrize("cursor", ["", "page2", 7, {}])
@pytest.mark.parametrize("version", ERAS)
def test_a_cursor_that_we_never_gave_is_unknown(version: str, cursor: Any) -> None:
    """An empty one is a cursor too."""
    refused = error(face().answer(call(version, "tools/list", {"cursor": cursor})))

    assert refused == (400 if version == MODERN else 200, -32602)


@pytest.mark.parametrize("params", [{"cursor": None}, {"_meta": {"progressToken": 3}}])
def test_no_cursor_is_none(params: dict[str, Any]) -> None:
    assert face().answer(call("2025-11-25", "tools/list", params)).status == 200


def test_a_face_that_nobody_told_anything_still_answers() -> None:
    said = Face().answer(call(MODERN, "tools/list"))

    assert result(said, "tools/list", MODERN)["tools"] == []


def test_params_are_an_object() -> None:
    assert error(face().answer(call("2025-11-25", "tools/list", [1]))) == (200, -32602)


def test_a_new_catalogue_is_listed_at_once() -> None:
    known = [catalogue(TOOLS[0])]
    ours = Face(catalogue=lambda: known[0])
    asked = call(MODERN, "tools/list")

    before = result(ours.answer(asked), "tools/list", MODERN)["tools"]
    assert ours.answer(asked).body == ours.answer(asked).body
    known[0] = catalogue(*TOOLS)
    after = result(ours.answer(asked), "tools/list", MODERN)["tools"]

    assert (len(before), len(after)) == (1, 2)


def test_an_output_schema_is_told_where_the_era_can_hold_it() -> None:
    ours = face(tool("slots", description=".", output_schema={"type": "array"}))

    modern = result(ours.answer(call(MODERN, "tools/list")), "tools/list", MODERN)
    legacy = result(ours.answer(call("2025-06-18", "tools/list")), "tools/list", "2025-06-18")

    assert modern["tools"][0]["outputSchema"] == {"type": "array"}
    assert "outputSchema" not in legacy["tools"][0]


def test_what_a_server_promised_its_callers_is_known_by_the_rules_names() -> None:
    schema = {"type": "object"}
    listed = {"name": "checkSlots", "outputSchema": schema}
    ours = face(tool("slots", names={"mcp": "checkSlots"}), known=catalogue(listed, TOOLS[0]))

    def promised(name: str | None, arm: str = "mcp") -> Any:
        asked = call(MODERN, "tools/call")
        asked.tool = name
        return ours.promised(asked, arm)

    assert promised("slots") == schema
    assert promised("book") is None
    assert promised("never_listed") is None
    assert promised(None) is None
    assert promised("slots", "webhook") is None
    assert face().promised(call(MODERN, "tools/call"), "mcp") is None


# The rest of the protocol.


@pytest.mark.parametrize("method", ["ping", "logging/setLevel"])
@pytest.mark.parametrize("version", LEGACY)
def test_legacy_small_talk_is_answered_with_nothing(version: str, method: str) -> None:
    said = face().answer(call(version, method, {"level": "info"}))

    assert result(said, method, version) == {}


@pytest.mark.parametrize(
    ("version", "method"),
    [
        (MODERN, "ping"),
        (MODERN, "logging/setLevel"),
        (MODERN, "initialize"),
        (MODERN, "subscriptions/listen"),
        (MODERN, "resources/list"),
        (MODERN, "no/such"),
        ("2025-11-25", "server/discover"),
        ("2025-11-25", "resources/list"),
        ("2025-11-25", "prompts/get"),
        ("2025-11-25", "completion/complete"),
        ("2025-03-26", "tasks/list"),
    ],
)
def test_what_we_do_not_have_is_no_method(version: str, method: str) -> None:
    """A modern caller sees it in the status too; a legacy one must never see a failing status."""
    asked = call(version, method)

    assert error(face().answer(asked)) == (404 if version == MODERN else 200, -32601)
    assert not face().knows(asked)


@pytest.mark.parametrize(
    ("version", "method"),
    [
        ("2025-11-25", "initialize"),
        ("2025-11-25", "tools/list"),
        ("2025-11-25", "ping"),
        (MODERN, "tools/list"),
        (MODERN, "server/discover"),
    ],
)
def test_it_knows_what_it_can_answer(version: str, method: str) -> None:
    assert face().knows(call(version, method))


@pytest.mark.parametrize(
    ("form", "rpc_id"),
    [(Form.NOTIFICATION, None), (Form.ANSWER, b"7"), (Form.ANSWER, None), (None, None)],
)
@pytest.mark.parametrize("version", ERAS)
def test_what_asks_nothing_is_taken(version: str, form: Form | None, rpc_id: bytes | None) -> None:
    reply = face().answer(call(version, "notifications/x", form=form, rpc_id=rpc_id))

    assert (reply.status, reply.body) == (202, b"")


@pytest.mark.parametrize("version", ERAS)
@pytest.mark.parametrize(("http", "form"), [("GET", Form.STREAM), ("DELETE", Form.END)])
def test_we_say_nothing_of_our_own_accord_and_keep_no_session(
    version: str, http: str, form: Form
) -> None:
    asked = call(version, None, http=http, form=form, rpc_id=None)

    reply = face().answer(asked)

    assert (reply.status, reply.headers) == (405, [(b"allow", b"POST")])


def test_a_session_of_ours_can_be_ended() -> None:
    asked = call("2025-11-25", None, http="DELETE", form=Form.END, rpc_id=None)
    asked.session = Session("s", "mcp", "2025-11-25", 0)

    assert face().answer(asked).status == 204


@pytest.mark.parametrize("rpc_id", [b'"a \\"b\\""', b"0", b"-7", b"1.5"])
@pytest.mark.parametrize("method", ["tools/list", "no/such"])
def test_the_callers_own_id_comes_back(method: str, rpc_id: bytes) -> None:
    reply = face().answer(call("2025-11-25", method, rpc_id=rpc_id))

    assert isinstance(reply.body, bytes)
    assert reply.body.startswith(b'{"jsonrpc":"2.0","id":%b,' % rpc_id)


@pytest.mark.parametrize("method", ["tools/list", "no/such"])
def test_a_caller_that_takes_only_events_gets_one(method: str) -> None:
    reply = face().answer(call("2025-11-25", method, accept=b"text/event-stream"))

    assert (b"content-type", b"text/event-stream") in reply.headers
    assert isinstance(reply.body, bytes)
    (event,) = Parser().feed(reply.body)
    assert json.loads(event.data)["id"] == 1


def test_the_era_of_a_call_that_nobody_looked_at_is_that_of_its_header() -> None:
    asked = call(MODERN, "server/discover")
    asked.era = None

    assert face().answer(asked).status == 200


def test_nothing_that_we_say_ourselves_tells_of_an_arm() -> None:
    """No tool ran, and no breaker is to hear of it."""
    for method in ("ping", "no/such"):
        verdict = face().answer(call("2025-11-25", method)).verdict
        assert verdict is not None
        assert (verdict.ran, verdict.counts, verdict.delivers) == (Ran.NO, Counts.NOTHING, True)
