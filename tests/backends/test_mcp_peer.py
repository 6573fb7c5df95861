from __future__ import annotations

import asyncio
import json

import pytest

from backends.mcp_peer import Agreed, Peer, lost_session, refused_era, session_of
from proxy.core.dialects.jsonrpc import RpcError
from proxy.core.model import Era, Reply
from proxy.errors import UpstreamFailed
from tests.backends.kit import Answer, ScriptedSend, json_reply, rpc_error, rpc_result
from tests.backends.told import Told

DISCOVERED = rpc_result({"supportedVersions": ["2026-07-28"]})
NO_VERSION = rpc_error(-32600, "Bad Request: Unsupported protocol version", status=400)


def unknown_version(supported: list[str]) -> Reply:
    data = {"supported": supported, "requested": "2026-07-28"}
    error = {"code": -32022, "message": "no", "data": data}
    return json_reply({"jsonrpc": "2.0", "id": None, "error": error}, 400)


def peer() -> Peer:
    return Peer("/mcp?k=v", [(b"authorization", b"Bearer ours")])


@pytest.mark.parametrize(
    ("answer", "era", "kept"),
    [
        (DISCOVERED, Era.MODERN, True),
        (NO_VERSION, Era.LEGACY, True),
        (rpc_error(-32022, status=400), Era.LEGACY, True),
        (rpc_error(-32021, status=400), Era.MODERN, True),
        (unknown_version(["2025-11-25"]), Era.LEGACY, True),
        (unknown_version(["2026-07-28"]), Era.MODERN, True),  # once in a while, for no reason
        (rpc_result({}), Era.LEGACY, True),  # Some say so to whatever they are asked.
        (rpc_result(7), Era.LEGACY, True),
        (rpc_error(-32601, rpc_id=1), Era.LEGACY, True),
        (json_reply(b"not found", 404), Era.LEGACY, True),
        (json_reply(b"who are you", 401), Era.MODERN, False),
        (json_reply(b"", 503), Era.MODERN, False),
        (json_reply(b"", 302), Era.MODERN, False),
        (json_reply(b"", 429), Era.MODERN, False),
        (rpc_error(-32603), Era.MODERN, False),
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


@pytest.mark.parametrize(
    ("status", "session", "answer", "lost"),
    [
        (404, b"s", None, True),
        (404, b"s", RpcError(-32001, "Session not found"), True),
        (404, b"s", RpcError(-32601, "Method not found"), False),
        (404, None, None, False),
        (400, None, RpcError(-32600, "Bad Request: Missing session ID"), True),
        (400, None, RpcError(-32000, "Bad Request: Server not initialized"), True),
        (400, b"s", RpcError(-32000, "Bad Request: No valid session ID provided"), True),
        (400, b"s", RpcError(-32000, "Bad Request: Server not initialized"), False),
        (400, b"s", RpcError(-32602, "no such session"), False),
        (400, b"s", RpcError(-32022, "session"), False),
        (400, None, RpcError(-32600, "Parse error"), False),
        (400, None, None, True),
        (400, b"s", None, False),
        (500, b"s", None, False),
        (200, b"s", RpcError(-32001, "Session not found"), False),
    ],
)
def test_a_session_is_lost_only_if_the_server_says_so_before_it_runs_anything(
    status: int, session: bytes | None, answer: object, lost: bool
) -> None:
    assert lost_session(status, session, answer) is lost


def test_plain_words_may_tell_of_a_lost_session() -> None:
    assert lost_session(400, b"s", None, b"Invalid or missing session ID")


@pytest.mark.parametrize(
    ("status", "sent", "found"),
    [
        (200, b"abc-123", b"abc-123"),
        (400, b"abc-123", None),  # The SDKs put one on their refusals.
        (200, b"", None),
        (200, b"a b", None),
        (200, b"caf\xc3\xa9", None),
    ],
)
def test_a_session_is_taken_from_a_good_answer_only(
    status: int, sent: bytes, found: bytes | None
) -> None:
    assert session_of(Reply(status, [(b"Mcp-Session-Id", sent)])) == found
    assert session_of(Reply(status)) is None


def test_a_session_stands_in_the_head_of_its_requests() -> None:
    before = [(b"accept", b"x"), (b"mcp-protocol-version", b"2025-11-25")]

    assert Agreed(b"s", b"2025-03-26").among(before) == [
        (b"accept", b"x"),
        (b"mcp-protocol-version", b"2025-03-26"),
        (b"mcp-session-id", b"s"),
    ]
    assert Agreed(None).among(before) == before


@pytest.mark.parametrize("events", [True, False])
async def test_a_handshake_runs_nothing_and_says_what_was_agreed(events: bool) -> None:
    server, told = peer(), Told(Era.LEGACY, events=events, version="2025-03-26")

    agreed = await server.shake_hands(told)

    assert agreed == Agreed(b"s1", b"2025-03-26")
    assert told.asked == ["initialize", "notifications/initialized"]
    assert not any(told.dispatched)
    assert told.ready == {"s1"}
    first = dict(told.sent[0].headers)
    assert b"mcp-protocol-version" not in first
    assert first[b"authorization"] == b"Bearer ours"
    assert dict(told.sent[1].headers)[b"mcp-protocol-version"] == b"2025-03-26"
    assert server.welcome is not None
    assert server.welcome.instructions == "Ask nicely."


async def test_a_handshake_may_bring_no_session() -> None:
    assert await peer().shake_hands(Told(Era.LEGACY, sessions=False)) == Agreed(None)


async def test_an_introduction_that_cannot_be_read_is_none() -> None:
    server = peer()

    assert await server.shake_hands(ScriptedSend(rpc_result([]))) == Agreed(None)
    assert server.welcome is not None
    assert server.welcome.capabilities == {}


async def test_a_server_of_old_that_knows_no_handshake_needs_none() -> None:
    send = ScriptedSend(rpc_error(-32601))

    assert await peer().shake_hands(send) == Agreed(None)


async def test_a_modern_server_refuses_the_handshake_for_good() -> None:
    server = peer()

    with pytest.raises(UpstreamFailed) as caught:
        await server.shake_hands(Told(Era.MODERN))

    assert caught.value.why == "config"
    assert server.no_legacy
    assert server.era is Era.MODERN

    await server.shake_hands(Told(Era.LEGACY))

    assert not server.no_legacy


@pytest.mark.parametrize(
    ("status", "why"), [(429, "status"), (503, "status"), (401, "config"), (302, "config")]
)
async def test_a_handshake_that_fails_says_nothing_of_eras(status: int, why: str) -> None:
    server, send = peer(), ScriptedSend(json_reply(b"", status))

    with pytest.raises(UpstreamFailed) as caught:
        await server.shake_hands(send)

    assert caught.value.why == why
    assert send.methods == ["initialize"]
    assert not server.no_legacy


async def test_what_a_caller_said_of_itself_is_said_again_unless_it_is_refused() -> None:
    told, said = Told(Era.LEGACY), b'{"protocolVersion":"2025-06-18","capabilities":{"roots":{}}}'

    await peer().shake_hands(told, said)

    assert said in told.sent[0].body

    picky = ScriptedSend(rpc_error(-32602, status=400), rpc_result({}), Reply(202))
    await peer().shake_hands(picky, said)
    assert said in picky.sent[0].body
    assert said not in picky.sent[1].body


async def test_a_handshake_that_is_not_believed_is_none() -> None:
    send = ScriptedSend(rpc_result({}), json_reply(b"", 400))

    with pytest.raises(UpstreamFailed, match="initialized: status 400"):
        await peer().shake_hands(send)


async def test_many_who_need_the_era_ask_once() -> None:
    server, told = peer(), Told()

    eras = await asyncio.gather(*(server.current_era(told) for _ in range(20)))

    assert set(eras) == {Era.MODERN}
    assert told.asked == ["server/discover"]


async def test_no_two_requests_share_an_id() -> None:
    server, told = peer(), Told()

    await asyncio.gather(*(server.shake_hands(told) for _ in range(20)))

    ids = [json.loads(each.body).get("id") for each in told.sent]
    used = [each for each in ids if each is not None]
    assert len(used) == len(set(used)) == 20


async def test_ending_a_session_needs_no_body() -> None:
    told = Told(Era.LEGACY)
    agreed = await peer().shake_hands(told)

    await peer().end(agreed, told)

    assert told.ended == ["s1"]
    assert told.sent[-1].method == "DELETE"
    assert told.dispatched[-1] is False
