"""Are the arms well, also while no call asks them?  One task per arm probes when it is due.

Due is active health, by its interval, and the one probe that decides whether an open breaker may
try real exchanges.  Between probes a task sleeps until the earlier of the two, or `wake`.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from backends.base import close
from proxy.adapters.tasks import Tasks
from proxy.core.breaker import Permit, Transition
from proxy.core.health import Health, HealthConfig, ProbeResult
from proxy.core.model import Headers, Outbound, Reply
from proxy.errors import ProbeFailed, UpstreamFailed
from proxy.ports import Arm, Clock, Watch

__all__ = ["ProbeResult", "Probed", "Probes", "ask"]

GRACE: Final = 0.25
"""Seconds after the upstream's own deadline; only a backend's own waits ever need them."""

_HEADERS: Final[Headers] = [(b"accept", b"*/*"), (b"user-agent", b"callsplit-probe")]


@dataclass(frozen=True, slots=True)
class Probed:
    """An arm that is probed, and how.

    `health` None: only its breaker asks for probes.  `covered()`: its calls can be rescued, so that
    its breaker may open on bad probes alone.
    """

    arm: Arm
    covered: Callable[[], bool]
    health: HealthConfig | None = None
    health_path: str = ""


async def ask(probed: Probed, deadline: float) -> None:
    """One probe: the backend's own, else GET `health_path`, else a connection.

    Raises `ProbeFailed` or `UpstreamFailed` if the arm is not well.
    """
    upstream = probed.arm.upstream

    async def send(outbound: Outbound, *, dispatches: bool = True) -> Reply:
        return await upstream.send(outbound, [], deadline=deadline)

    own = getattr(probed.arm.backend, "probe", None)
    if own is not None:
        await own(send)
    elif probed.health_path:
        reply = await send(Outbound("GET", probed.health_path, list(_HEADERS)))
        if not isinstance(reply.body, bytes):
            await close(reply.body)
        if not 200 <= reply.status < 300:
            raise ProbeFailed(f"status {reply.status}")
    else:
        await upstream.connect(deadline=deadline)


class Prober:
    """Probes one arm, never twice at a time.  Runs until it is cancelled."""

    def __init__(
        self,
        probed: Probed,
        *,
        clock: Clock,
        watch: Watch,
        jitter: Callable[[], float],
        before: Prober | None = None,
    ) -> None:
        self._probed = probed
        self._arm = probed.arm
        self._clock = clock
        self._watch = watch
        self._jitter = jitter
        self._woken = asyncio.Event()
        self._latest: ProbeResult | None = before._latest if before is not None else None
        self._health = self._take_over(before)

    @property
    def well(self) -> bool | None:
        """What active health says; None if there is none, or not yet."""
        return self._health.well if self._health is not None else None

    @property
    def result(self) -> ProbeResult | None:
        """The latest probe, None if none speaks of now.

        Without active health a bad one is out of date once the breaker lets calls pass.
        """
        latest, passing = self._latest, self._arm.breaker.is_passing
        if latest is not None and self._health is None and passing and not latest.ok:
            return None
        return latest

    def wake(self) -> None:
        """Look again what is due: the breaker has changed."""
        self._woken.set()

    async def run(self) -> None:
        """Sleep, probe, tell; for ever."""
        while True:
            await self._rest()
            await self.look()

    def _take_over(self, before: Prober | None) -> Health | None:
        config, now = self._probed.health, self._clock.now()
        if config is None:
            return None
        if before is None or before._health is None:
            return Health(config, now)
        before._health.configure(config, now)
        return before._health

    async def _rest(self) -> None:
        """Until something is due or `wake`."""
        due = self._arm.breaker.probe_at()
        if self._health is not None:
            due = self._health.due_at if due is None else min(due, self._health.due_at)
        patience = None if due is None else due - self._clock.now()
        if patience is None or patience > 0:
            try:
                async with asyncio.timeout(patience):
                    await self._woken.wait()
            except TimeoutError:
                pass
        self._woken.clear()

    async def look(self) -> None:
        """Do what is due now, if anything."""
        breaker, now = self._arm.breaker, self._clock.now()
        self._tell(breaker.tick(now))
        permit = breaker.probe_due(now)
        if permit is None and (self._health is None or now < self._health.due_at):
            return
        result = await self._probe(now)
        self._latest = result
        self._settle(result, permit, self._clock.now())

    async def _probe(self, began: float) -> ProbeResult:
        patience = min(self._arm.timeout, self._arm.breaker.config.probe_lease)
        detail = ""
        try:
            async with asyncio.timeout(patience + GRACE):
                await ask(self._probed, began + patience)
        except TimeoutError:
            detail = "timeout: no answer in time"
        except (ProbeFailed, UpstreamFailed) as failure:
            detail = str(failure) or "not well"
        except Exception as bug:  # of a user's backend: it must not end the probing
            self._watch.crashed(f"probe {self._arm.name}", bug)
            detail = f"crashed: {type(bug).__name__}"
        ms = (self._clock.now() - began) * 1000
        return ProbeResult(not detail, self._clock.wall_ms(), ms, detail)

    def _settle(self, result: ProbeResult, permit: Permit | None, now: float) -> None:
        if permit is not None:
            self._tell(self._arm.breaker.probe_ended(permit, result.ok, now))
        if self._health is None:
            return
        changed = self._health.heard(result.ok, now, jitter=self._jitter())
        if self._health.well is False and not result.ok:
            self._unwell(result.detail, now, news=changed)

    def _unwell(self, detail: str, now: float, *, news: bool) -> None:
        """Open the breaker where others can answer; closing off the only arm would help nobody."""
        if self._probed.covered():
            self._tell(self._arm.breaker.trip(now))
        elif news:
            detail = f"unhealthy, and no other arm may answer: {detail}"
            self._watch.config_fault(self._arm.name, detail)

    def _tell(self, change: Transition | None) -> None:
        if change is not None:
            self._watch.breaker_changed(self._arm.name, change)


class Probes:
    """The probers of one rule set; a reload replaces them and keeps what they know."""

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
        self._tasks = tasks
        self._jitter = jitter
        self._probers: dict[str, Prober] = {}
        self._running: list[asyncio.Task[None]] = []

    def use(self, arms: Iterable[Probed]) -> None:
        """Probe these arms, and no others."""
        self._stop()
        before, self._probers = self._probers, {}
        for probed in arms:
            name = probed.arm.name
            prober = Prober(
                probed,
                clock=self._clock,
                watch=self._watch,
                jitter=self._jitter,
                before=before.get(name),
            )
            self._probers[name] = prober
            self._running.append(self._tasks.start(prober.run(), f"probes {name}"))

    def wake(self, arm: str) -> None:
        """Look at once what is due at `arm`; call it whenever its breaker has changed."""
        prober = self._probers.get(arm)
        if prober is not None:
            prober.wake()

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
        running = self._running
        self._stop()
        if running:
            await asyncio.wait(running)

    def _stop(self) -> None:
        for task in self._running:
            task.cancel()
        self._running = []
