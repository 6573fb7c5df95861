"""What has run does not run again: retries, repeats, late answers, over real sockets."""

from __future__ import annotations

import asyncio
import json
import signal
from typing import Any

import pytest

from tests.functional.conftest import World
from tests.functional.kit import BOOK, PENDING, SAY, SLOTS, Sidecar, event, function, tools_call
from tests.functional.wire import (
    Answer,
    Peer,
    Seen,
    answers,
    dies,
    freezes,
    in_turn,
    mcp,
    request,
    runs,
    text,
    until,
    waits,
)

CANCEL = "cancel_appointment"
FROM_MCP = b'{"from":"mcp"}'
NO = b'{"success":false,"message":"That slot is taken."}'
BRIEF = {"budget": {"function": "700ms", "mcp": "700ms"}}
PATIENT = {BOOK: {"linger": "10s"}, CANCEL: {"effect": "write"}}


def transcript(*ids: str, tool: str = BOOK) -> list[dict[str, Any]]:
    """The calls of one tool as Retell lists them."""
    return [
        {"role": "tool_call_invocation", "tool_call_id": one, "name": tool, "arguments": "{}"}
        for one in ids
    ]


async def book(sidecar: Sidecar, *ids: str, call_id: str = "call_a", **args: Any) -> Answer:
    """A booking, which is the last one of `ids` in its call's transcript."""
    body = function(BOOK, call_id, args, transcript_with_tool_calls=transcript(*ids))
    return await sidecar.post("/retell", body)


def replayed(answer: Answer) -> bool:
    return answer.value(b"x-callsplit-replayed") == b"true"


def spoken(answer: Answer) -> str:
    assert (answer.status, answer.json["success"]) == (200, False)
    return str(answer.json["message"])


@pytest.mark.parametrize("percent", [0, 100])
async def test_a_retry_of_retells_hears_the_first_answer(world: World, percent: int) -> None:
    sidecar = await world.sidecar(split={"percent": percent})
    body = function(BOOK, args={"at": "10:00"})

    first, second = [await sidecar.post("/retell", body) for _ in range(2)]

    assert first.body == second.body
    assert (replayed(first), replayed(second)) == (False, True)
    assert (first.reason, second.reason) == ("share", "replayed")
    assert (first.arm in ("mcp", "webhook"), second.arm) == (True, "none")
    assert len(world.mcp.tools) + len(world.webhook.seen) == 1
    assert (await sidecar.metrics()).total("replays_total") == 1


async def test_twins_in_flight_wait_for_the_first(world: World) -> None:
    go = asyncio.Event()
    world.mcp.play = mcp(waits(go, runs(text('{"from":"mcp"}'))))
    sidecar = await world.sidecar()
    asking = [asyncio.ensure_future(sidecar.call(BOOK, at="10:00")) for _ in range(20)]
    await until(lambda: sidecar.app.handler.inflight == 20, "all of them are here")
    await until(lambda: world.mcp.tools, "the first is at work")

    go.set()
    got = await asyncio.gather(*asking)

    assert {answer.body for answer in got} == {FROM_MCP}
    assert sum(map(replayed, got)) == 19
    assert len(world.mcp.tools) == 1


async def test_other_arguments_are_another_write(world: World) -> None:
    sidecar = await world.sidecar()

    got = [await sidecar.call(BOOK, at=at) for at in ("10:00", "11:00", 10, "10", 10.0)]

    assert not any(map(replayed, got))
    assert len(world.mcp.tools) == 5


async def test_without_a_call_id_nothing_is_guarded(world: World) -> None:
    sidecar = await world.sidecar()

    got = [await sidecar.call(BOOK, None) for _ in range(2)]

    assert not any(map(replayed, got))
    assert len(world.webhook.seen) == 2


async def test_a_read_is_asked_every_time(world: World) -> None:
    sidecar = await world.sidecar()

    got = [await sidecar.call(SLOTS) for _ in range(2)]

    assert not any(map(replayed, got))
    assert len(world.mcp.tools) == 2


async def test_book_cancel_book_books_twice(world: World) -> None:
    sidecar = await world.sidecar(tools=PATIENT)

    first = await book(sidecar, "t1", at="10:00")
    await sidecar.call(CANCEL, id=1)
    again = await book(sidecar, "t1", "t3", at="10:00")
    retry = await book(sidecar, "t1", "t3", at="10:00")

    assert [replayed(answer) for answer in (first, again, retry)] == [False, False, True]
    assert len(world.mcp.tools) == 3


async def test_an_agent_that_repeats_itself_hears_what_it_has_booked(world: World) -> None:
    """Another tool call of the agent's, same words, nothing in between."""
    sidecar = await world.sidecar()

    first, second = await book(sidecar, "t1"), await book(sidecar, "t1", "t2")

    assert (first.body, replayed(second)) == (second.body, True)
    assert len(world.mcp.tools) == 1


async def test_a_business_no_is_asked_anew_by_another_tool_call_only(world: World) -> None:
    world.webhook.play = answers(NO)
    sidecar = await world.sidecar(split={"percent": 0})

    first = await book(sidecar, "t1")
    retry = await book(sidecar, "t1")
    anew = await book(sidecar, "t1", "t2")

    assert [replayed(answer) for answer in (first, retry, anew)] == [False, True, False]
    assert {answer.body for answer in (first, retry, anew)} == {NO}
    assert len(world.webhook.seen) == 2


async def test_a_late_answer_is_what_the_next_try_hears(world: World) -> None:
    """The write times out, its caller hears so; its answer comes, and the agent asks again."""
    go = asyncio.Event()
    world.mcp.play = mcp(waits(go, runs(text('{"from":"mcp"}'))))
    sidecar = await world.sidecar(fallback=BRIEF, tools=PATIENT)

    first = await sidecar.call(BOOK, at="10:00")
    waiting = await sidecar.call(BOOK, at="10:00")
    go.set()
    await sidecar.settled()
    told = await sidecar.call(BOOK, at="10:00")

    assert (spoken(first), spoken(waiting)) == (PENDING, PENDING)
    assert (told.body, told.reason, replayed(told)) == (FROM_MCP, "replayed", True)
    assert (len(world.mcp.tools), len(world.webhook.seen)) == (1, 0)
    assert (await sidecar.breaker())["failures"] == 1


async def test_a_repeat_is_told_the_moment_the_late_answer_comes(world: World) -> None:
    go = asyncio.Event()
    world.mcp.play = mcp(waits(go, runs(text('{"from":"mcp"}'))))
    sidecar = await world.sidecar(
        fallback=BRIEF, tools={BOOK: {"linger": "10s", "budget": "15s"}},
        backends={"mcp": {"timeout": "300ms"}},
    )  # fmt: skip
    assert spoken(await sidecar.call(BOOK)) == PENDING
    repeat = asyncio.ensure_future(sidecar.call(BOOK))
    await until(lambda: sidecar.app.handler.inflight == 1, "the repeat waits")

    go.set()

    assert (await repeat).body == FROM_MCP
    assert len(world.mcp.tools) == 1


async def test_a_late_answer_comes_also_as_a_stream_of_events(world: World) -> None:
    go = asyncio.Event()

    async def streams(peer: Peer, seen: Seen) -> bool:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
        await peer.send(head + b": wait\n\n")
        await go.wait()
        message = {"jsonrpc": "2.0", "id": seen.json["id"], "result": text('{"from":"mcp"}')}
        await peer.send(b"data: %b\n\n" % json.dumps(message).encode())
        return False

    world.mcp.play = mcp(streams)
    sidecar = await world.sidecar(fallback=BRIEF, tools=PATIENT)

    first = await sidecar.call(BOOK)
    go.set()
    await sidecar.settled()
    told = await sidecar.call(BOOK)

    assert (spoken(first), told.body) == (PENDING, FROM_MCP)
    assert len(world.mcp.tools) == 1


async def test_a_late_business_no_lets_the_agent_try_again(world: World) -> None:
    go = asyncio.Event()
    world.webhook.play = waits(go, answers(NO))
    sidecar = await world.sidecar(
        split={"percent": 0}, tools=PATIENT, backends={"webhook": {"timeout": "300ms"}}
    )
    first = await book(sidecar, "t1")
    go.set()
    await sidecar.settled()

    retry, anew = await book(sidecar, "t1"), await book(sidecar, "t1", "t2")

    assert spoken(first) == PENDING
    assert (retry.body, anew.body) == (NO, NO)
    assert (replayed(retry), replayed(anew)) == (True, False)
    assert len(world.webhook.seen) == 2


async def test_an_unknown_outcome_is_never_run_again(world: World) -> None:
    world.mcp.play = mcp(dies)
    sidecar = await world.sidecar(fallback=BRIEF)

    got = [await book(sidecar, *ids) for ids in (["t1"], ["t1"], ["t1", "t2"])]

    assert [spoken(answer) for answer in got] == [PENDING] * 3
    assert (len(world.mcp.tools), len(world.webhook.seen)) == (1, 0)


async def test_an_unknown_outcome_does_not_go_to_the_other_arm_either(world: World) -> None:
    """Not even when the arm that may have run it is gone for good."""
    world.mcp.play = mcp(dies)
    sidecar = await world.sidecar(fallback=BRIEF)
    await book(sidecar, "t1")
    await world.mcp.refuse()

    again = await book(sidecar, "t1", "t2")

    assert spoken(again) == PENDING
    assert (len(world.mcp.tools), len(world.webhook.seen)) == (1, 0)


async def test_what_did_not_run_may_be_tried_again(world: World) -> None:
    await world.mcp.refuse()
    await world.webhook.refuse()
    sidecar = await world.sidecar()
    assert spoken(await sidecar.call(BOOK)) == SAY

    await world.webhook.listen()

    assert (await sidecar.call(BOOK)).body == b'{"from":"webhook"}'
    assert len(world.webhook.seen) == 1


async def test_every_run_of_a_write_has_a_key_of_its_own(world: World) -> None:
    """Upstreams that know Idempotency-Key see one for all tries of a run, and a new one after."""
    world.webhook.play = answers(NO)
    world.mcp.play = mcp(answers(b"", status=b"403 E"))
    sidecar = await world.sidecar()

    await book(sidecar, "t1")
    await book(sidecar, "t1", "t2")
    await sidecar.call(SLOTS)

    keys = [seen.value(b"idempotency-key") for seen in world.webhook.seen]
    asked = [seen.value(b"idempotency-key") for seen in world.mcp.tools]
    assert keys[0]
    assert keys[1]
    assert keys[0] != keys[1]
    assert asked == keys
    assert len(asked) == 3
    assert asked[2] is None


async def test_an_answer_too_large_to_keep_is_told_as_done(world: World) -> None:
    world.webhook.play = answers(b'{"big":"' + b"x" * 200_000 + b'"}')
    sidecar = await world.sidecar(split={"percent": 0}, tools={BOOK: {"say_done": "Done."}})

    first, second = await sidecar.call(BOOK), await sidecar.call(BOOK)

    assert len(first.body) > 200_000
    assert second.json == {"success": True, "message": "Done."}
    assert len(world.webhook.seen) == 1


async def test_a_repeat_in_another_language_hears_the_answer_in_its_own(world: World) -> None:
    sidecar = await world.sidecar(auth={"require": {"mcp": "none"}})
    await sidecar.call(BOOK, at="10:00")

    accept = b"Accept: application/json, text/event-stream"
    fields = (accept, b"Content-Type: application/json", b"MCP-Protocol-Version: 2025-11-25")
    answer = await sidecar.post(
        "/mcp/call_a", tools_call(BOOK, {"at": "10:00"}, rpc_id="mine"), *fields
    )

    assert answer.json["id"] == "mine"
    assert answer.json["result"]["content"][0]["text"] == FROM_MCP.decode()
    assert replayed(answer)
    assert len(world.mcp.tools) == 1


async def test_an_event_that_was_taken_is_not_delivered_again(world: World) -> None:
    sidecar = await world.sidecar()

    first, second = [await sidecar.post("/retell", event("call_ended")) for _ in range(2)]
    other = await sidecar.post("/retell", event("call_analyzed"))

    assert [answer.status for answer in (first, second, other)] == [200, 204, 200]
    assert [replayed(answer) for answer in (first, second, other)] == [False, True, False]
    assert len(world.webhook.seen) == 2


async def test_an_event_that_nobody_took_is_delivered_again(world: World) -> None:
    world.webhook.play = in_turn(answers(b"", status=b"500 E"), answers(b"{}"))
    sidecar = await world.sidecar()

    first, second = [await sidecar.post("/retell", event("call_ended")) for _ in range(2)]

    assert (first.status, second.status) == (503, 200)
    assert len(world.webhook.seen) == 2


async def test_transcript_updates_are_delivered_each(world: World) -> None:
    sidecar = await world.sidecar()

    for _ in range(2):
        await sidecar.post("/retell", event("transcript_updated"))

    assert len(world.webhook.seen) == 2


async def test_events_in_flight_join_the_first(world: World) -> None:
    go = asyncio.Event()
    world.webhook.play = waits(go, answers(b"{}"))
    sidecar = await world.sidecar()
    asking = [asyncio.ensure_future(sidecar.post("/retell", event())) for _ in range(5)]
    await until(lambda: sidecar.app.handler.inflight == 5, "all of them are here")

    go.set()
    got = await asyncio.gather(*asking)

    assert sorted(answer.status for answer in got) == [200, 204, 204, 204, 204]
    assert len(world.webhook.seen) == 1


async def test_a_caller_that_hangs_up_settles_the_record_all_the_same(world: World) -> None:
    go = asyncio.Event()
    world.mcp.play = mcp(waits(go, runs(text('{"from":"mcp"}'))))
    sidecar = await world.sidecar()
    client = await sidecar.connect()
    await client.send(request("POST", "/retell", function(BOOK)))
    await until(lambda: world.mcp.tools, "the arm is at work")
    client.abort()
    go.set()
    await sidecar.settled()

    answer = await sidecar.call(BOOK)

    assert (answer.body, replayed(answer)) == (FROM_MCP, True)
    assert len(world.mcp.tools) == 1


async def test_a_graceful_restart_forgets_nothing(world: World) -> None:
    process = world.process()
    await process.start(world.rules(state_dir=str(world.folder / "state")))
    await process.up()
    first = await process.call(BOOK)
    process.signal(signal.SIGTERM)
    assert await process.code() == 0

    await process.hang_up()
    await process.launch()
    await process.up()
    second = await process.call(BOOK)

    assert (first.body, replayed(second)) == (second.body, True)
    assert len(world.mcp.tools) == 1


async def test_a_write_without_an_answer_keeps_its_record_over_a_restart(world: World) -> None:
    """The old process waits for the answer up to its grace, and then tells the new one: unknown."""
    world.mcp.play = mcp(freezes)
    process = world.process()
    document = world.rules(
        fallback=BRIEF, tools=PATIENT, state_dir=str(world.folder / "state"),
        listen={"drain_grace": "300ms"},
    )  # fmt: skip
    await process.start(document)
    await process.up()
    assert spoken(await process.call(BOOK)) == PENDING
    process.signal(signal.SIGTERM)
    assert await process.code() == 0

    await process.hang_up()
    await process.launch()
    await process.up()

    assert spoken(await process.call(BOOK)) == PENDING
    assert (len(world.mcp.tools), len(world.webhook.seen)) == (1, 0)
