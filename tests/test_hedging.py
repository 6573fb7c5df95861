"""Whether a second attempt begins, whose answer is used, and that nothing is lost by it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from proxy.adapters.tasks import Tasks
from proxy.attempt import Attempts, Plan
from proxy.core.breaker_values import State
from proxy.core.exchange import Exchange
from proxy.core.hedge import SAMPLES
from proxy.core.model import Call, Effect, Head, Kind, Reason
from proxy.core.tool_table import Terms
from proxy.hedging import Hedging, Tried
from tests.path_kit import DIED, GOOD, Answer, Network
from tests.path_kit import World as Path

READ = Terms(Effect.READ, True, 5.0, 0.0, hedge=True)
OTHER = (200, b'{"from":"webhook"}')


class Held:
    """An answer that comes when it is told to; knows whether it was cut before."""

    def __init__(self, answer: Answer) -> None:
        self.asked, self.go = asyncio.Event(), asyncio.Event()
        self.cut = False
        self._answer = answer

    async def __call__(self) -> tuple[int, bytes]:
        self.asked.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cut = True
            raise
        if isinstance(self._answer, Exception):
            raise self._answer
        assert isinstance(self._answer, tuple)
        return self._answer


class World:
    """Two arms, the first of which is known to answer within 20 ms."""

    def __init__(self, mcp: Answer, webhook: Answer = OTHER) -> None:
        self.path = Path(mcp=Network(mcp), webhook=Network(webhook))
        self.mcp, self.webhook = self.path.arms["mcp"], self.path.arms["webhook"]
        self.crashes: list[BaseException] = []
        self.tasks = Tasks(lambda _, error: self.crashes.append(error))
        clock, watch = self.path.clock, self.path.watch
        attempts = Attempts(clock=clock, watch=watch, start=self.path.start)
        self.hedging = Hedging(attempts, clock=clock, watch=watch, start=self.tasks.start)
        self.x = Exchange("r", clock.now())
        for _ in range(SAMPLES):
            self.mcp.pace.heard(0.001)

    def begin(self, terms: Terms = READ, **changes: Any) -> asyncio.Task[Tried]:
        head = Head("POST", "/retell", "", {}, [], b"a", "192.0.2.1")
        call = Call(Kind.FUNCTION, head, b"{}", id="id_1", tool="slots")
        plan = Plan(
            arm=self.mcp,
            other=self.webhook,
            reason=Reason.SHARE,
            terms=terms,
            budget_ends=self.path.clock.now() + 5,
            min_attempt=0.3,
            headers=[],
        )
        for name, value in changes.items():
            setattr(plan, name, value)
        return asyncio.create_task(self.hedging.first(call, plan, self.x))

    @property
    def told(self) -> list[tuple[str, str]]:
        return [value for what, value in self.path.watch.told if what == "hedged"]

    @property
    def attempts(self) -> list[tuple[str, str]]:
        return [(attempt.arm, attempt.verdict.label) for attempt in self.x.attempts]

    async def settled(self) -> None:
        async with asyncio.timeout(30):
            while len(self.tasks):
                await asyncio.sleep(0)
        assert not self.crashes
        for arm in (self.mcp, self.webhook):
            snapshot = arm.breaker.snapshot(self.path.clock.now())
            assert (snapshot.state, snapshot.failures) == (State.CLOSED, self.failures(arm.name))

    def failures(self, arm: str) -> int:
        return self.attempts.count((arm, "failed"))


@pytest.fixture
async def slow() -> AsyncIterator[Held]:
    held = Held(GOOD)
    yield held
    held.go.set()


async def test_the_other_arm_answers_for_a_slow_one_which_is_let_go(slow: Held) -> None:
    world = World(slow)
    tried = await world.begin()

    assert (tried.arm, tried.both, tried.failed) == (world.webhook, True, None)
    assert tried.reply is not None
    assert (tried.reply.status, tried.reply.body) == OTHER
    assert world.told == [("mcp", "won")]
    assert world.attempts == [("webhook", "success"), ("mcp", "cut")]
    await world.settled()
    assert slow.cut


async def test_a_slow_arm_that_answers_first_after_all_is_used(slow: Held) -> None:
    other = Held(OTHER)
    world = World(slow, other)
    trying = world.begin()
    await other.asked.wait()
    slow.go.set()
    tried = await trying

    assert (tried.arm, tried.both, tried.failed) == (world.mcp, True, None)
    assert world.told == [("mcp", "lost")]
    assert world.attempts == [("mcp", "success"), ("webhook", "cut")]
    await world.settled()
    assert other.cut


async def test_one_that_failed_before_the_other_answered_counts_as_failed(slow: Held) -> None:
    other, failing = Held(OTHER), Held(DIED)
    world = World(failing, other)
    trying = world.begin()
    await other.asked.wait()
    failing.go.set()
    other.go.set()
    tried = await trying

    assert (tried.arm, tried.both) == (world.webhook, True)
    assert tried.failed is not None
    assert tried.failed.label == "failed"
    assert world.attempts == [("mcp", "failed"), ("webhook", "success")]
    await world.settled()


async def test_if_both_fail_the_first_is_told_and_no_rescue_is_left() -> None:
    failing = Held(DIED)
    world = World(failing, DIED)
    trying = world.begin()
    await failing.asked.wait()
    while len(world.x.attempts) < 1:
        await asyncio.sleep(0)
    failing.go.set()
    tried = await trying

    assert (tried.arm, tried.reply, tried.both) == (world.mcp, None, True)
    assert world.attempts == [("webhook", "failed"), ("mcp", "failed")]
    assert world.told == [("mcp", "lost")]
    await world.settled()


async def test_a_failure_in_time_leaves_the_rescue() -> None:
    world = World(DIED)
    tried = await world.begin()

    assert (tried.arm, tried.reply, tried.both) == (world.mcp, None, False)
    assert world.told == []
    assert not world.path.webhook.seen


@pytest.mark.parametrize(
    "why", ["no hedge", "no other arm", "no time", "other is tried", "unknown pace"]
)
async def test_where_none_may_begin_a_slow_arm_has_all_its_time(slow: Held, why: str) -> None:
    world = World(slow)
    changes: dict[str, Any] = {}
    if why == "no hedge":
        changes["terms"] = Terms(Effect.READ, True, 5.0, 0.0)
    if why == "no other arm":
        changes["other"] = None
    if why == "no time":
        changes["budget_ends"] = world.path.clock.now() + 0.31
    if why == "other is tried":
        world.webhook.breaker.trip(world.path.clock.now())
    if why == "unknown pace":
        world.mcp.pace = type(world.mcp.pace)()
    trying = world.begin(**changes)
    await slow.asked.wait()
    await asyncio.sleep(0.05)
    slow.go.set()
    tried = await trying

    assert (tried.arm, tried.both) == (world.mcp, False)
    assert not world.path.webhook.seen
    assert world.told == []


async def test_hedges_stop_where_the_budget_does() -> None:
    held = [Held(GOOD) for _ in range(5)]
    world = World(GOOD)
    world.mcp.retry_ratio = 0.2
    for slow in held:
        world.path.mcp.answers = [slow]
        trying = world.begin()
        await slow.asked.wait()
        while len(world.told) < held.index(slow) + 1:
            await asyncio.sleep(0)
        slow.go.set()
        await trying

    assert world.told == [("mcp", "won")] * 3 + [("mcp", "refused")] * 2
    await world.settled()


async def test_an_arm_learns_its_pace_from_answers_and_from_those_that_were_cut(
    slow: Held,
) -> None:
    """Else the percentile would sink with every hedge that helps."""
    world = World(slow)
    before = world.mcp.pace._quantile.count
    await world.begin()
    assert world.mcp.pace._quantile.count == before + 1

    failing = World(DIED)
    await failing.begin()
    assert failing.mcp.pace._quantile.count == before
    await world.settled()


async def test_every_first_attempt_counts_for_the_budget_and_a_second_does_not() -> None:
    world = World(GOOD)
    for _ in range(50):
        await world.begin(terms=Terms(Effect.WRITE, False, 5.0, 0.0))
    now = world.path.clock.now()

    assert sum(world.mcp.retries.take(now, 0.2) for _ in range(100)) == 10
    assert sum(world.webhook.retries.take(now, 0.2) for _ in range(100)) == 3


async def test_a_stream_that_lost_is_closed(slow: Held) -> None:
    """Both answered in the same turn: the first is used, the other's connection goes back."""
    other = Held(OTHER)
    world = World(slow, other)
    world.path.webhook.chunks = [b"x"]
    trying = world.begin()
    await other.asked.wait()
    slow.go.set()
    other.go.set()
    tried = await trying
    await world.settled()

    assert tried.arm is world.mcp
    assert world.path.webhook.closed == 1
