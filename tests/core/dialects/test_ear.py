from __future__ import annotations

import pytest

from proxy.core.dialects.ear import Answered, Ear
from proxy.core.dialects.sse import EVENT_LIMIT
from proxy.core.model import Ran
from proxy.core.verdict import BUSINESS_NO, FAILED_BODY, SUCCESS

PROGRESS = b'data: {"jsonrpc":"2.0","method":"notifications/progress","params":{}}\n\n'
BOOKED = b'{"jsonrpc":"2.0","id":7,"result":{"content":[{"type":"text","text":"Booked"}]}}'
TAKEN = b'{"jsonrpc":"2.0","id":7,"result":{"content":[],"isError":true}}'
BROKE = b'{"jsonrpc":"2.0","id":7,"error":{"code":-32603,"message":"no"}}'
ASKS = b'{"jsonrpc":"2.0","id":7,"result":{"resultType":"input_required","content":[]}}'


def event(message: bytes, name: bytes = b"message") -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name, message)


@pytest.mark.parametrize(
    ("message", "verdict"),
    [(BOOKED, SUCCESS), (TAKEN, BUSINESS_NO), (BROKE, FAILED_BODY), (ASKS, SUCCESS)],
)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_the_answer_is_heard_wherever_the_stream_is_cut(
    message: bytes, verdict: object, size: int
) -> None:
    stream, ear = b": hello\n\ndata:\n\n" + PROGRESS + event(message), Ear(b"7")
    heard = [ear.feed(stream[at : at + size]) for at in range(0, len(stream), size)]

    assert (ear.message, ear.verdict) == (message, verdict)
    assert heard == [False] * (len(heard) - 1) + [True]


@pytest.mark.parametrize(
    "stream",
    [
        PROGRESS,
        event(BOOKED.replace(b"7", b"8")),
        event(BOOKED, b"other"),
        event(BOOKED).strip(),
        event(b"no JSON"),
        b"",
    ],
)
def test_what_is_no_answer_tells_nothing(stream: bytes) -> None:
    ear = Ear(b"7")

    assert not ear.feed(stream)
    assert (ear.message, ear.verdict.ran) == (None, Ran.UNKNOWN)


def test_the_first_answer_counts() -> None:
    ear = Ear(b"7")

    assert ear.feed(event(TAKEN) + event(BOOKED))
    assert ear.feed(event(BOOKED))
    assert ear.message == TAKEN


def test_an_event_that_is_too_large_is_listened_to_no_longer() -> None:
    ear = Ear(b"7")

    assert ear.feed(b"data: " + b"x" * (5 * 2**20))
    assert (ear.message, ear.verdict.ran) == (None, Ran.UNKNOWN)


RESULT = b'data: {"jsonrpc":"2.0","id":7,"result":{}}\n\n'


@pytest.mark.parametrize(
    ("event", "yes"),
    [
        (RESULT, True),
        (RESULT.replace(b"7", b'"7"'), True),
        (RESULT.replace(b"7", b"8"), False),
        (b'data: {"jsonrpc":"2.0","id":null,"error":{"code":-32603,"message":""}}\n\n', True),
        (b"event: other\n" + RESULT, False),
        (b"data: no JSON\n\n", False),
        (b"data:\n\n", False),
    ],
)
def test_whether_any_request_has_its_answer_is_heard_of_the_message(
    event: bytes, yes: bool
) -> None:
    answered = Answered(b"7")

    assert answered.feed(event)
    assert answered.yes is yes
    assert answered.feed(RESULT)
    assert answered.yes
    assert not answered.feed(b": half a comment")


def test_what_is_too_large_to_be_heard_counts_as_the_answer() -> None:
    answered = Answered(b"7")
    answered.feed(b"data: " + b"x" * EVENT_LIMIT)

    assert answered.lost
    assert answered.yes
    assert answered.feed(b"more")


def test_a_stream_whose_events_have_ids_can_be_taken_up_again() -> None:
    answered = Answered(b"7")
    answered.feed(b"id:\ndata:\n\n")
    assert not answered.numbered

    answered.feed(b"id: 3\ndata:\n\n")
    assert answered.numbered


@pytest.mark.parametrize(
    ("message", "asks"),
    [
        (b'{"jsonrpc":"2.0","id":1,"method":"elicitation/create","params":{}}', True),
        (b'{"jsonrpc":"2.0","method":"notifications/progress","params":{}}', False),
        (b'{"jsonrpc":"2.0","id":8,"result":{}}', False),
    ],
)
def test_a_server_that_asks_its_client_is_waited_for(message: bytes, asks: bool) -> None:
    answered = Answered(b"7")
    answered.feed(event(message))
    assert answered.asks is asks

    answered.feed(event(b'{"jsonrpc":"2.0","id":7,"result":{}}'))
    assert not answered.asks


def test_an_answer_under_a_strange_id_is_told_under_that_of_the_request() -> None:
    answered = Answered(b"7")
    answered.feed(event(b'{"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"no"}}'))

    assert b'"id":7' in answered.mended
    answered.feed(event(b"{}"))
    assert answered.mended == b""


def test_whether_a_tools_stream_can_be_taken_up_again_is_heard() -> None:
    ear = Ear(b"7")
    ear.feed(b"id: 1\ndata:\n\n")

    assert ear.numbered
