"""Probing: what is asked, when, and who hears of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from backends.base import Send
from proxy.adapters.probes import Probed, Prober, Probes
from proxy.adapters.tasks import Tasks
from proxy.core.arm_breaker import ArmBreaker
from proxy.core.breaker import BreakerConfig, State, Transition
from proxy.core.health import HealthConfig
from proxy.core.model import Call, Counts, Headers, Kind, Outbound, Reply
from proxy.errors import ProbeFailed, UpstreamFailed
from proxy.ports import Arm
from tests.fakes import FakeClock, FakeWatch

NEVER = 1e9


class Stream:
    """A body that must be closed."""

    closed = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        raise AssertionError("a probe reads no body")

    async def aclose(self) -> None:
        self.closed = True


class Endpoint:
    """An upstream that notes what it is asked; `fails` is raised by everything."""

    def __init__(self) -> None:
        self.sent: list[Outbound] = []
        self.connects = 0
        self.deadline = 0.0
        self.reply = Reply(200)
        self.fails: Exception | None = None

    async def send(
        self,
        outbound: Outbound,
        extra: Headers,
        *,
        deadline: float,
        linger: float = 0.0,
        buffer: int | None = None,
        late: Callable[[], bool] | None = None,
    ) -> Reply:
        self.sent.append(outbound)
        self.deadline = deadline
        if self.fails is not None:
            raise self.fails
        return self.reply

    async def connect(self, *, deadline: float) -> None:
        self.connects += 1
        self.deadline = deadline
        if self.fails is not None:
            raise self.fails

    async def aclose(self, grace: float) -> None: ...


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
        self.endpoint = Endpoint()
        self.breaker = ArmBreaker(BreakerConfig(failures=1, probe_lease=10.0))
        self.covered = covered
        self.arm = Arm("mcp", backend or Plain(), self.endpoint, self.breaker, timeout)
        self.probed = Probed(self.arm, lambda: self.covered, health, path)
        self.prober = self.renewed()

    def renewed(self, probed: Probed | None = None, before: Prober | None = None) -> Prober:
        return Prober(
            probed or self.probed,
            clock=self.clock,
            watch=self.watch,
            jitter=lambda: 0.5,
            before=before,
        )

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


# What is asked.


async def test_a_backends_own_probe_comes_first() -> None:
    own = Own()
    own.answers.put_nowait(None)
    desk = Desk(own, health=HealthConfig(), path="/healthz")

    await desk.prober.look()

    send = own.asked.get_nowait()
    assert desk.prober.result
    assert desk.prober.result.ok
    assert desk.endpoint.sent == []
    await send(Outbound("POST", "/mcp", []), dispatches=False)
    assert desk.endpoint.deadline == desk.clock.now() + 2.0


async def test_without_one_the_health_path_is_asked() -> None:
    desk = Desk(health=HealthConfig(), path="/api/health?deep=1")

    await desk.prober.look()

    [outbound] = desk.endpoint.sent
    assert (outbound.method, outbound.target, outbound.body) == ("GET", "/api/health?deep=1", b"")
    assert desk.prober.result
    assert desk.prober.result.ok


@pytest.mark.parametrize("status", [301, 404, 500, 503])
async def test_any_status_but_2xx_is_a_bad_probe(status: int) -> None:
    desk = Desk(health=HealthConfig(), path="/health")
    desk.endpoint.reply = Reply(status)

    await desk.prober.look()

    assert desk.prober.result
    assert not desk.prober.result.ok
    assert desk.prober.result.detail == f"status {status}"


async def test_an_endless_answer_is_not_read() -> None:
    body = Stream()
    desk = Desk(health=HealthConfig(), path="/health")
    desk.endpoint.reply = Reply(200, body=body)

    await desk.prober.look()

    assert body.closed
    assert desk.prober.result
    assert desk.prober.result.ok


async def test_without_a_path_a_connection_is_proof_enough() -> None:
    desk = Desk(health=HealthConfig(), timeout=30.0)

    await desk.prober.look()

    assert desk.endpoint.connects == 1
    assert desk.endpoint.deadline == desk.clock.now() + 10.0, "a probe is lost after its lease"


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

    assert desk.endpoint.connects == 0
    assert desk.prober.result is None
    assert desk.prober.well is None


async def test_an_open_breaker_is_left_alone_until_its_time() -> None:
    desk = Desk()
    desk.open()
    desk.clock.advance(59.9)

    await desk.prober.look()

    assert desk.endpoint.connects == 0
    assert desk.changes == []


async def test_a_good_probe_lets_an_open_breaker_try_real_exchanges() -> None:
    desk = Desk()
    desk.half_open()

    await desk.prober.look()

    assert desk.changes == [(State.HALF_OPEN, "time_up")]
    assert desk.breaker.admit(desk.clock.now(), safe=True, covered=True)
    await desk.prober.look()
    assert desk.endpoint.connects == 1


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

    assert desk.endpoint.connects == 1
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

    assert desk.endpoint.connects == 3


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
        self.probes = Probes(
            clock=desk.clock, watch=self.watch, tasks=self.tasks, jitter=self.jitter
        )
        self.watch.wake = self.probes.wake
        self.probes.use([desk.probed])

    def jitter(self) -> float:
        """Asked for once a result is in: the moment at which it is known."""
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


async def test_the_task_probes_at_start() -> None:
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

        renewed = Probed(desk.arm, lambda: True, HealthConfig(every=5.0))
        house.probes.use([renewed])

        assert house.probes.well("mcp") is False
        assert house.probes.result("mcp")
        desk.clock.advance(5.0)
        house.probes.wake("mcp")
        await own.asked.get()

        house.probes.use([])
        assert house.probes.result("mcp") is None
        assert house.probes.well("mcp") is None
        house.probes.wake("mcp")


async def test_active_health_can_be_switched_on_by_a_reload() -> None:
    desk = Desk()
    with_health = Probed(desk.arm, lambda: True, HealthConfig())

    renewed = desk.renewed(with_health, before=desk.prober)
    await renewed.look()

    assert renewed.well is True


async def test_a_probe_lost_to_a_reload_does_not_wedge_the_breaker() -> None:
    own = Own()
    desk = Desk(own)
    desk.half_open()
    async with House(desk) as house:
        await own.asked.get()
        house.probes.use([desk.probed])
        desk.clock.advance(10.0)
        house.probes.wake("mcp")

        await own.asked.get()
        assert own.most == 1
