from __future__ import annotations

import json
from typing import Any

import pytest
from mcp_types import methods

from proxy.core.dialects.last_answer import done_answer, last_answer
from proxy.core.model import Call, Head, Kind, Ran, Reply
from proxy.core.rules.tools import Tool, ToolEntry, resolve

SAY = {"en": "Sorry, not now.", "de": "Leider nicht jetzt."}
PENDING = "It may have gone through."
DONE = "That is done."


def tool() -> Tool:
    entry = ToolEntry.model_validate({"say": SAY, "say_pending": PENDING, "say_done": DONE})
    return resolve({"book": entry}, "book")


def call(kind: Kind, *, version: bytes = b"2026-07-28", **more: Any) -> Call:
    method = more.pop("method", "POST")
    named = {b"mcp-protocol-version": version}
    head = Head(method, "/retell", "", named, [], b"localhost", "127.0.0.1")
    return Call(kind, head, b'{"secret":"input"}', "call_1", "book", **more)


def answer(of: Call, ran: Ran = Ran.NO, language: str | None = None) -> tuple[Reply, Any]:
    reply = last_answer(of, ran=ran, tool=tool(), language=language)
    assert isinstance(reply.body, bytes)
    assert b"secret" not in reply.body
    return reply, json.loads(reply.body) if reply.body else None


@pytest.mark.parametrize("kind", [Kind.FUNCTION, Kind.ARGS])
@pytest.mark.parametrize(
    ("ran", "language", "sentence"),
    [
        (Ran.NO, None, SAY["en"]),
        (Ran.NO, "de-AT", SAY["de"]),
        (Ran.NO, "fr", SAY["en"]),
        (Ran.UNKNOWN, "de", PENDING),
        (Ran.YES, None, PENDING),
    ],
)
def test_a_function_hears_a_sentence_that_fits_what_may_have_run(
    kind: Kind, ran: Ran, language: str | None, sentence: str
) -> None:
    reply, body = answer(call(kind), ran, language)

    assert reply.status == 200
    assert body == {"success": False, "message": sentence}


def test_a_tools_caller_hears_it_in_the_guides_form() -> None:
    reply, body = answer(call(Kind.TOOLS))

    assert reply.status == 200
    assert body == {"success": False, "error": SAY["en"], "status_code": 503}


@pytest.mark.parametrize("version", ["2026-07-28", "2025-11-25"])
def test_an_mcp_caller_hears_a_tools_error_with_its_own_id(version: str) -> None:
    asked = call(Kind.MCP, version=version.encode(), rpc_id=b"1e2", rpc_method="tools/call")

    reply, body = answer(asked, Ran.UNKNOWN)

    assert reply.status == 200
    assert isinstance(reply.body, bytes)
    assert b'"id":1e2,' in reply.body
    methods.validate_server_result("tools/call", version, body["result"])
    assert body["result"]["isError"] is True
    assert body["result"]["content"] == [{"type": "text", "text": PENDING}]


def test_an_mcp_caller_hears_of_other_requests_as_errors() -> None:
    reply, body = answer(call(Kind.MCP, rpc_id=b'"a"', rpc_method="tools/list"))

    assert (reply.status, body["id"], body["error"]["code"]) == (200, "a", -32603)


def test_notifications_and_answers_hear_nothing() -> None:
    """The ID of an answer is that of the server's question."""
    note, nothing = answer(call(Kind.MCP, rpc_method="notifications/initialized"))
    taken, none = answer(call(Kind.MCP, rpc_id=b"1", rpc_method=None))

    assert (note.status, nothing) == (taken.status, none) == (202, None)


def test_a_stream_that_cannot_be_opened_is_refused_plainly() -> None:
    reply, _ = answer(call(Kind.MCP, method="GET"))

    assert (reply.status, reply.headers) == (405, [(b"allow", b"POST")])


@pytest.mark.parametrize("event", ["call_inbound", "chat_inbound"])
def test_a_ringing_caller_is_left_to_the_numbers_own_agent(event: str) -> None:
    reply, body = answer(call(Kind.INBOUND, event=event))

    assert (reply.status, body) == (200, {event: {}})


@pytest.mark.parametrize("kind", [Kind.EVENT, Kind.ALERT, Kind.OTHER])
def test_whoever_can_come_again_is_asked_to(kind: Kind) -> None:
    reply, body = answer(call(kind, event="call_ended"))

    assert reply.status == 503
    assert (b"retry-after", b"5") in reply.headers
    assert body["success"] is False


@pytest.mark.parametrize("kind", [Kind.FUNCTION, Kind.ARGS])
def test_a_write_that_is_done_but_not_kept_is_told_as_done(kind: Kind) -> None:
    reply = done_answer(call(kind), tool=tool())

    assert (reply.status, said(reply)) == (200, {"success": True, "message": "That is done."})


def test_a_tools_caller_hears_that_it_is_done_in_the_guides_form() -> None:
    assert said(done_answer(call(Kind.TOOLS), tool=tool())) == {
        "success": True,
        "data": "That is done.",
    }


def test_an_mcp_caller_hears_that_it_is_done_as_no_error() -> None:
    asked = call(Kind.MCP, rpc_id=b"7", rpc_method="tools/call")
    message = said(done_answer(asked, tool=tool()))

    assert message["id"] == 7
    assert message["result"]["content"] == [{"type": "text", "text": "That is done."}]
    assert not message["result"].get("isError", False)


def said(reply: Reply) -> Any:
    assert isinstance(reply.body, bytes)
    return json.loads(reply.body)
