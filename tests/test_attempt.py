"""One try at one arm: permits go back, verdicts are right, streams settle."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from backends.base import Send
from proxy.core.breaker_values import State
from proxy.core.model import Call, Reply
from proxy.errors import UpstreamFailed
from tests.fakes import FakeIncoming
from tests.path_kit import (
    BOOK,
    DIED,
    EVENT,
    GOOD,
    REFUSED,
    SLOTS,
    SLOW,
    Answer,
    Crashing,
    CrashingLate,
    Forwarding,
    Network,
    World,
    header,
    read,
    said,
    until,
)


async def test_a_cancelled_exchange_hands_its_permit_back_and_is_accounted() -> None:
    started = asyncio.Event()

    async def never() -> tuple[int, bytes]:
        started.set()
        await asyncio.Event().wait()
        return GOOD

    world = World(mcp=Network(never))
    breaker = world.arms["mcp"].breaker
    task = asyncio.get_running_loop().create_task(world.ask(BOOK))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert world.exchange.outcome == "gone"
    assert breaker.snapshot(0.0).failures == 0


# -- Breaker.


async def test_the_breaker_opens_after_five_and_callers_go_round_it() -> None:
    world = World(mcp=Network(REFUSED))
    for number in range(8):
        reply = await world.ask(BOOK | {"args": {"time": number}})

    assert world.deliveries == (5, 8)
    assert header(reply, b"x-callsplit-reason") == [b"rescue_open"]
    assert world.arms["mcp"].breaker.state is State.OPEN
    assert [what for what, _ in world.watch.told].count("breaker") == 1


async def test_the_last_arm_is_asked_although_its_breaker_is_open() -> None:
    """A sidecar must not be worse than none."""
    world = World(percent=0, webhook=Network(*[REFUSED] * 5, GOOD))
    for _ in range(5):
        await world.ask(BOOK)
    assert world.arms["webhook"].breaker.state is State.OPEN
    reply = await world.ask(BOOK)

    assert (reply.status, reply.body) == GOOD


async def test_without_last_resort_an_open_breaker_means_the_last_answer() -> None:
    world = World(percent=0, webhook=Network(REFUSED))
    world.arms["webhook"].breaker.force(State.FORCED_OPEN, 0.0)
    reply = await world.ask(BOOK)

    assert said(reply)["message"] == world.line.tools.get("book").say.plain
    assert world.deliveries == (0, 0)
    assert world.exchange.attempts[0].verdict.label == "not_sent"


async def test_a_permit_goes_back_on_every_way_out() -> None:
    """Permits out of an open breaker are counted; a lost one would shut the arm for good."""
    bad_stream = Network(GOOD)
    bad_stream.chunks = [b"a", DIED]
    answers: list[Answer] = [REFUSED, DIED, SLOW, (500, b""), (302, b""), (404, b""), GOOD]
    for network in [*(Network(answer) for answer in answers), bad_stream]:
        world = World(percent=0, webhook=network, fallback={"last_resort": 1})
        breaker = world.arms["webhook"].breaker
        breaker.trip(world.clock.now())
        reply = await world.ask(BOOK)
        if not isinstance(reply.body, bytes):
            with pytest.raises(UpstreamFailed):
                await read(reply)

        assert breaker.snapshot(world.clock.now()).last_resort == 0


# -- Backends of users.


async def test_a_backend_that_crashes_costs_a_sentence_not_a_stack() -> None:
    world = World(backend=Crashing, in_process=True)
    reply = await world.ask(BOOK)

    assert said(reply)["message"] == world.line.tools.get("book").say_pending.plain
    assert ("crashed", "backend mcp") in [
        (what, value[0] if isinstance(value, tuple) else value) for what, value in world.watch.told
    ]


async def test_a_backend_that_crashes_before_it_sends_has_run_nothing() -> None:
    """One of ours, that is: what a user's own does in this process, nobody knows."""
    assert header(await World(backend=Crashing).ask(BOOK), b"x-callsplit-reason") == [
        b"rescue_body"
    ]

    world = World(backend=CrashingLate)
    assert said(await world.ask(BOOK))["message"] == world.line.tools.get("book").say_pending.plain
    assert world.deliveries == (1, 0)


async def test_a_backend_that_cancels_itself_does_not_silence_its_caller() -> None:
    class GivingUp(Forwarding):
        async def handle(self, call: Call, send: Send) -> Reply:
            raise asyncio.CancelledError

    world = World(backend=GivingUp, in_process=True)
    reply = await world.ask(BOOK)

    assert said(reply)["message"] == world.line.tools.get("book").say_pending.plain
    assert world.exchange.outcome == "last_answer"


async def test_an_event_is_judged_by_its_status_alone() -> None:
    """Retell reads nothing else of it, and would send again what was taken."""
    world = World(webhook=Network((200, b'{"success":false,"status_code":500}')))

    assert (await world.ask(EVENT)).status == 200
    assert world.arms["webhook"].breaker.snapshot(0.0).failures == 0


async def test_a_backend_that_fails_for_a_reason_of_its_own_is_rescued_like_any_other() -> None:
    """The rescue has run by then: to stumble over its name would lose the answer."""
    world = World(mcp=Network(UpstreamFailed("quota", "used up", sent=False)))
    reply = await world.ask(BOOK)

    assert (reply.status, reply.body) == GOOD
    assert header(reply, b"x-callsplit-reason") == [b"rescue_body"]
    assert ("rescued", ("mcp", "body")) in world.watch.told


async def test_a_backend_in_process_is_bounded_in_time_and_not_cut_short() -> None:
    finish = asyncio.Event()
    finished: list[bool] = []

    class Hanging(Forwarding):
        async def handle(self, call: Call, send: Send) -> Reply:
            await finish.wait()
            finished.append(True)
            return Reply(200, [], b"{}")

    world = World(backend=Hanging, in_process=True)
    world.arms["mcp"].timeout = 0.0
    incoming = FakeIncoming(target="/retell", body=orjson.dumps(BOOK))
    asking = asyncio.ensure_future(world.handler.handle(incoming))
    await until(lambda: incoming.answered is not None)
    assert incoming.answered is not None
    assert said(incoming.answered)["message"] == world.line.tools.get("book").say_pending.plain

    finish.set()
    await asyncio.gather(*world.tasks, asking)
    assert finished == [True]
    assert world.exchange.outcome == "last_answer"


async def test_a_backend_in_process_whose_upstream_is_late_as_well_is_late_once() -> None:
    """Two clocks run at the same deadline: its own, and that of what it waits for."""
    finish = asyncio.Event()

    class Slow(Network):
        async def send(self, *given: Any, late: Any = None, **more: Any) -> Reply:
            assert late is not None
            assert late()
            await finish.wait()
            return await super().send(*given, **more)

    world = World(mcp=Slow(), in_process=True)
    world.arms["mcp"].timeout = 0.0
    incoming = FakeIncoming(target="/retell", body=orjson.dumps(BOOK))
    asking = asyncio.ensure_future(world.handler.handle(incoming))
    await until(lambda: incoming.answered is not None)
    for _ in range(10):
        await asyncio.sleep(0)

    finish.set()
    await asking
    assert world.exchange.outcome == "last_answer"
    assert len(world.exchange.attempts) == 1
    assert (await world.ask(BOOK)).body == GOOD[1]


async def test_a_backend_in_process_that_reads_is_given_up_and_may_still_finish() -> None:
    finish = asyncio.Event()

    class Hanging(Forwarding):
        async def handle(self, call: Call, send: Send) -> Reply:
            await finish.wait()
            return Reply(200, [], b"{}")

    world = World(backend=Hanging, in_process=True)
    world.arms["mcp"].timeout = 0.0
    reply = await world.ask(SLOTS)
    assert header(reply, b"x-callsplit-reason") == [b"rescue_timeout"]

    finish.set()
    await asyncio.gather(*world.tasks, return_exceptions=True)


async def test_a_backend_in_process_answers_and_fails_like_any_other() -> None:
    assert (await World(in_process=True).ask(BOOK)).status == 200

    world = World(in_process=True, mcp=Network(REFUSED))
    assert header(await world.ask(BOOK), b"x-callsplit-reason") == [b"rescue_connect"]


@pytest.mark.parametrize(
    "answer",
    [None, Reply(200, [(b"a", b"b\r\nc: d")], b"{}"), Reply(200, [], "text")],  # type: ignore[arg-type]
)
async def test_an_answer_that_cannot_be_written_is_a_crash_not_a_reset(answer: Any) -> None:
    class Odd(Forwarding):
        async def handle(self, call: Call, send: Send) -> Reply:
            return answer  # type: ignore[no-any-return]

    world = World(backend=Odd, in_process=True)
    reply = await world.ask(BOOK)

    assert said(reply)["message"] == world.line.tools.get("book").say_pending.plain
    assert [what for what, _ in world.watch.told].count("crashed") == 1


# -- Streams.


async def test_a_stream_is_judged_and_accounted_at_its_end() -> None:
    network = Network(GOOD)
    network.chunks = [b"ab", b"cd"]
    world = World(mcp=network)
    reply = await world.ask(BOOK)
    assert not [told for told in world.watch.told if told[0] == "exchange"]

    assert await read(reply) == b"abcd"
    assert (world.exchange.bytes_out, world.exchange.flags) == (4, ["streamed"])
    assert world.exchange.outcome == "ok"


async def test_a_stream_that_breaks_is_the_arms_failure() -> None:
    network = Network(GOOD)
    network.chunks = [b"ab", DIED]
    world = World(mcp=network)
    with pytest.raises(UpstreamFailed):
        await read(await world.ask(BOOK))

    assert world.exchange.outcome == "failed"
    assert world.arms["mcp"].breaker.snapshot(0.0).failures == 1


async def test_a_caller_that_leaves_a_stream_is_nobodys_failure() -> None:
    network = Network(GOOD)
    network.chunks = [b"ab", b"cd"]
    world = World(mcp=network)
    reply = await world.ask(BOOK)
    assert not isinstance(reply.body, bytes)
    await reply.body.aclose()  # type: ignore[attr-defined]

    assert world.exchange.outcome == "gone"
    assert world.arms["mcp"].breaker.snapshot(0.0).failures == 0
    assert network.closed == 1


async def test_a_failing_stream_that_nobody_will_read_is_closed() -> None:
    network = Network((500, b""))
    network.chunks = [b"x" * 9]
    world = World(mcp=network)
    reply = await world.ask(SLOTS)

    assert (reply.status, reply.body) == GOOD
    assert network.closed == 1
    assert world.arms["mcp"].breaker.snapshot(0.0).failures == 1
