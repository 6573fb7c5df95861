from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.dialects import sse
from proxy.core.mcp.batch import (
    MAX_MESSAGES,
    Message,
    answer_among,
    answer_in,
    join_batch,
    no_answer,
    split_batch,
)
from proxy.errors import Refused

PING = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
NOTE = b'{"jsonrpc": "2.0", "method": "notifications/x"}'
ANSWER = b'{"jsonrpc":"2.0","id":9,"result":{"a":1}}'


def refused(body: bytes) -> Refused:
    with pytest.raises(Refused) as caught:
        split_batch(body)
    assert caught.value.status == 400
    assert caught.value.rpc_id == b""
    return caught.value


def test_messages_keep_their_order_and_their_bytes() -> None:
    body = b" [ %b ,\n%b,%b ] " % (PING, NOTE, ANSWER)

    assert split_batch(body) == [Message(PING, b"1"), Message(NOTE, None), Message(ANSWER, None)]


def test_half_an_emoji_costs_nobody_his_batch() -> None:
    body = b'[{"jsonrpc":"2.0","id":"a","method":"x","params":{"t":"\\ud83d"}}]'

    (message,) = split_batch(body)

    assert message.rpc_id == b'"a"'
    assert json.loads(message.body)["params"] == {"t": "\ufffd"}


@pytest.mark.parametrize(
    "element",
    [
        b"1",
        b"null",
        b"[]",
        b"{}",
        b'"ping"',
        b"[%b]" % PING,
        PING.replace(b"2.0", b"1.0"),
        PING.replace(b":1,", b":null,"),
        PING.replace(b":1,", b":{},"),
        PING.replace(b'"ping"', b"5"),
        b'{"jsonrpc":"2.0","id":1}',
        b'{"jsonrpc":"2.0","result":{}}',
        b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{}}',
        b'{"jsonrpc":"2.0","method":"initialize"}',
        b'{"jsonrpc":"2.0","id":1,"method":"ping","x":"\xff"}',
    ],
)
@pytest.mark.parametrize("shape", [b"[%b]", b"[" + PING + b",%b]", b"[%b," + NOTE + b"]"])
def test_what_is_no_message_spoils_the_batch_before_any_of_it_runs(
    element: bytes, shape: bytes
) -> None:
    fault = refused(shape % element)

    assert (fault.code, fault.rpc_code) == ("rpc_batch", -32600)


@pytest.mark.parametrize("count", [0, MAX_MESSAGES + 1, 5000])
def test_a_batch_is_neither_empty_nor_endless(count: int) -> None:
    assert refused(b"[%b]" % b",".join([PING] * count)).rpc_code == -32600
    assert len(split_batch(b"[%b]" % b",".join([PING] * MAX_MESSAGES))) == MAX_MESSAGES


@pytest.mark.parametrize("body", [b"[", b"[1,]", b"{}", b"", b"[" * 100_000, b"[\xff]"])
def test_what_is_no_array_is_malformed(body: bytes) -> None:
    assert refused(body).rpc_code == -32700


RESULT = b'{"jsonrpc":"2.0","id":"a","result":{"x":1.50}}'


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (RESULT, RESULT),
        (b" " + RESULT + b"\n", RESULT),
        (RESULT.replace(b'"a"', b'"b"'), None),
        (b'{"jsonrpc":"2.0","method":"notifications/progress"}', None),
        (b'{"jsonrpc":"2.0","id":"a","method":"sampling/createMessage"}', None),
        (b'{"jsonrpc":"2.0","id":"a","result":{"x":"\xff"}}', None),
        (b"oops", None),
        (b"", None),
    ],
)
def test_an_answer_is_known_by_its_id(text: bytes, answer: bytes | None) -> None:
    assert answer_in(text, b'"a"') == answer


@pytest.mark.parametrize("rpc_id", [b"", b'"id":null,', b'"id":"server-error",', b'"id":"a",'])
def test_an_error_always_gets_the_id_of_its_request(rpc_id: bytes) -> None:
    """Servers refuse with null, or an ID of their own making."""
    text = b'{"jsonrpc":"2.0",%b"error":{"code":-32602,"message":"no","data":[1]}}' % rpc_id

    answer = answer_in(text, b'"a"')

    assert answer is not None
    error = {"code": -32602, "message": "no", "data": [1]}
    assert json.loads(answer) == {"jsonrpc": "2.0", "id": "a", "error": error}


def test_of_a_stream_only_the_answer_counts() -> None:
    stream = (
        b": ping\n\nevent: other\ndata: "
        + RESULT
        + b'\n\ndata: {"jsonrpc":"2.0","method":"notifications/x"}\n\n'
    )
    parser = sse.Parser()

    assert answer_among(parser.feed(stream), b'"a"') is None
    assert answer_among(parser.feed(sse.render(RESULT)), b'"a"') == RESULT


def test_who_never_answered_is_answered_for() -> None:
    assert json.loads(no_answer(b"7", "Nothing.")) == {
        "jsonrpc": "2.0",
        "id": 7,
        "error": {"code": -32603, "message": "Nothing."},
    }


IDS = st.integers() | st.text(max_size=8)
MESSAGES: st.SearchStrategy[dict[str, Any]] = st.one_of(
    st.fixed_dictionaries({"jsonrpc": st.just("2.0"), "id": IDS, "method": st.just("ping")}),
    st.fixed_dictionaries({"jsonrpc": st.just("2.0"), "method": st.just("notifications/x")}),
    st.fixed_dictionaries({"jsonrpc": st.just("2.0"), "id": IDS, "result": st.just({})}),
)


@given(st.lists(MESSAGES, min_size=1, max_size=MAX_MESSAGES))
def test_what_is_split_can_be_joined_again(messages: list[dict[str, Any]]) -> None:
    parts = split_batch(json.dumps(messages).encode())

    assert json.loads(join_batch(part.body for part in parts)) == messages
    for part, message in zip(parts, messages, strict=True):
        wants = "method" in message and "id" in message
        assert (part.rpc_id is not None) is wants
        if part.rpc_id is not None:
            assert json.loads(part.rpc_id) == message["id"]


@given(st.binary(max_size=60) | st.binary(max_size=40).map(lambda body: b"[" + body + b"]"))
def test_any_bytes_are_split_or_refused(body: bytes) -> None:
    try:
        parts = split_batch(body)
    except Refused:
        return
    assert parts
