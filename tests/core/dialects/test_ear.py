from __future__ import annotations

import pytest

from proxy.core.dialects.ear import Ear
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
