from __future__ import annotations

import json
import re
from typing import Any

from proxy.cli.demo_retell import Conversation, new_call_id
from proxy.core.addresses import NOWHERE
from proxy.core.call_id import CallIds
from proxy.core.head import read_head
from proxy.core.model import Call, Kind
from proxy.core.recognise import recognise
from proxy.core.routes import match

START = 1_767_225_600_000


def recognised(body: bytes) -> Call:
    """What the sidecar makes of it."""
    route = match("/retell")
    assert route is not None
    raw = [(b"host", b"sidecar.test"), (b"content-type", b"application/json")]
    head = read_head("POST", "/retell", raw, peer="127.0.0.1", secure=False, trusted=NOWHERE)
    return recognise(route, head, body, CallIds.of((), ()))


def test_call_ids_look_like_retells() -> None:
    ids = {new_call_id() for _ in range(100)}

    assert len(ids) == 100
    assert all(re.fullmatch(r"call_[0-9a-f]{27}", call_id) for call_id in ids)


def test_every_body_of_a_call_is_recognised_with_the_same_call_id() -> None:
    talk = Conversation(1)
    bodies = [
        talk.inbound(START),
        talk.started(START + 2000),
        talk.function("get_available_slots", {"date": "2026-01-02"}),
        talk.ended(START + 60_000),
        talk.analyzed(START + 61_000, successful=True),
    ]

    calls = [recognised(body) for body in bodies]
    assert [call.kind for call in calls] == [
        Kind.INBOUND, Kind.EVENT, Kind.FUNCTION, Kind.EVENT, Kind.EVENT
    ]  # fmt: skip
    assert {call.id for call in calls} == {talk.id}
    assert [call.event for call in calls] == [
        "call_inbound", "call_started", None, "call_ended", "call_analyzed"
    ]  # fmt: skip
    assert {call.start_ms for call in calls[1:]} == {START + 2000}
    assert calls[2].tool == "get_available_slots"
    assert calls[2].arguments is not None
    assert json.loads(calls[2].arguments) == {"date": "2026-01-02"}


def test_the_transcript_ends_with_the_invocation_that_is_under_way() -> None:
    talk = Conversation(0)
    talk.started(START)
    talk.said("user", "A haircut, please.")
    talk.function("get_company_info", {})
    talk.tool_answered(b'{"success":true}', successful=True)
    body: dict[str, Any] = json.loads(talk.function("book_appointment", {"time": "10:00"}))

    said = body["call"]["transcript_with_tool_calls"]
    assert [turn["role"] for turn in said] == [
        "agent", "user", "tool_call_invocation", "tool_call_result", "tool_call_invocation"
    ]  # fmt: skip
    assert said[-1]["name"] == body["name"] == "book_appointment"
    assert json.loads(said[-1]["arguments"]) == body["args"]
    assert said[2]["tool_call_id"] == said[3]["tool_call_id"] != said[4]["tool_call_id"]
    assert body["call"]["transcript"].endswith("User: A haircut, please.\n")
    assert "tool_call" not in body["call"]["transcript"]


def test_what_is_only_known_at_the_end_is_only_told_at_the_end() -> None:
    talk = Conversation(0)
    started = json.loads(talk.started(START))["call"]
    ended = json.loads(talk.ended(START + 5000))["call"]
    analyzed = json.loads(talk.analyzed(START + 6000, successful=False))["call"]

    assert "end_timestamp" not in started
    assert ended["duration_ms"] == 5000
    assert "call_analysis" not in ended
    assert analyzed["call_analysis"]["call_successful"] is False
    assert (started["call_status"], ended["call_status"]) == ("ongoing", "ended")
