"""The replay guard on the path: who runs, who waits, who hears what has run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import orjson
import pytest

from proxy.core.auth import AuthPolicy, Credentials
from proxy.core.model import Reply
from proxy.core.replay import ReplayGuard
from tests.fakes import FakeIncoming
from tests.path_kit import (
    BOOK,
    DIED,
    EVENT,
    GOOD,
    REFUSED,
    SLOTS,
    Network,
    World,
    header,
    read,
    said,
    until,
)

NO = (200, b'{"success":false,"message":"taken"}')


def replayed(reply: Reply) -> bool:
    return header(reply, b"x-callsplit-replayed") == [b"true"]


class Gate:
    """An answer that comes when it is let."""

    def __init__(self, answer: tuple[int, bytes] = GOOD) -> None:
        self.open = asyncio.Event()
        self.answer = answer

    async def __call__(self) -> tuple[int, bytes]:
        await self.open.wait()
        return self.answer


class Lingering(Network):
    """An upstream that is late at once, asks whether anybody waits on, and answers when let."""

    def __init__(self, gate: Gate) -> None:
        super().__init__(gate)
        self.waits_on: list[bool] = []
        self.leaves: FakeIncoming | None = None  # a caller who hangs up meanwhile

    async def send(self, *given: Any, late: Any = None, **more: Any) -> Reply:
        if self.leaves is not None:
            self.leaves.gone = True
        if late is not None and not self.waits_on:
            self.waits_on.append(late())
        return await super().send(*given, **more)


def pending(world: World) -> str:
    return world.line.tools.get("book").say_pending.plain


async def test_a_repeat_hears_the_first_answer() -> None:
    world = World()
    first, second = [await world.ask(BOOK) for _ in range(2)]

    assert world.deliveries == (1, 0)
    assert (first.body, replayed(first), replayed(second)) == (second.body, False, True)
    assert header(second, b"x-callsplit-reason") == [b"replayed"]
    assert ("replayed", "write") in world.watch.told


@pytest.mark.parametrize("body", [SLOTS, BOOK | {"call": {}}], ids=["a read", "no call ID"])
async def test_what_is_not_guarded_is_asked_each_time(body: dict[str, Any]) -> None:
    world = World()
    for _ in range(2):
        assert not replayed(await world.ask(body))

    assert sum(world.deliveries) == 2


async def test_a_query_that_names_something_twice_means_all_of_it() -> None:
    world, caller = World(), [(b"x-call-id", b"call_7")]
    for query in ("slot=1&slot=2", "slot=3&slot=2", "slot=2"):
        target = f"/retell/fn/book?{query}"
        assert not replayed(await world.ask(b"", target, method="DELETE", headers=caller))

    assert world.deliveries == (3, 0)


async def test_twins_wait_for_the_first_and_hear_it() -> None:
    gate = Gate()
    world = World(mcp=Network(gate))
    asking = [asyncio.ensure_future(world.ask(BOOK)) for _ in range(5)]
    await until(lambda: world.mcp.seen)
    gate.open.set()

    got = await asyncio.gather(*asking)

    assert world.deliveries == (1, 0)
    assert {reply.body for reply in got} == {GOOD[1]}
    assert [replayed(reply) for reply in got] == [False, True, True, True, True]


async def test_twins_of_what_did_not_run_hear_that_nothing_ran() -> None:
    gate = Gate()
    world = World(mcp=Network(gate), fallback={"enabled": False})
    asking = [asyncio.ensure_future(world.ask(BOOK)) for _ in range(2)]
    await until(lambda: world.mcp.seen)
    gate.answer = (401, b"")
    gate.open.set()

    got = await asyncio.gather(*asking)

    assert {said(reply)["message"] for reply in got} == {world.line.tools.get("book").say.plain}
    assert world.deliveries == (1, 0)


async def test_a_twin_that_has_waited_long_enough_hears_that_it_may_have_run() -> None:
    gate = Gate()
    world = World(mcp=Network(gate), fallback={"budget": {"function": "20ms"}})
    first = asyncio.ensure_future(world.ask(BOOK))
    await until(lambda: world.mcp.seen)

    assert said(await world.ask(BOOK))["message"] == pending(world)

    gate.open.set()
    assert (await first).body == GOOD[1]


async def test_what_may_have_run_never_runs_again() -> None:
    world = World(mcp=Network(DIED))
    got = [await world.ask(BOOK) for _ in range(3)]

    assert [said(reply)["message"] for reply in got] == [pending(world)] * 3
    assert world.deliveries == (1, 0)


async def test_a_late_answer_is_kept_for_the_next_try() -> None:
    gate = Gate()
    world = World(mcp=Lingering(gate))
    incoming = FakeIncoming(target="/retell", body=orjson.dumps(BOOK))
    asking = asyncio.ensure_future(world.handler.handle(incoming))
    await until(lambda: incoming.answered is not None)
    assert incoming.answered is not None
    assert said(incoming.answered)["message"] == pending(world)
    assert world.exchange.outcome == "last_answer"
    assert world.arms["mcp"].breaker.snapshot(world.clock.now()).failures == 1

    gate.open.set()
    await asking

    assert world.exchange.outcome == "last_answer"  # Accounted for once.
    assert (await world.ask(BOOK)).body == GOOD[1]
    assert world.deliveries == (1, 0)
    assert "late" in [what for what, _ in world.watch.told]


async def test_a_repeat_waits_for_the_late_answer() -> None:
    gate = Gate()
    world = World(mcp=Lingering(gate))
    incoming = FakeIncoming(target="/retell", body=orjson.dumps(BOOK))
    first = asyncio.ensure_future(world.handler.handle(incoming))
    await until(lambda: incoming.answered is not None)
    repeat = asyncio.ensure_future(world.ask(BOOK))
    await asyncio.sleep(0)

    gate.open.set()

    assert (await repeat).body == GOOD[1]
    await first


async def test_a_caller_who_is_gone_when_the_write_is_late_leaves_it_to_finish() -> None:
    gate = Gate()
    arm = Lingering(gate)
    world = World(mcp=arm)
    incoming = FakeIncoming(target="/retell", body=orjson.dumps(BOOK))
    arm.leaves = incoming
    asking = asyncio.ensure_future(world.handler.handle(incoming))
    await until(lambda: world.mcp.seen)
    assert world.exchange.outcome == "gone"
    gate.open.set()
    await asking

    assert (await world.ask(BOOK)).body == GOOD[1]
    assert world.deliveries == (1, 0)


async def test_a_late_answer_that_streams_is_known_to_be_done() -> None:
    gate = Gate()
    world = World(mcp=Lingering(gate))
    world.mcp.chunks = [b"x"]
    incoming = FakeIncoming(target="/retell", body=orjson.dumps(BOOK))
    asking = asyncio.ensure_future(world.handler.handle(incoming))
    gate.open.set()
    await asking

    assert said(await world.ask(BOOK))["success"] is True
    assert world.mcp.closed == 1


RPC_BOOK = {
    "jsonrpc": "2.0",
    "id": 7,
    "method": "tools/call",
    "params": {"name": "book", "arguments": {"time": "10:00"}},
}


class LateEvents(Lingering):
    """Begins a stream of events after the deadline; the tool ends when it is let."""

    def __init__(self, *events: bytes | Exception) -> None:
        ready = Gate()
        ready.open.set()
        super().__init__(ready)
        self.ends = asyncio.Event()
        self.events = events
        self.closed_at: list[bool] = []  # had the tool ended by then?

    async def send(self, *given: Any, **more: Any) -> Reply:
        reply = await super().send(*given, **more)
        return Reply(reply.status, [(b"content-type", b"text/event-stream")], self.stream())

    async def stream(self) -> AsyncIterator[bytes]:
        try:
            yield b": working\n\n"
            await self.ends.wait()
            for event in self.events:
                if isinstance(event, Exception):
                    raise event
                yield event
        finally:
            self.closed_at.append(self.ends.is_set())


def event_of(result: bytes) -> bytes:
    return b'data: {"jsonrpc":"2.0","id":7,"result":%b}\n\n' % result


@pytest.mark.parametrize(
    ("events", "hears", "runs"),
    [
        ([event_of(b'{"content":[{"type":"text","text":"Booked."}]}')], "Booked.", 1),
        ([event_of(b'{"content":[{"type":"text","text":"Taken."}],"isError":true}')], "Taken.", 2),
        ([b": still working\n\n"], None, 1),
        ([DIED], None, 1),
    ],
    ids=["it ran", "the business said no", "no answer", "cut"],
)
async def test_a_stream_of_events_that_begins_late_is_heard_out(
    events: list[bytes | Exception], hears: str | None, runs: int
) -> None:
    """A server may open its stream while the tool still runs; hanging up would cancel it."""
    mcp = LateEvents(*events)
    world, caller = World(mcp=mcp), [(b"x-call-id", b"call_7")]
    raw = orjson.dumps(RPC_BOOK)
    incoming = FakeIncoming(target="/mcp", body=raw, headers=caller)
    asking = asyncio.ensure_future(world.handler.handle(incoming))
    await until(lambda: incoming.answered is not None)
    twin = asyncio.ensure_future(world.ask(RPC_BOOK | {"id": 8}, "/mcp", headers=caller))
    await asyncio.sleep(0)
    mcp.ends.set()
    await asking

    assert mcp.closed_at == [True]
    heard = said(await twin)
    assert (heard["id"], heard["result"]["content"][0]["text"]) == (8, hears or pending(world))
    await world.ask(RPC_BOOK | {"id": 9}, "/mcp", headers=caller)
    assert len(mcp.seen) == runs


async def test_an_answer_that_streamed_to_its_end_is_done_and_not_kept() -> None:
    world = World()
    world.mcp.chunks = [b"a", b"b"]
    assert await read(await world.ask(BOOK)) == b"ab"

    told = await world.ask(BOOK)

    assert said(told) == {
        "success": True, "message": world.line.tools.get("book").say_done.plain
    }  # fmt: skip
    assert world.deliveries == (1, 0)


async def test_an_answer_that_broke_half_way_may_have_run() -> None:
    world = World()
    world.mcp.chunks = [b"a", DIED]
    with pytest.raises(type(DIED)):
        await read(await world.ask(BOOK))

    assert said(await world.ask(BOOK))["message"] == pending(world)
    assert world.deliveries == (1, 0)


async def test_a_no_that_was_too_long_to_keep_is_not_told_as_done() -> None:
    body = b'{"success":false,"message":"' + b"no " * 40_000 + b'"}'
    gate = Gate((200, body))
    world = World(mcp=Network(gate))
    asking = [asyncio.ensure_future(world.ask(BOOK)) for _ in range(2)]
    await until(lambda: world.mcp.seen)
    gate.open.set()

    first, twin = await asyncio.gather(*asking)

    assert first.body == body
    assert said(twin) == {"success": False, "message": world.line.tools.get("book").say.plain}
    assert world.deliveries == (1, 0)


async def test_what_did_not_run_is_tried_again() -> None:
    world = World(mcp=Network(REFUSED), webhook=Network(REFUSED, GOOD))
    assert said(await world.ask(BOOK))["success"] is False

    assert (await world.ask(BOOK)).body == GOOD[1]


async def test_a_rescue_that_is_late_settles_the_record_too() -> None:
    gate = Gate()
    world = World(mcp=Network(REFUSED), webhook=Lingering(gate))
    incoming = FakeIncoming(target="/retell", body=orjson.dumps(BOOK))
    asking = asyncio.ensure_future(world.handler.handle(incoming))
    await until(lambda: incoming.answered is not None)
    gate.open.set()
    await asking

    assert world.exchange.outcome == "last_answer"
    assert (await world.ask(BOOK)).body == GOOD[1]
    assert world.deliveries == (1, 1)


async def test_a_late_failure_leaves_it_unknown() -> None:
    gate = Gate((500, b""))
    world = World(mcp=Lingering(gate))
    incoming = FakeIncoming(target="/retell", body=orjson.dumps(BOOK))
    asking = asyncio.ensure_future(world.handler.handle(incoming))
    await until(lambda: incoming.answered is not None)
    gate.open.set()
    await asking

    assert said(await world.ask(BOOK))["message"] == pending(world)
    assert world.deliveries == (1, 0)


async def test_a_late_refusal_proves_that_nothing_ran() -> None:
    gate = Gate((401, b""))
    world = World(mcp=Lingering(gate))
    incoming = FakeIncoming(target="/retell", body=orjson.dumps(BOOK))
    asking = asyncio.ensure_future(world.handler.handle(incoming))
    await until(lambda: incoming.answered is not None)
    gate.open.set()
    await asking
    world.mcp.answers = [REFUSED]

    assert (await world.ask(BOOK)).body == GOOD[1]
    assert world.deliveries == (2, 1)


async def test_a_business_no_is_no_answer_for_another_try() -> None:
    """Who tries again may have another reason to hope; only a retry of the same try hears it."""
    world = World(mcp=Network(NO))
    got = [await world.ask(BOOK) for _ in range(2)]

    assert [replayed(reply) for reply in got] == [False, False]
    assert world.deliveries == (2, 0)


async def test_without_room_for_one_more_nothing_is_sent() -> None:
    gate = Gate()
    world = World(mcp=Network(gate))
    world.once.guard = ReplayGuard(most=1)
    first = asyncio.ensure_future(world.ask(BOOK))
    await until(lambda: world.mcp.seen)
    world.watch.told.clear()

    refused = await world.ask(BOOK | {"args": {"time": "11:00"}})

    assert said(refused)["message"] == world.line.tools.get("book").say.plain
    assert world.deliveries == (1, 0)
    gate.open.set()
    await first


async def test_a_cancelled_write_may_have_run() -> None:
    world = World(mcp=Network(Gate()))
    asking = asyncio.ensure_future(world.ask(BOOK))
    await until(lambda: world.mcp.seen)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)

    assert said(await world.ask(BOOK))["message"] == pending(world)
    assert world.deliveries == (1, 0)


async def test_a_write_that_no_arm_was_asked_for_has_not_run() -> None:
    world = World(tool_limit=None, mcp_kinds=frozenset())
    world.arms["webhook"].backend.kinds = frozenset()
    assert (await world.ask(BOOK)).status == 501
    assert (await world.ask(BOOK)).status == 501


async def test_every_try_of_a_run_has_one_key_and_the_callers_own_is_not_beside_it() -> None:
    world = World(mcp=Network(REFUSED))
    await world.ask(BOOK, headers=((b"Idempotency-Key", b"mine"),))

    sent = [
        [value for name, value in (*outbound.headers, *extra) if name.lower() == b"idempotency-key"]
        for outbound, extra, *_ in (*world.mcp.seen, *world.webhook.seen)
    ]
    assert sent[0] == sent[1]
    assert len(sent[0]) == 1
    assert sent[0] != [b"mine"]


async def test_what_became_a_write_while_its_body_came_is_guarded() -> None:
    world, after = World(), World(tools={"default": {"effect": "write"}})

    class Slow(FakeIncoming):
        async def read(self, limit: int, deadline: float) -> bytes:
            world.handler.line = replace(world.line, tools=after.line.tools)
            return await super().read(limit, deadline)

    first = await world.handler.handle(Slow(body=orjson.dumps(SLOTS)))
    again = await world.ask(SLOTS)

    assert world.deliveries == (1, 0)
    assert (replayed(first), replayed(again)) == (False, True)


async def test_an_event_is_delivered_once() -> None:
    world = World()
    got = [await world.ask(EVENT) for _ in range(2)]

    assert [reply.status for reply in got] == [200, 204]
    assert replayed(got[1])
    assert world.deliveries == (0, 1)


async def test_an_event_that_was_not_taken_is_delivered_again() -> None:
    world = World(webhook=Network((500, b""), GOOD))
    got = [await world.ask(EVENT) for _ in range(2)]

    assert [reply.status for reply in got] == [503, 200]
    assert world.deliveries == (0, 2)


async def test_twins_of_an_event_that_fails_deliver_it_themselves() -> None:
    gate = Gate((500, b""))
    world = World(webhook=Network(gate, GOOD))
    asking = [asyncio.ensure_future(world.ask(EVENT)) for _ in range(3)]
    await until(lambda: world.webhook.seen)
    gate.open.set()

    got = await asyncio.gather(*asking)

    assert sorted(reply.status for reply in got) == [200, 204, 503]
    assert world.deliveries == (0, 2)


async def test_a_twin_of_an_event_that_takes_too_long_may_come_again() -> None:
    gate = Gate()
    world = World(webhook=Network(gate), fallback={"budget": {"event": "20ms"}})
    first = asyncio.ensure_future(world.ask(EVENT))
    await until(lambda: world.webhook.seen)

    assert (await world.ask(EVENT)).status == 503

    gate.open.set()
    assert (await first).status == 200


async def test_a_cancelled_event_is_delivered_again() -> None:
    world = World(webhook=Network(Gate(), GOOD))
    asking = asyncio.ensure_future(world.ask(EVENT))
    await until(lambda: world.webhook.seen)
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)

    assert (await world.ask(EVENT)).status == 200


# -- Streams of events, other methods, other callers.

CALLER = [(b"x-call-id", b"call_7")]


class Events(Network):
    """Answers in a stream of events."""

    def __init__(self, *events: bytes | Exception) -> None:
        super().__init__()
        self.events = events

    async def send(self, *given: Any, **more: Any) -> Reply:
        reply = await super().send(*given, **more)
        return Reply(reply.status, [(b"content-type", b"text/event-stream")], self.stream())

    async def stream(self) -> AsyncIterator[bytes]:
        for event in self.events:
            if isinstance(event, Exception):
                raise event
            yield event


SAID = event_of(b'{"content":[{"type":"text","text":"Booked."}]}')
SAID_NO = event_of(b'{"content":[{"type":"text","text":"Taken."}],"isError":true}')
BROKE = b'data: {"jsonrpc":"2.0","id":7,"error":{"code":-32603,"message":"x"}}\n\n'


@pytest.mark.parametrize(
    ("events", "hears", "runs"),
    [
        ([SAID], "Booked.", 1),
        ([SAID, DIED], "Booked.", 1),
        ([SAID_NO], None, 2),
        ([BROKE], "pending", 1),
        ([b": nothing\n\n"], "pending", 1),
    ],
)
async def test_a_stream_of_events_counts_for_what_it_says(
    events: list[bytes | Exception], hears: str | None, runs: int
) -> None:
    mcp = Events(*events)
    world = World(mcp=mcp)
    first = await world.ask(RPC_BOOK, "/mcp", headers=CALLER)
    try:
        await read(first)
    except type(DIED):
        assert DIED in events

    again = await world.ask(RPC_BOOK | {"id": 8}, "/mcp", headers=CALLER)

    if hears is not None:
        told = said(again)["result"]["content"][0]["text"]
        assert told == (pending(world) if hears == "pending" else hears)
    assert len(mcp.seen) == runs


async def test_a_write_whose_outcome_nobody_would_hear_does_not_run() -> None:
    world = World()
    note = {name: value for name, value in RPC_BOOK.items() if name != "id"}

    assert (await world.ask(note, "/mcp", headers=CALLER)).status == 400
    assert world.deliveries == (0, 0)
    assert len(world.once.guard.store) == 0


async def test_an_answer_that_nobody_can_read_is_not_told_as_done() -> None:
    class Brotli(Network):
        async def send(self, *given: Any, **more: Any) -> Reply:
            reply = await super().send(*given, **more)
            reply.headers.append((b"content-encoding", b"br"))
            return reply

    world = World(mcp=Brotli((200, b"\x0b\x10\x80...")))
    await world.ask(BOOK)

    assert said(await world.ask(BOOK))["message"] == pending(world)


async def test_another_method_on_a_tools_path_is_another_write() -> None:
    world = World()
    for method in ("POST", "PUT"):
        await world.ask(b'{"id":5}', "/retell/fn/booking", method=method, headers=CALLER)

    assert sum(world.deliveries) == 2


async def test_an_answer_is_not_told_to_whoever_shows_less_than_who_was_told_it() -> None:
    """Knowing a call's ID and what was asked is no credential; and it does not run again."""
    world = World(auth=AuthPolicy({}, Credentials((b"secret",))))
    first = await world.ask(BOOK, headers=[(b"authorization", b"Bearer secret")])
    without = await world.ask(BOOK)
    again = await world.ask(BOOK, headers=[(b"authorization", b"Bearer secret")])

    assert world.deliveries == (1, 0)
    assert said(without) == {
        "success": True, "message": world.line.tools.get("book").say_done.plain
    }  # fmt: skip
    assert again.body == first.body
