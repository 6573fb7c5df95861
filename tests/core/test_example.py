from __future__ import annotations

import pytest

from proxy.core.call_id import CallIds
from proxy.core.example import example_call
from proxy.core.model import Kind

IDS = CallIds()
STARTED = b'{"event":"call_started","call":{"call_id":"call_a","start_timestamp":1767225600000}}'


def test_a_call_id_alone_is_a_function_call_without_a_body() -> None:
    call = example_call("call_a", None, IDS)

    assert (call.id, call.kind, call.start_ms, call.body) == ("call_a", Kind.FUNCTION, None, b"")


def test_a_body_tells_id_and_start() -> None:
    call = example_call(None, STARTED, IDS)

    assert (call.id, call.kind, call.start_ms) == ("call_a", Kind.EVENT, 1_767_225_600_000)
    assert call.body == STARTED


def test_a_call_id_beside_the_body_wins() -> None:
    assert example_call("call_b", STARTED, IDS).id == "call_b"


@pytest.mark.parametrize("placeholder", ["{{call_id}}", "unknown", ""])
def test_a_placeholder_is_no_call_id(placeholder: str) -> None:
    assert example_call(placeholder, None, IDS).id is None
    assert example_call(placeholder, STARTED, IDS).id is None


def test_a_call_of_any_kind_can_be_asked_about() -> None:
    body = b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"book"}}'

    assert example_call("call_a", body, IDS).tool == "book"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'{"secret": 1}', b"\xff"])
def test_a_body_that_is_no_request_is_refused_without_an_echo(body: bytes) -> None:
    with pytest.raises(ValueError, match="no request") as refused:
        example_call("call_a", body, IDS)
    assert "secret" not in str(refused.value)


def test_a_refusal_is_passed_on() -> None:
    body = b'{"tool":"..","arguments":{}}'
    with pytest.raises(ValueError, match="no name of a tool"):
        example_call("call_a", body, IDS)
