from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.addresses import NOWHERE
from proxy.core.fields import MAX_VALUE, fields
from proxy.core.head import read_head
from proxy.core.matchers import compile_when
from proxy.core.model import Call, Kind
from proxy.core.when import FIELDS

SUBJECT: dict[str, Any] = {
    "call_id": "call_1f",
    "agent_id": "agent_demo01",
    "call_type": "phone_call",
    "direction": "inbound",
    "from_number": "+14155550100",
    "to_number": "+14155550199",
    "metadata": {
        "company_id": 42,
        "tier.name": "gold",
        "clinic": {"city": "Bonn", "a.b": {"c": 1}},
        "nothing": None,
        "list": [1],
    },
    "retell_llm_dynamic_variables": {"language": "de", "name": "Änne"},
}


def call_of(
    kind: Kind, body: bytes | dict[str, Any], *fields: tuple[bytes, bytes], **more: Any
) -> Call:
    head = read_head("POST", "/retell", fields, peer="", secure=False, trusted=NOWHERE)
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return Call(kind, head, raw, **more)


BODIES: dict[str, tuple[Kind, dict[str, Any]]] = {
    "function": (Kind.FUNCTION, {"name": "book", "args": {}, "call": SUBJECT}),
    "chat function": (Kind.FUNCTION, {"name": "book", "args": {}, "chat": SUBJECT}),
    "event": (Kind.EVENT, {"event": "call_started", "call": SUBJECT}),
    "chat event": (Kind.EVENT, {"event": "chat_started", "chat": SUBJECT}),
    "inbound": (Kind.INBOUND, {"event": "call_inbound", "call_inbound": SUBJECT}),
    "chat inbound": (Kind.INBOUND, {"event": "chat_inbound", "chat_inbound": SUBJECT}),
}


@pytest.mark.parametrize(("kind", "body"), BODIES.values(), ids=BODIES.keys())
def test_the_subject_of_every_kind_is_found(kind: Kind, body: dict[str, Any]) -> None:
    found = fields(call_of(kind, body))

    assert found.get("agent_id") == "agent_demo01"
    assert found.get("from_number") == "+14155550100"
    assert found.get("to_number") == "+14155550199"
    assert found.get("direction") == "inbound"
    assert found.get("call_type") == "phone_call"
    assert found.get("metadata.company_id") == 42
    assert found.get("dynamic_variables.language") == "de"
    assert found.get("dynamic_variables.name") == "Änne"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("metadata.clinic.city", "Bonn"),
        ("metadata.clinic.a.b", {"c": 1}),
        ("metadata.tier.name", "gold"),
        ("metadata", SUBJECT["metadata"]),
        ("metadata.list", [1]),
        ("metadata.list.0", 1),
        ("metadata.list.1", None),
        ("metadata.nothing", None),
        ("metadata.absent", None),
        ("metadata.absent.deeper", None),
        ("metadata.company_id.deeper", None),
        ("agent_id.deeper", None),
        ("tool", "book"),
        ("tool.deeper", None),
        ("event", "call_started"),
        ("call_id", "call_1f"),
        ("args", {"date": "2026-01-02", "who": {"lang": "en"}}),
        ("args.date", "2026-01-02"),
        ("args.who.lang", "en"),
        ("args.absent", None),
        ("header.x-agent-id", "agent_7"),
        ("header.X-Agent-Id", "agent_7"),
        ("header.x-absent", None),
        ("header.x-twice", None),
        ("header.x-odd", "caf\ufffd"),
        ("header", None),
        ("header.", None),
        ("retell_llm_dynamic_variables.language", None),
        ("unknown", None),
        ("unknown.deeper", None),
        ("", None),
    ],
)
def test_a_path_leads_to_a_value_or_to_none(path: str, value: object) -> None:
    call = call_of(
        Kind.FUNCTION,
        {"call": SUBJECT},
        (b"X-Agent-ID", b"agent_7"),
        (b"X-Twice", b"a"),
        (b"x-twice", b"b"),
        (b"X-Odd", b"caf\xe9"),
        id="call_1f",
        tool="book",
        event="call_started",
        arguments=b'{"date":"2026-01-02","who":{"lang":"en"}}',
    )

    assert fields(call).get(path) == value


@pytest.mark.parametrize("kind", [Kind.MCP, Kind.TOOLS, Kind.ARGS, Kind.ALERT, Kind.OTHER])
def test_other_kinds_have_no_subject(kind: Kind) -> None:
    """Whatever stands in such a body, Retell did not say it."""
    found = fields(call_of(kind, {"call": SUBJECT}, (b"X-Agent-ID", b"a"), tool="book"))

    assert found.get("agent_id") is None
    assert found.get("metadata.company_id") is None
    assert (found.get("tool"), found.get("header.x-agent-id")) == ("book", "a")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"call":5}',
        b'{"call":{"metadata":5,"agent_id":[]}}',
        b'{"call":{"metadata":{"company_id":1e999}}}',
        b'{"call":{"metadata":{"company_id":"\xff"}}}',
        b'{"call":' + b"[" * 100_000,
        b'{"call":{"metadata":' + b"[" * 2000 + b"]" * 2000 + b"}}",
    ],
    ids=lambda body: repr(body[:24]),
)
@pytest.mark.parametrize("kind", [Kind.FUNCTION, Kind.INBOUND])
def test_a_body_that_tells_nothing_has_no_fields(kind: Kind, body: bytes) -> None:
    found = fields(call_of(kind, body))

    assert found.get("metadata.company_id") is None
    assert not isinstance(found.get("agent_id"), str)


def test_a_value_too_large_to_build_is_absent() -> None:
    metadata = {"company_id": 42, "x": "y" * MAX_VALUE}
    found = fields(call_of(Kind.EVENT, {"call": SUBJECT | {"metadata": metadata}}))

    assert found.get("metadata.company_id") is None
    assert found.get("agent_id") == "agent_demo01"


def test_a_cut_emoji_hides_no_field() -> None:
    body = b'{"call":{"transcript":"\\ud83d","agent_id":"a","metadata":{"m":"\\ude00"}}}'
    found = fields(call_of(Kind.EVENT, body))

    assert (found.get("agent_id"), found.get("metadata.m")) == ("a", "\ufffd")


def test_what_was_decoded_once_is_kept() -> None:
    call = call_of(Kind.FUNCTION, {"call": SUBJECT}, arguments=b'{"a":{"b":1}}')
    found = fields(call)
    first = found.get("metadata.clinic"), found.get("args.a"), found.get("agent_id")

    call.body, call.arguments = b"gone", b"gone"

    assert (found.get("metadata.clinic"), found.get("args.a"), found.get("agent_id")) == first
    assert found.get("args.a.b") == 1
    assert found.get("metadata.company_id") == 42
    assert found.get("direction") == "inbound"


def test_every_field_of_the_rules_is_known() -> None:
    found = fields(call_of(Kind.FUNCTION, {"call": SUBJECT}, tool="book"))

    assert None not in {found.get(name) for name in FIELDS}


def test_the_rules_own_matchers_look_through_them() -> None:
    test = compile_when({"agent_id": "agent_demo01", "metadata.company_id": {"in": [42]}})

    assert test(fields(call_of(Kind.FUNCTION, {"call": SUBJECT})))
    assert not test(fields(call_of(Kind.MCP, {"call": SUBJECT})))


@given(st.binary(max_size=60), st.text(max_size=20))
def test_any_body_and_any_path_have_an_answer(body: bytes, path: str) -> None:
    for kind in (Kind.FUNCTION, Kind.INBOUND, Kind.MCP):
        found = fields(call_of(kind, body, arguments=body))
        for at in (path, f"metadata.{path}", f"args.{path}", f"header.{path}"):
            found.get(at)
