from __future__ import annotations

import pytest

from proxy.core.exchange import Exchange
from proxy.core.exchange_headers import headers_for_arms, headers_for_caller
from proxy.core.model import Call, Head, Kind, Reason

REQUEST_ID = "0123456789abcdef0123456789abcdef"


def call(call_id: str | None = "call_7", **named: bytes) -> Call:
    fields = {name.encode(): value for name, value in named.items()}
    head = Head("POST", "/retell", "", fields, [], b"retell.example", "192.0.2.1")
    return Call(Kind.FUNCTION, head, id=call_id)


def exchange(reason: Reason | None = Reason.SHARE) -> Exchange:
    return Exchange(REQUEST_ID, 1.0, arm="mcp", reason=reason)


def test_an_arm_hears_who_called_under_one_request_id() -> None:
    told = dict(headers_for_arms(call(), exchange()))

    assert told == {
        b"x-request-id": REQUEST_ID.encode(),
        b"x-forwarded-for": b"192.0.2.1",
        b"x-forwarded-proto": b"http",
        b"x-forwarded-host": b"retell.example",
        b"x-callsplit-call-id": b"call_7",
        b"x-callsplit-hops": b"1",
        b"traceparent": b"00-0123456789abcdef0123456789abcdef-0123456789abcdef-00",
    }


def test_each_sidecar_on_the_way_counts_itself() -> None:
    told = dict(headers_for_arms(call("call_7", **{"x-callsplit-hops": b"2"}), exchange()))

    assert told[b"x-callsplit-hops"] == b"3"


def test_a_request_without_a_call_id_says_none() -> None:
    assert b"x-callsplit-call-id" not in dict(headers_for_arms(call(None), exchange()))


def test_the_bytes_of_a_call_id_are_kept() -> None:
    told = dict(headers_for_arms(call("caf\udce9"), exchange()))

    assert told[b"x-callsplit-call-id"] == b"caf\xe9"


def test_a_trace_that_runs_already_is_not_begun_anew() -> None:
    told = dict(headers_for_arms(call(traceparent=b"00-a-b-01"), exchange()))

    assert b"traceparent" not in told


def test_a_caller_hears_arm_reason_and_request_id() -> None:
    told = headers_for_caller([(b"content-type", b"text/plain")], exchange())

    assert told == [
        (b"content-type", b"text/plain"),
        (b"x-callsplit-arm", b"mcp"),
        (b"x-callsplit-reason", b"share"),
        (b"x-request-id", REQUEST_ID.encode()),
    ]


def test_an_arm_cannot_speak_in_our_name() -> None:
    forged = [(b"X-Callsplit-Arm", b"liar"), (b"x-request-id", b"x"), (b"X-Other", b"1")]

    told = headers_for_caller(forged, exchange())

    assert told[0] == (b"X-Other", b"1")
    assert [value for name, value in told if name.lower() == b"x-callsplit-arm"] == [b"mcp"]
    assert len(told) == 4


@pytest.mark.parametrize(
    "name", [b"x-callsplit-replayed", b"X-Callsplit-Age", b"x-callsplit-stale"]
)
def test_only_what_is_given_again_is_marked_so(name: bytes) -> None:
    """The cache's own marks stand in its answers already; an arm's never get through."""
    assert name.lower() not in dict(headers_for_caller([(name, b"1")], exchange()))
    if name != b"x-callsplit-replayed":
        kept = headers_for_caller([(name, b"1")], exchange(Reason.CACHED))
        assert (name, b"1") in kept


def test_a_replay_is_marked_so() -> None:
    told = headers_for_caller([], exchange(Reason.REPLAYED))

    assert (b"x-callsplit-replayed", b"true") in told


def test_a_refusal_names_no_arm() -> None:
    told = headers_for_caller([], exchange(None))

    assert told == [(b"x-request-id", REQUEST_ID.encode())]
