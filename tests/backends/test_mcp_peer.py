from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from backends import mcp_peer
from backends.mcp_peer import PAGES, Peer, read_any_answer, read_tool_answer, refused_era
from proxy.core.dialects import jsonrpc
from proxy.core.dialects.jsonrpc import RpcError, ToolResult
from proxy.core.model import Era, Headers, Outbound, Reply
from proxy.errors import ProbeFailed, UpstreamFailed
from tests.backends.kit import (
    Answer,
    ScriptedSend,
    Stream,
    json_reply,
    rpc_error,
    rpc_result,
    text_result,
)

EVENTS: Headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
DISCOVERED = rpc_result({"supportedVersions": ["2026-07-28"]})
LISTED = rpc_result({"tools": [{"name": "book"}]})
NO_VERSION = rpc_error(-32600, "Bad Request: Unsupported protocol version", status=400)


def peer() -> Peer:
    return Peer("/mcp?k=v", [(b"authorization", b"Bearer ours")])


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
    monkeypatch.setattr(mcp_peer, "STREAM_END", 0.001)

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


@pytest.mark.parametrize(
    ("answer", "era", "kept"),
    [
        (DISCOVERED, Era.MODERN, True),
        (NO_VERSION, Era.LEGACY, True),
        (rpc_error(-32022, status=400), Era.LEGACY, True),
        (rpc_error(-32021, status=400), Era.MODERN, True),
        (rpc_error(-32601, rpc_id=1), Era.LEGACY, True),
        (json_reply(b"not found", 404), Era.LEGACY, True),
        (json_reply(b"who are you", 401), Era.MODERN, False),
        (json_reply(b"", 503), Era.MODERN, False),
        (json_reply(b"", 302), Era.MODERN, False),
        (json_reply(b"", 429), Era.MODERN, False),
    ],
)
async def test_the_era_is_learned_by_a_question_that_runs_nothing(
    answer: Answer, era: Era, kept: bool
) -> None:
    server, send = peer(), ScriptedSend(answer)

    assert await server.current_era(send) is era
    assert server.era is (era if kept else None)
    assert send.methods == ["server/discover"]
    assert send.dispatched == [False]
    assert send.headers["authorization"] == "Bearer ours"
    assert send.sent[0].target == "/mcp?k=v"


async def test_a_known_era_is_not_asked_for_again() -> None:
    server, send = peer(), ScriptedSend(DISCOVERED)

    await server.current_era(send)
    await server.current_era(send)

    assert len(send.sent) == 1


async def test_an_era_once_known_outlives_a_question_without_answer() -> None:
    server = peer()
    await server.learn_era(ScriptedSend(NO_VERSION))

    assert await server.learn_era(ScriptedSend(json_reply(b"", 503))) is Era.LEGACY


@pytest.mark.parametrize(
    ("status", "answer", "era", "refused"),
    [
        (200, RpcError(-32600, ""), Era.MODERN, False),
        (400, None, Era.MODERN, True),
        (404, None, Era.LEGACY, True),
        (400, RpcError(-32600, ""), Era.MODERN, True),
        (400, RpcError(-32022, ""), Era.LEGACY, True),
        (400, RpcError(-32020, ""), Era.MODERN, False),
        (400, RpcError(-32020, ""), Era.LEGACY, True),
        (400, RpcError(-32602, ""), Era.MODERN, False),
        (400, RpcError(-32602, ""), Era.LEGACY, True),
        (400, RpcError(-32000, ""), Era.MODERN, False),
        (401, None, Era.MODERN, False),
        (429, None, Era.MODERN, False),
        (503, None, Era.MODERN, False),
    ],
)
def test_only_what_another_era_could_mend_counts_as_refused_for_its_era(
    status: int, answer: object, era: Era, refused: bool
) -> None:
    assert refused_era(status, answer, era) is refused


def paged(outbound: Outbound) -> Reply:
    params = json.loads(outbound.body)["params"]
    pages = {None: ("a", ""), "": ("b", "last"), "last": ("c", None)}
    name, cursor = pages[params.get("cursor")]
    more = {} if cursor is None else {"nextCursor": cursor}
    return rpc_result({"tools": [{"name": name}], **more})(outbound)


@pytest.mark.parametrize("era", Era)
async def test_a_catalogue_is_followed_to_its_end(era: Era) -> None:
    server, send = peer(), ScriptedSend(paged)

    await server.list_tools(era, send)

    assert server.tools is not None
    assert set(server.tools) == {"a", "b", "c"}
    assert send.dispatched == [False] * 3


async def test_a_catalogue_that_goes_in_a_circle_is_left() -> None:
    server = peer()
    send = ScriptedSend(rpc_result({"tools": [{"name": "a"}], "nextCursor": "again"}))

    await server.list_tools(Era.MODERN, send)

    assert len(send.sent) == PAGES
    assert server.tools is not None


@pytest.mark.parametrize(
    "answer", [rpc_error(-32601), json_reply(b"", 500), rpc_result({"no": "tools"})]
)
async def test_a_catalogue_that_is_refused_leaves_the_old_one(answer: Answer) -> None:
    server = peer()
    await server.list_tools(Era.MODERN, ScriptedSend(LISTED))

    with pytest.raises(ProbeFailed):
        await server.list_tools(Era.MODERN, ScriptedSend(answer))

    assert server.tools is not None
    assert set(server.tools) == {"book"}


def modern_only(outbound: Outbound) -> Reply:
    if dict(outbound.headers)[b"mcp-protocol-version"] != b"2026-07-28":
        return rpc_error(-32022, status=400)
    return both(outbound)


def legacy_only(outbound: Outbound) -> Reply:
    if dict(outbound.headers)[b"mcp-protocol-version"] != b"2025-11-25":
        return NO_VERSION
    return both(outbound)


def both(outbound: Outbound) -> Reply:
    discovers = json.loads(outbound.body)["method"] == "server/discover"
    return (DISCOVERED if discovers else LISTED)(outbound)


@pytest.mark.parametrize(
    ("server", "listing", "asked"),
    [
        (modern_only, False, ["server/discover"] * 2),
        (modern_only, True, ["server/discover", "tools/list"]),
        (legacy_only, False, ["server/discover", "tools/list"]),
        (legacy_only, True, ["server/discover", "tools/list"]),
    ],
)
async def test_a_check_asks_what_the_era_has(
    server: Callable[[Outbound], Reply], listing: bool, asked: list[str]
) -> None:
    one, send = peer(), ScriptedSend(server)

    await one.check(send, listing=listing)

    assert send.methods == asked
    assert not any(send.dispatched)


@pytest.mark.parametrize("listing", [True, False])
@pytest.mark.parametrize(
    ("before", "after", "era"),
    [(modern_only, legacy_only, Era.LEGACY), (legacy_only, modern_only, Era.MODERN)],
)
async def test_a_check_survives_a_change_of_era(
    before: Callable[[Outbound], Reply],
    after: Callable[[Outbound], Reply],
    era: Era,
    listing: bool,
) -> None:
    server = peer()
    await server.check(ScriptedSend(before), listing=listing)

    await server.check(ScriptedSend(after), listing=listing)

    assert server.era is era


@pytest.mark.parametrize("listing", [True, False])
@pytest.mark.parametrize("status", [400, 401, 404, 503])
async def test_a_check_fails_where_every_question_is_refused(status: int, listing: bool) -> None:
    with pytest.raises(ProbeFailed, match=str(status)):
        await peer().check(ScriptedSend(json_reply(b"", status)), listing=listing)


async def test_requests_of_equal_callers_never_share_an_id() -> None:
    server, send = peer(), ScriptedSend(rpc_result(text_result("ok")))
    request = jsonrpc.tools_call(Era.MODERN, "book")

    asked = [
        server.call_tool(request, b"{}", target="/mcp", headers=request.headers, send=send)
        for _ in range(20)
    ]
    answers = await asyncio.gather(*asked)

    assert [answer for _, answer in answers] == [ToolResult("ok")] * 20
    assert len({json.loads(outbound.body)["id"] for outbound in send.sent}) == 20
    assert all(send.dispatched)
