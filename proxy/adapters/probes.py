"""Are the arms well, also while no call asks them?  One task per arm probes when it is due.

Due is active health, by its interval, and the one probe that decides whether an open breaker may
try real exchanges.  Between probes a task sleeps until the earlier of the two, or `wake`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

from proxy.adapters.asking import GRACE, Asking, ask, outcome
from proxy.adapters.per_arm import Alarm, PerArm
from proxy.adapters.tasks import Tasks
from proxy.core.breaker import Breaker, Permit, Transition
from proxy.core.health import Health, HealthConfig, ProbeResult
from proxy.ports import Arm, Clock, Watch

__all__ = ["Asking", "ProbeResult", "Probed", "Probes"]

Leased: TypeAlias = list[tuple[Breaker, Permit]]
"""Who waits for a probe, the arm's own breaker before its tools'."""


@dataclass(frozen=True, slots=True)
class Probed:
    """An arm that is probed, and how.

    `health` None: only its breaker asks for probes.  `covered()`: its calls can be rescued, so that
    its breaker may open on bad probes alone.
    """

    arm: Arm
    covered: Callable[[], bool]
    health: HealthConfig | None = None
    asking: Asking = field(default_factory=Asking)


class Prober:
    """Probes one arm, never twice at a time.  Runs until it is cancelled."""

    def __init__(
        self, probed: Probed, *, clock: Clock, watch: Watch, jitter: Callable[[], float]
    ) -> None:
        self._probed = probed
        self._clock = clock
        self._watch = watch
        self._jitter = jitter
        self._alarm = Alarm()
        self._under_way: asyncio.Timeout | None = None  # of the probe, while there is one
        self._latest: ProbeResult | None = None
        self._health: Health | None = None
        self.adopt(probed)

    @property
    def well(self) -> bool | None:
        """What active health says; None if there is none, or not yet."""
        return self._health.well if self._health is not None else None

    @property
    def result(self) -> ProbeResult | None:
        """The latest probe, None if none speaks of now.

        Without active health a bad one is out of date once the breaker lets calls pass.
        """
        latest, passing = self._latest, self._probed.arm.breaker.is_passing
        if latest is not None and self._health is None and passing and not latest.ok:
            return None
        return latest

    def adopt(self, probed: Probed) -> None:
        """Go on under changed rules: what is known stays, and a probe under way goes on.

        Unless the arm has moved: what the probe would hear is of where it was.
        """
        moved, self._probed = probed.arm.upstream is not self._probed.arm.upstream, probed
        if moved and self._under_way is not None and not self._under_way.expired():
            self._under_way.reschedule(asyncio.get_running_loop().time())
        config, health, now = probed.health, self._health, self._clock.now()
        if config is None:
            self._health = None
        elif health is None:
            self._health = Health(config, now, jitter=self._jitter())
        elif config != health.config:
            health.configure(config, now, jitter=self._jitter())
        self.wake()

    def wake(self) -> None:
        """Look again what is due: the breaker has changed."""
        self._alarm.ring()

    async def run(self) -> None:
        """Sleep, probe, tell; for ever."""
        while True:
            await self._rest()
            await self.look()

    async def _rest(self) -> None:
        """Until something is due or `wake`."""
        due = self._probed.arm.breaker.look_at()
        if self._health is not None:
            due = self._health.due_at if due is None else min(due, self._health.due_at)
        await self._alarm.sleep(None if due is None else due - self._clock.now())

    async def look(self) -> None:
        """Do what is due now, if anything."""
        probed, now = self._probed, self._clock.now()
        breaker = probed.arm.breaker
        for each in breaker.awaiting():
            self._tell(each.tick(now))
        leased = [(each, permit) for each in breaker.awaiting() if (permit := each.probe_due(now))]
        if not leased and (self._health is None or now < self._health.due_at):
            return
        try:
            result = await self._probe(probed, now)
        except asyncio.CancelledError:
            self._cut(leased)
            raise
        if probed.arm.upstream is not self._probed.arm.upstream:
            self._cut(leased)
        elif result is None:
            self._postpone()
        else:
            self._latest = result
            self._settle(result, leased, self._clock.now())

    async def _probe(self, probed: Probed, began: float) -> ProbeResult | None:
        """One probe; None if it said nothing of the arm, because it never got there."""
        arm, patience = probed.arm, probed.asking.timeout
        if patience is None:
            patience = min(arm.timeout, arm.breaker.config.probe_lease)
        question = ask(arm, probed.asking, began + patience)
        self._under_way = asyncio.timeout(patience + GRACE)
        try:
            detail = await outcome(
                question, self._under_way, crashed=self._crashed, otherwise="not well"
            )
        finally:
            self._under_way = None
        if detail is None:
            return None
        ms = (self._clock.now() - began) * 1000
        return ProbeResult(not detail, self._clock.wall_ms(), ms, detail)

    def _crashed(self, bug: Exception) -> None:
        self._watch.crashed(f"probe {self._probed.arm.name}", bug)

    def _settle(self, result: ProbeResult, leased: Leased, now: float) -> None:
        arm = self._probed.arm
        for breaker, permit in leased:
            if breaker is arm.breaker or arm.breaker.is_asked:
                self._tell(breaker.probe_ended(permit, result.ok, now))
            else:  # The arm has just failed: that says nothing of its tools.
                breaker.probe_cut(permit, now)
        if self._health is None:
            return
        changed = self._health.heard(result.ok, now, jitter=self._jitter())
        if self._health.well is False and not result.ok:
            self._unwell(result.detail, now, news=changed)

    def _cut(self, leased: Leased) -> None:
        now = self._clock.now()
        for breaker, permit in leased:
            breaker.probe_cut(permit, now)

    def _postpone(self) -> None:
        """The leases run out by themselves: whoever probed again at once would do so for ever."""
        if self._health is not None:
            self._health.postpone(self._clock.now(), jitter=self._jitter())

    def _unwell(self, detail: str, now: float, *, news: bool) -> None:
        """Open the breaker where others can answer; closing off the only arm would help nobody."""
        arm = self._probed.arm
        if self._probed.covered():
            self._tell(arm.breaker.trip(now))
        elif news:
            detail = f"unhealthy, and no other arm may answer: {detail}"
            self._watch.config_fault(arm.name, detail)

    def _tell(self, change: Transition | None) -> None:
        if change is not None:
            self._watch.breaker_changed(self._probed.arm.name, change)


class Probes:
    """The probers of one rule set; a reload keeps those whose arm stays."""

    def __init__(
        self,
        *,
        clock: Clock,
        watch: Watch,
        tasks: Tasks,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._clock = clock
        self._watch = watch
        self._jitter = jitter
        self._probers: PerArm[Prober] = PerArm(tasks, "probes")

    def use(self, arms: Iterable[Probed]) -> None:
        """Probe these arms, and no others."""
        wanted = {probed.arm.name: probed for probed in arms}
        for name, _ in self._probers:
            if name not in wanted:
                self._probers.end(name)
        for name, probed in wanted.items():
            prober = self._probers.get(name)
            if prober is not None:
                prober.adopt(probed)
            else:
                prober = Prober(probed, clock=self._clock, watch=self._watch, jitter=self._jitter)
                self._probers.begin(name, prober)

    def wake(self, arm: str) -> None:
        """Look at once what is due at `arm`; call it whenever its breaker has changed."""
        self._probers.wake(arm)

    def result(self, arm: str) -> ProbeResult | None:
        """The latest probe of `arm`; None if none speaks of now."""
        prober = self._probers.get(arm)
        return prober.result if prober is not None else None

    def well(self, arm: str) -> bool | None:
        """What active health says of `arm`; None if it says nothing."""
        prober = self._probers.get(arm)
        return prober.well if prober is not None else None

    async def aclose(self) -> None:
        """Stop probing."""
        await self._probers.aclose()
