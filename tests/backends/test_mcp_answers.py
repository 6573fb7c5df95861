from __future__ import annotations

import json
from typing import Any

import pytest

from backends import mcp_answers
from backends.mcp_answers import leave, read_any_answer, read_tool_answer, told
from proxy.core.dialects.jsonrpc import RpcError, ToolResult
from proxy.core.model import Headers, Reply
from proxy.errors import UpstreamFailed
from tests.backends.kit import Stream, json_reply, rpc_error, text_result

EVENTS: Headers = [(b"content-type", b"text/event-stream; charset=utf-8")]


def event(message: object) -> bytes:
    return b"event: message\r\ndata: %b\r\n\r\n" % json.dumps(message).encode()


def result(rpc_id: object = 7, text: str = "hello") -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": rpc_id, "result": text_result(text)}


PROGRESS = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {}}


@pytest.mark.parametrize(
    "chunks",
    [
        (event(result()),),
        (b": ping\n\n", event(PROGRESS), event(result())),
        (event(result(8)), event(result()), event(result(9))),
        (b"id: 1\ndata:\n\n", event(result())),
        (b"event: other\ndata: not even json\n\n", event(result())),
        (event(result())[:20], event(result())[20:]),
    ],
)
async def test_an_event_stream_is_read_for_our_answer_and_to_its_end(
    chunks: tuple[bytes, ...],
) -> None:
    stream = Stream(*chunks)

    answer = await read_tool_answer(Reply(200, EVENTS, stream), b"7")

    assert answer == ToolResult("hello")
    assert stream.taken == len(chunks)
    assert stream.closed


async def test_an_event_stream_may_come_whole() -> None:
    reply = Reply(200, EVENTS, event(PROGRESS) + event(result()))

    assert await read_tool_answer(reply, b"7") == ToolResult("hello")


@pytest.mark.parametrize(
    "stream",
    [
        Stream(),
        Stream(event(PROGRESS)),
        Stream(event(result(8))),
        Stream(b"data: no json\n\n"),
        Stream(event(result())[:-2]),
        Stream(event(PROGRESS), failure=UpstreamFailed("reset", "cut", sent=True)),
    ],
)
async def test_a_stream_that_ends_without_our_answer_leaves_it_unknown(stream: Stream) -> None:
    with pytest.raises(UpstreamFailed) as caught:
        await read_tool_answer(Reply(200, EVENTS, stream), b"7")

    assert caught.value.sent
    assert stream.closed


@pytest.mark.parametrize(
    "stream",
    [
        Stream(event(result()), hang=True),
        Stream(event(result()), failure=UpstreamFailed("reset", "cut", sent=True)),
    ],
)
async def test_a_good_answer_stands_whatever_follows_it(
    stream: Stream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mcp_answers, "STREAM_END", 0.001)

    answer = await read_tool_answer(Reply(200, EVENTS, stream), b"7")

    assert answer == ToolResult("hello")
    assert stream.closed


@pytest.mark.parametrize("body", [b"", b"<html>", json.dumps(result(8)).encode(), b"[]"])
async def test_a_good_status_without_our_answer_leaves_it_unknown(body: bytes) -> None:
    with pytest.raises(UpstreamFailed) as caught:
        await read_tool_answer(json_reply(body), b"7")

    assert (caught.value.why, caught.value.sent) == ("body", True)


@pytest.mark.parametrize(
    ("reply", "answer"),
    [
        (json_reply(b"<html>", 502), None),
        (json_reply(result(8), 404), None),
        (rpc_error(-32601, status=404), RpcError(-32601, "no")),
        (Reply(503, EVENTS, b"data: x"), None),
    ],
)
async def test_a_bad_status_may_speak_for_itself(reply: Reply, answer: object) -> None:
    assert await read_any_answer(reply, b"7") == answer


# A stream that is taken up again.

PRIMED = b"id: e1\nretry: 500\ndata:\n\n"


class Poll:
    """What follows a stream, piece by piece; notes what it was asked for."""

    def __init__(self, *replies: Reply | UpstreamFailed) -> None:
        self._replies = list(replies)
        self.asked: list[tuple[bytes, float]] = []

    async def __call__(self, last_id: bytes, after: float, /) -> Reply:
        self.asked.append((last_id, after))
        reply = self._replies.pop(0)
        if isinstance(reply, UpstreamFailed):
            raise reply
        return reply


def stream(*chunks: bytes) -> Reply:
    return Reply(200, EVENTS, Stream(*chunks))


RESET = UpstreamFailed("reset", "cut", sent=True)
CUT = Stream(PRIMED, failure=RESET)


@pytest.mark.parametrize(
    ("first", "then", "asked"),
    [
        (stream(PRIMED), [stream(event(result()))], [(b"e1", 0.5)]),
        (stream(b"id: e1\ndata:\n\n"), [stream(event(result()))], [(b"e1", 0.1)]),
        (stream(b"id: e1\nretry: 0\ndata:\n\n"), [stream(event(result()))], [(b"e1", 0.01)]),
        (stream(PRIMED), [Reply(200, EVENTS, event(result()))], [(b"e1", 0.5)]),
        (Reply(200, EVENTS, CUT), [stream(event(result()))], [(b"e1", 0.5)]),
        (
            stream(PRIMED),
            [stream(b"id: e2\nretry: 900\n\n"), stream(), stream(event(result()))],
            [(b"e1", 0.5), (b"e2", 0.9), (b"e2", 0.9)],
        ),
        (stream(PRIMED, b"id: half"), [stream(event(result()))], [(b"e1", 0.5)]),
    ],
)
async def test_a_stream_that_its_server_has_closed_is_polled_for_the_answer(
    first: Reply, then: list[Reply | UpstreamFailed], asked: list[tuple[bytes, float]]
) -> None:
    poll = Poll(*then)

    assert await read_tool_answer(first, b"7", poll) == ToolResult("hello")
    assert poll.asked == asked


@pytest.mark.parametrize(
    ("first", "then", "why"),
    [
        (stream(b"data:\n\n"), [], "body"),
        (stream(b"id: e1\ndata:\n\nid:\ndata:\n\n"), [], "body"),
        (Reply(200, EVENTS, Stream(b"data:\n\n", failure=RESET)), [], "reset"),
        (stream(PRIMED), [Reply(405, [])], "body"),
        (stream(PRIMED), [Reply(404, EVENTS, Stream(b""))], "body"),
        (stream(PRIMED), [json_reply({"jsonrpc": "2.0"})], "body"),
        (stream(PRIMED), [UpstreamFailed("connect", "refused", sent=False)], "connect"),
        (stream(PRIMED), [UpstreamFailed("timeout", "late", sent=False)], "timeout"),
    ],
)
async def test_an_answer_that_cannot_be_had_leaves_it_unknown_whether_the_tool_ran(
    first: Reply, then: list[Reply | UpstreamFailed], why: str
) -> None:
    """The request itself was sent, whatever became of the polling."""
    poll = Poll(*then)

    with pytest.raises(UpstreamFailed) as caught:
        await read_tool_answer(first, b"7", poll)

    assert (caught.value.why, caught.value.sent, len(poll.asked)) == (why, True, len(then))


async def test_who_has_no_way_to_poll_waits_for_nothing() -> None:
    with pytest.raises(UpstreamFailed, match="without an answer"):
        await read_any_answer(stream(PRIMED), b"7")


async def test_a_stream_that_is_late_is_not_taken_up() -> None:
    """Its time is over, not its connection."""
    late, poll = UpstreamFailed("timeout", "late", sent=True), Poll()

    with pytest.raises(UpstreamFailed) as caught:
        await read_any_answer(Reply(200, EVENTS, Stream(PRIMED, failure=late)), b"7", poll)

    assert caught.value is late


async def test_an_answer_that_nobody_reads_is_given_back() -> None:
    stream = Stream(b"x")

    await leave(Reply(200, [], stream))
    await leave(Reply(200, [], b"whole"))

    assert stream.closed


def test_nothing_that_a_server_wrote_is_told() -> None:
    assert told("tools/list", Reply(503), None) == "tools/list: status 503"
    assert told("x", Reply(200), RpcError(-32603, "secret")) == "x: status 200, error -32603"
