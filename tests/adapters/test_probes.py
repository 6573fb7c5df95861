"""Probing: what is asked, when, and who hears of it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any

import pytest

from backends.base import Send
from proxy.adapters.asking import Asking
from proxy.adapters.probes import Probed, Prober, Probes
from proxy.adapters.tasks import Tasks
from proxy.core.arm_breaker import ArmBreaker
from proxy.core.breaker import BreakerConfig, State, Transition
from proxy.core.health import HealthConfig
from proxy.core.model import Call, Counts, Kind, Reply
from proxy.core.verdict import FAILED_BODY
from proxy.errors import ProbeFailed, UpstreamFailed
from proxy.ports import Arm
from tests.fakes import FakeClock, FakeUpstream, FakeWatch

NEVER = 1e9


class Plain:
    """A backend without a probe of its own."""

    kinds = frozenset(Kind)

    async def handle(self, call: Call, send: Send) -> Reply:
        raise AssertionError("a probe is no call")


class Own(Plain):
    """A backend whose probes the test answers one by one; `under_way` counts them."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[Send] = asyncio.Queue()
        self.answers: asyncio.Queue[Exception | None] = asyncio.Queue()
        self.under_way = 0
        self.most = 0

    async def probe(self, send: Send) -> None:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        self.asked.put_nowait(send)
        try:
            answer = await self.answers.get()
        finally:
            self.under_way -= 1
        if answer is not None:
            raise answer


class Desk:
    """An arm and everything around its prober."""

    def __init__(
        self,
        backend: Plain | None = None,
        *,
        health: HealthConfig | None = None,
        path: str = "",
        covered: bool = True,
        timeout: float = 2.0,
    ) -> None:
        self.clock = FakeClock()
        self.watch = FakeWatch()
        self.endpoint = FakeUpstream()
        self.breaker = ArmBreaker(BreakerConfig(failures=1, probe_lease=10.0))
        self.covered = covered
        self.arm = Arm("mcp", backend or Plain(), self.endpoint, self.breaker, timeout)
        self.probed = self.ruled(health, Asking(path))
        chances = itertools.chain([0.0], itertools.repeat(0.5))  # the first probe is due at once
        self.prober = Prober(
            self.probed, clock=self.clock, watch=self.watch, jitter=lambda: next(chances)
        )

    def ruled(self, health: HealthConfig | None = None, asking: Asking | None = None) -> Probed:
        """The arm under these rules."""
        return Probed(self.arm, lambda: self.covered, health, asking or Asking())

    def open(self) -> None:
        permit = self.breaker.admit(self.clock.now(), safe=True, covered=True)
        assert permit
        assert self.breaker.record(permit, Counts.FAILURE, self.clock.now())

    def half_open(self) -> None:
        self.open()
        self.clock.advance(60.0)

    @property
    def changes(self) -> list[tuple[State, str]]:
        told = [what for kind, what in self.watch.told if kind == "breaker"]
        assert all(arm == "mcp" for arm, _ in told)
        return [(change.after, change.why) for _, change in told]

    @property
    def faults(self) -> list[str]:
        return [what[1] for kind, what in self.watch.told if kind == "config_fault"]


# What is heard.


async def test_it_asks_as_the_rules_say() -> None:
    desk = Desk(health=HealthConfig(), path="/api/health")

    await desk.prober.look()

    assert [sent.outbound.target for sent in desk.endpoint.sent] == ["/api/health"]


@pytest.mark.parametrize(
    ("arms_own", "said", "patience"), [(2.0, None, 2.0), (30.0, None, 10.0), (2.0, 0.5, 0.5)]
)
async def test_a_probe_has_its_own_time_or_the_arms_but_no_longer_than_its_lease(
    arms_own: float, said: float | None, patience: float
) -> None:
    desk = Desk(timeout=arms_own)
    desk.prober.adopt(desk.ruled(HealthConfig(), Asking(timeout=said)))
    desk.clock.advance(10.0)

    await desk.prober.look()

    assert desk.endpoint.connects == [desk.clock.now() + patience]


@pytest.mark.parametrize(
    ("failure", "detail"),
    [
        (UpstreamFailed("connect", "refused", sent=False), "connect: refused"),
        (ProbeFailed("tools/list: status 500"), "tools/list: status 500"),
        (ProbeFailed(), "not well"),
        (TimeoutError(), "timeout: no answer in time"),
        (KeyError("secret"), "crashed: KeyError"),
    ],
    ids=lambda value: str(value) or type(value).__name__,
)
async def test_whatever_fails_is_a_bad_probe(failure: Exception, detail: str) -> None:
    desk = Desk(health=HealthConfig())
    desk.endpoint.fails = failure

    await desk.prober.look()

    assert desk.prober.result
    assert (desk.prober.result.ok, desk.prober.result.detail) == (False, detail)
    crashes = [what for kind, what in desk.watch.told if kind == "crashed"]
    assert crashes == ([("probe mcp", failure)] if isinstance(failure, KeyError) else [])


async def test_a_backend_that_hangs_is_given_up() -> None:
    desk = Desk(Own(), health=HealthConfig(), timeout=-NEVER)

    await desk.prober.look()

    assert desk.prober.result
    assert desk.prober.result.detail == "timeout: no answer in time"


async def test_a_result_tells_when_and_how_long() -> None:
    own = Own()
    desk = Desk(own, health=HealthConfig())
    wall_ms = desk.clock.wall_ms()
    looking = asyncio.ensure_future(desk.prober.look())
    await own.asked.get()
    desk.clock.advance(0.25)
    own.answers.put_nowait(None)
    await looking

    assert desk.prober.result
    assert desk.prober.result.ms == pytest.approx(250)
    assert desk.prober.result.at_wall_ms == wall_ms + 250


# Half open.


async def test_a_closed_breaker_without_active_health_asks_for_nothing() -> None:
    desk = Desk()

    await desk.prober.look()

    assert len(desk.endpoint.connects) == 0
    assert desk.prober.result is None
    assert desk.prober.well is None


async def test_an_open_breaker_is_left_alone_until_its_time() -> None:
    desk = Desk()
    desk.open()
    desk.clock.advance(59.9)

    await desk.prober.look()

    assert len(desk.endpoint.connects) == 0
    assert desk.changes == []


async def test_a_good_probe_lets_an_open_breaker_try_real_exchanges() -> None:
    desk = Desk()
    desk.half_open()

    await desk.prober.look()

    assert desk.changes == [(State.HALF_OPEN, "time_up")]
    assert desk.breaker.admit(desk.clock.now(), safe=True, covered=True)
    await desk.prober.look()
    assert len(desk.endpoint.connects) == 1


async def test_a_bad_probe_opens_it_again() -> None:
    desk = Desk()
    desk.half_open()
    desk.endpoint.fails = UpstreamFailed("connect", "refused", sent=False)

    await desk.prober.look()

    assert desk.changes == [(State.HALF_OPEN, "time_up"), (State.OPEN, "probe_failed")]
    assert desk.breaker.probe_at() == desk.clock.now() + 120.0


async def test_a_bad_probe_is_forgotten_once_the_breaker_lets_calls_pass() -> None:
    """Nobody probes again then: an old failure must not read as the present."""
    desk = Desk()
    desk.half_open()
    desk.endpoint.fails = ProbeFailed("down")
    await desk.prober.look()
    assert desk.prober.result

    desk.breaker.reset(desk.clock.now())

    assert desk.prober.result is None


async def test_one_probe_serves_the_breaker_and_active_health() -> None:
    desk = Desk(health=HealthConfig())
    desk.half_open()

    await desk.prober.look()

    assert len(desk.endpoint.connects) == 1
    assert desk.breaker.snapshot(desk.clock.now()).probed
    assert desk.prober.well is True


# Active health.


async def fail_thrice(desk: Desk) -> None:
    desk.endpoint.fails = ProbeFailed("down")
    for _ in range(3):
        await desk.prober.look()
        desk.clock.advance(10.0)


async def test_probes_follow_the_interval() -> None:
    desk = Desk(health=HealthConfig(every=10.0))
    for seconds in (0.0, 9.9, 0.1, 5.0, 5.0):
        desk.clock.advance(seconds)
        await desk.prober.look()

    assert len(desk.endpoint.connects) == 3


async def test_an_unwell_arm_is_not_asked_where_another_can_answer() -> None:
    desk = Desk(health=HealthConfig(unhealthy_after=3))

    await fail_thrice(desk)

    assert desk.changes == [(State.OPEN, "unhealthy")]
    assert desk.prober.well is False
    assert desk.faults == []


async def test_an_unwell_arm_that_nobody_can_stand_in_for_only_alerts_and_only_once() -> None:
    desk = Desk(health=HealthConfig(unhealthy_after=3), covered=False)

    await fail_thrice(desk)
    await fail_thrice(desk)

    assert desk.changes == []
    assert desk.faults == ["unhealthy, and no other arm may answer: down"]


async def test_an_unwell_arm_opens_as_soon_as_another_may_answer() -> None:
    desk = Desk(health=HealthConfig(unhealthy_after=3), covered=False)
    await fail_thrice(desk)
    desk.covered = True

    await desk.prober.look()

    assert desk.changes == [(State.OPEN, "unhealthy")]


async def test_a_good_probe_of_an_unwell_arm_opens_nothing() -> None:
    desk = Desk(health=HealthConfig(unhealthy_after=3, healthy_after=2))
    await fail_thrice(desk)
    desk.breaker.reset(desk.clock.now())
    desk.endpoint.fails = None

    await desk.prober.look()

    assert desk.prober.well is False
    assert desk.breaker.state is State.CLOSED


# The task.


class Wakes(FakeWatch):
    """What the composition root does: whoever hears of a breaker's change wakes its prober."""

    def __init__(self) -> None:
        super().__init__()
        self.wake: Callable[[str], None] = lambda arm: None
        self.heard: asyncio.Queue[Transition] = asyncio.Queue()

    def breaker_changed(self, arm: str, transition: Transition) -> None:
        super().breaker_changed(arm, transition)
        self.wake(arm)
        self.heard.put_nowait(transition)


class House:
    """Probes with real tasks on a clock that stands still."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.watch = Wakes()
        self.tasks = Tasks(self.watch.crashed)
        self.settled: asyncio.Queue[None] = asyncio.Queue()
        self.began = desk.probed.health is None
        self.probes = Probes(
            clock=desk.clock, watch=self.watch, tasks=self.tasks, jitter=self.jitter
        )
        self.watch.wake = self.probes.wake
        self.probes.use([desk.probed])

    def jitter(self) -> float:
        """Asked for at the beginning, then once a result is in: the moment at which it is known."""
        if self.began is False:
            self.began = True
            return 0.0
        self.settled.put_nowait(None)
        return 0.5

    async def __aenter__(self) -> House:
        return self

    async def __aexit__(self, *_: Any) -> None:
        await self.probes.aclose()
        await self.tasks.aclose()
        assert not [what for what in self.watch.told if what[0] == "crashed"]

    def breaker_opens(self) -> None:
        desk = self.desk
        change = desk.breaker.trip(desk.clock.now(), "failures")
        assert change
        self.watch.breaker_changed("mcp", change)


async def test_the_task_begins_with_the_first_probe() -> None:
    own = Own()
    async with House(Desk(own, health=HealthConfig())) as house:
        await own.asked.get()
        own.answers.put_nowait(None)
        await house.settled.get()

        assert house.probes.well("mcp") is True
        result = house.probes.result("mcp")
        assert result
        assert result.ok


async def test_the_task_sleeps_until_a_change_and_wakes_at_once() -> None:
    own = Own()
    async with House(Desk(own)) as house:
        house.breaker_opens()
        assert (await house.watch.heard.get()).after is State.OPEN
        house.desk.clock.advance(60.0)
        house.probes.wake("mcp")

        await own.asked.get()
        own.answers.put_nowait(ProbeFailed("down"))

        assert (await house.watch.heard.get()).after is State.HALF_OPEN
        assert (await house.watch.heard.get()).why == "probe_failed"


async def test_the_task_wakes_by_itself_when_the_time_is_up() -> None:
    own = Own()
    desk = Desk(own)
    desk.breaker.config = BreakerConfig(open_for=0.001)
    async with House(desk) as house:
        loop = asyncio.get_running_loop()
        desk.clock.now = loop.time  # type: ignore[method-assign]
        house.breaker_opens()

        await own.asked.get()


async def test_however_often_it_is_woken_one_probe_is_under_way() -> None:
    own = Own()
    async with House(Desk(own, health=HealthConfig(every=10.0))) as house:
        await own.asked.get()
        for _ in range(20):
            house.desk.clock.advance(10.0)
            house.probes.wake("mcp")
            await asyncio.sleep(0)
        own.answers.put_nowait(None)
        await house.settled.get()
        house.desk.clock.advance(10.0)
        house.probes.wake("mcp")
        await own.asked.get()

        assert own.most == 1


async def test_closing_leaves_nothing_behind_even_in_the_middle_of_a_probe() -> None:
    own = Own()
    async with House(Desk(own, health=HealthConfig())) as house:
        await own.asked.get()

        await house.probes.aclose()

        assert own.under_way == 0
        assert len(house.tasks) == 0
        await house.probes.aclose()


async def test_a_reload_keeps_what_is_known_and_forgets_arms_that_left() -> None:
    own = Own()
    desk = Desk(own, health=HealthConfig(every=10.0, unhealthy_after=1))
    async with House(desk) as house:
        await own.asked.get()
        own.answers.put_nowait(ProbeFailed("down"))
        await house.watch.heard.get()

        house.probes.use([desk.ruled(HealthConfig(every=5.0))])

        assert house.probes.well("mcp") is False
        assert house.probes.result("mcp")
        desk.clock.advance(5.0)
        house.probes.wake("mcp")
        await own.asked.get()

        house.probes.use([])
        assert house.probes.result("mcp") is None
        assert house.probes.well("mcp") is None
        house.probes.wake("mcp")


async def test_active_health_can_be_switched_on_and_off_by_a_reload() -> None:
    desk = Desk()
    desk.prober.adopt(desk.ruled(HealthConfig()))
    await desk.prober.look()
    switched_on = desk.prober.well

    desk.prober.adopt(desk.ruled())
    desk.clock.advance(600.0)
    await desk.prober.look()

    assert (switched_on, desk.prober.well) == (True, None)
    assert len(desk.endpoint.connects) == 1


async def test_a_probe_under_way_outlives_a_reload() -> None:
    """Rules that change every few seconds must not keep an arm from ever being probed."""
    own = Own()
    desk = Desk(own)
    desk.half_open()
    async with House(desk) as house:
        await own.asked.get()
        house.probes.use([desk.ruled()])
        own.answers.put_nowait(None)

        async with asyncio.timeout(5):
            while not desk.breaker.snapshot(0.0).probed:
                await asyncio.sleep(0)
        assert own.asked.empty()


async def test_a_probe_of_an_old_address_is_given_up_at_once() -> None:
    own = Own()
    desk = Desk(own, health=HealthConfig(unhealthy_after=1))
    desk.half_open()
    looking = asyncio.ensure_future(desk.prober.look())
    await own.asked.get()
    moved = Arm("mcp", own, FakeUpstream(), desk.breaker, 2.0)
    desk.prober.adopt(Probed(moved, lambda: True, HealthConfig(unhealthy_after=1)))
    await looking

    assert desk.prober.result is None
    assert desk.changes == [(State.HALF_OPEN, "time_up")]
    own.answers.put_nowait(None)
    await desk.prober.look()
    assert desk.breaker.snapshot(0.0).probed


async def test_an_arm_that_moves_twice_in_a_moment_gives_its_probe_up_once() -> None:
    own = Own()
    desk = Desk(own, health=HealthConfig())
    looking = asyncio.ensure_future(desk.prober.look())
    await own.asked.get()
    for _ in range(2):
        desk.prober.adopt(Probed(Arm("mcp", own, FakeUpstream(), desk.breaker, 2.0), lambda: True))
        await asyncio.sleep(0)
    await looking

    assert desk.prober.result is None


async def test_a_probe_that_is_given_up_makes_room_for_the_next_at_once() -> None:
    own = Own()
    desk = Desk(own)
    desk.half_open()
    async with House(desk) as house:
        await own.asked.get()
        house.probes.use([])
        while len(house.tasks):
            await asyncio.sleep(0)

        assert desk.breaker.look_at() == desk.clock.now()
        house.probes.use([desk.probed])
        await own.asked.get()
        assert own.most == 1


async def test_a_full_pool_says_nothing_of_the_arm() -> None:
    desk = Desk(health=HealthConfig(every=10.0, unhealthy_after=1))
    desk.half_open()
    desk.endpoint.fails = UpstreamFailed("full", "every connection is in use", sent=False)

    await desk.prober.look()
    await desk.prober.look()

    assert len(desk.endpoint.connects) == 1, "nor is it asked again at once"
    assert desk.prober.result is None
    assert desk.prober.well is None
    assert desk.changes == [(State.HALF_OPEN, "time_up")]
    desk.endpoint.fails = None
    desk.clock.advance(10.0)
    await desk.prober.look()
    assert desk.breaker.snapshot(0.0).probed


async def test_a_full_pool_without_active_health_waits_for_the_lease() -> None:
    desk = Desk()
    desk.half_open()
    desk.endpoint.fails = UpstreamFailed("full", "every connection is in use", sent=False)

    await desk.prober.look()

    assert desk.breaker.look_at() == desk.clock.now() + 10.0


# Tools with breakers of their own.


def with_tools(desk: Desk, *tools: str) -> None:
    """Each of these tools is open, the arm is not."""
    desk.breaker.name_tools(tools)
    for tool in tools:
        permit = desk.breaker.admit(desk.clock.now(), tool, safe=True, covered=True)
        assert permit
        change = desk.breaker.settle(permit, FAILED_BODY, desk.clock.now())
        assert change
        assert change.tool == tool


async def test_one_probe_of_the_arm_lets_all_its_tools_be_tried() -> None:
    desk = Desk()
    with_tools(desk, "slots", "book")
    desk.clock.advance(60.0)

    await desk.prober.look()

    assert len(desk.endpoint.connects) == 1
    snapshots = desk.breaker.tool_snapshots(0.0)
    assert [one.probed for one in snapshots.values()] == [True, True]
    told = [what[1].tool for kind, what in desk.watch.told if kind == "breaker"]
    assert told == ["slots", "book"]


async def test_a_bad_probe_opens_the_tool_again() -> None:
    desk = Desk()
    with_tools(desk, "slots")
    desk.clock.advance(60.0)
    desk.endpoint.fails = ProbeFailed("down")

    await desk.prober.look()

    assert desk.changes == [(State.HALF_OPEN, "time_up"), (State.OPEN, "probe_failed")]
    assert desk.breaker.state is State.CLOSED


async def test_a_probe_that_fails_the_arm_says_nothing_of_its_tools() -> None:
    desk = Desk()
    with_tools(desk, "slots")
    desk.half_open()
    desk.endpoint.fails = ProbeFailed("down")

    await desk.prober.look()

    slots = desk.breaker.tools["slots"]
    assert desk.breaker.state is State.OPEN
    assert slots.state is State.HALF_OPEN
    assert slots.snapshot(0.0).setbacks == 0
    desk.endpoint.fails = None
    desk.clock.advance(120.0)
    await desk.prober.look()
    assert slots.snapshot(0.0).probed
