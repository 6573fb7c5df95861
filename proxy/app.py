"""The composition root: builds the parts, wires them, starts them, drains them."""

from __future__ import annotations

import asyncio
import os
import random
from contextlib import AsyncExitStack

from structlog.typing import FilteringBoundLogger

from proxy.adapters.access import AccessLog
from proxy.adapters.catalogue_file import CatalogueFiles
from proxy.adapters.catalogues import Catalogues
from proxy.adapters.certificates import Certificates
from proxy.adapters.clock import LoopClock
from proxy.adapters.descriptors import descriptors
from proxy.adapters.lag import LagWatch
from proxy.adapters.listener import Listener
from proxy.adapters.metrics import Metrics
from proxy.adapters.probes import Probed, Probes
from proxy.adapters.replay_file import ReplayFile
from proxy.adapters.rules_file import LoadedRules
from proxy.adapters.rules_watch import RulesWatch
from proxy.adapters.session_key import session_key
from proxy.adapters.tasks import Tasks
from proxy.adapters.upstream import Sweep
from proxy.adapters.watch import Watcher
from proxy.ageing import Ageing
from proxy.arm_rules import probed, sources
from proxy.attempt import Attempts
from proxy.cached import Cached
from proxy.core.model import Kind, Reply
from proxy.core.replay import ReplayGuard
from proxy.core.replay_events import EventGuard
from proxy.core.rules import Address, Rules
from proxy.core.rules.admission import start_warnings
from proxy.core.rules.fault_text import described
from proxy.doors import Doors
from proxy.durable import Durable
from proxy.errands import Errands
from proxy.errors import RulesError
from proxy.fixed import (
    descriptor_warnings,
    fixed_at_start,
    listener_options,
    places,
    where_it_listens,
    with_flags,
)
from proxy.fleet import Fleet
from proxy.handler import Handler
from proxy.handover import Handover
from proxy.inherited import Inherited
from proxy.line import Line
from proxy.once import Once
from proxy.operations import Condition, SidecarOperations
from proxy.pages import runners
from proxy.ports import Arm
from proxy.redelivery import Redelivery
from proxy.sessions import Sessions
from proxy.settings import Settings
from proxy.wire_faults import WireFaults
from proxy.wiring import Prepared, Wiring, same_answers


class App:
    """One sidecar in one process, on a running loop.

    `access_fd` is where access lines go; None: nowhere.  `inherited` is what it begins with.
    """

    def __init__(
        self,
        loaded: LoadedRules,
        settings: Settings,
        log: FilteringBoundLogger,
        *,
        access_fd: int | None = None,
        inherited: Inherited | None = None,
    ) -> None:
        self._inherited = inherited or Inherited()
        loaded = with_flags(loaded, settings, self._inherited.addresses)
        rules = loaded.rules
        self._fixed = fixed_at_start(rules)
        self.log = log
        self.clock = clock = LoopClock()
        self.tasks = Tasks(self._crashed)
        self._access = self._access_log(access_fd if rules.listen.access_log else None)
        self.lag = LagWatch(clock.now)
        self.metrics = Metrics(rules.metrics.namespace)
        self.watcher = Watcher(
            self.metrics, log, now=clock.now, access=self._access, to=rules.split.to
        )
        self.probes = Probes(clock=clock, watch=self.watcher, tasks=self.tasks)
        self.watcher.breaker_hook = self._breaker_changed
        self.certificates = Certificates(clock=clock, log=log)
        self.wiring = self._wires(settings)
        self.fleet = Fleet(self.wiring, clock)
        prepared = self.wiring.prepare(rules, self._health)
        self.once = Once(ReplayGuard(), EventGuard(), clock=clock, watch=self.watcher)
        self.cached = Cached(clock=clock, watch=self.watcher)
        self.sessions = Sessions(watch=self.watcher, new_id=new_id)
        self.state = self._inherited.state(rules.state_dir)
        self._replays = ReplayFile(self.state, clock=clock, log=log)
        self.catalogues = Catalogues(
            clock=clock, log=log, tasks=self.tasks, files=CatalogueFiles(self.state, log)
        )
        self._session_key = session_key(self.state, log, shared=bool(prepared.session_keys))
        self._settings = settings
        self.ageing = Ageing(clock=clock, log=log, length=settings.secret_length)
        self.durable = self._outbox()
        self.handler = self._path(prepared.line)
        faults = WireFaults(lambda: self.handler.line, self.watcher, clock, new_id)
        options = listener_options(rules, descriptors())
        self.listener = Listener(
            self.handler.handle, faults.answer, options=options, tls=self.certificates
        )
        self.doors = Doors(self.listener, self._inherited)
        now_ms = clock.wall_ms()
        self.condition = Condition(loaded, now_ms, now_ms)
        self.operations = self._desk()
        self.rules_watch = self._rules_watch(loaded)
        self.handover = self._handover()
        self._closing = AsyncExitStack()
        self._show_parts()
        self._take(prepared, loaded)

    async def start(self) -> None:
        """Listen and serve; raises `OSError` if an address cannot be had."""
        closing, rules, start = self._closing, self.condition.loaded.rules, self.tasks.start
        closing.callback(self.state.close)
        closing.push_async_callback(self.tasks.aclose)
        closing.push_async_callback(self.fleet.aclose)
        closing.push_async_callback(self.probes.aclose)
        closing.push_async_callback(self.catalogues.aclose)
        closing.push_async_callback(self.doors.aclose)
        self.doors.claim(places(rules))
        self._inherited.close()
        closing.push_async_callback(self.durable.stop, 0.0)
        await self._inherited.learn(
            self.once, self.durable, self.state, self._replays, clock=self.clock, start=start
        )
        await self.doors.open(
            runners(
                self.operations,
                token=lambda: self._admin_token,
                watcher=self.watcher,
                log=self.log,
                observed=rules.listen.observe is not None,
            )
        )
        self.handover.open()
        closing.push_async_callback(self.handover.close)
        start(self.rules_watch.watch(), "rules watch")
        start(self.certificates.watch(), "certificates")
        start(self.once.tidy(), "replay guard")
        start(self.ageing.remind(), "ages of secrets")
        self.lag.start()
        closing.callback(self.lag.stop)
        self.condition.reasons.remove("starting")
        self.log.info(
            "sidecar_started",
            address=str(Address(*self.listener.address)),
            admin=str(Address(*self.admin_address)),
            pid=os.getpid(),
            rules=str(self.condition.loaded.path),
            digest=self.condition.loaded.digest,
        )

    @property
    def admin_address(self) -> tuple[str, int]:
        """Host and port of the pages for operators."""
        return self.doors.address("admin") or ("", 0)

    @property
    def observe_address(self) -> tuple[str, int] | None:
        """Host and port of the pages for kubelets; None: there are none."""
        return self.doors.address("observe")

    async def reload(self) -> None:
        """Read rules and secrets anew, changed or not."""
        await self.rules_watch.reload(force=True)

    async def drain(self) -> int:
        """Let what runs finish, then close everything; the number of exchanges cut short."""
        grace = self.condition.loaded.rules.listen.drain_grace
        self.condition.reasons.append("draining")
        self.log.info("drain_started", inflight=self.handler.inflight, grace=grace)
        ends = self.clock.now() + grace
        self.handler.lasting.end()
        followed = self.handover.successor is not None
        # Where another process accepts nobody is in a hurry: each caller's next answer sends him.
        cut = await self.listener.drain(grace, idle=grace if followed else None)
        await self.durable.stop(max(0.0, ends - self.clock.now()))
        await self.probes.aclose()
        await self.catalogues.aclose()
        if (before := self._inherited.before) is not None:
            await before.ended(max(0.0, ends - self.clock.now()))
        await self.fleet.finish(ends)
        await self.handover.close(max(0.0, ends - self.clock.now()))
        self._replays.save(self.once.guard, self.once.events)
        await self.aclose()
        self.log.info("sidecar_stopped", cut=cut)
        return cut

    def hurry(self) -> None:
        """Cut a running drain short."""
        self.fleet.hurry()
        self.listener.hurry()
        self.durable.hurry()
        self.handover.hurry()
        if (before := self._inherited.before) is not None:
            before.close()

    async def aclose(self) -> None:
        """Close every part but the listener; harmless a second time."""
        await self._closing.aclose()
        if self._access is not None:
            self._access.close()

    def _apply(self, loaded: LoadedRules) -> None:
        """Put newly loaded rules into force; raises a `CallsplitError`, and the old ones stay."""
        loaded = with_flags(loaded, self._settings, self._inherited.addresses)
        rules = where_it_listens(loaded.rules, self._fixed)
        self._take(self.wiring.prepare(rules, self._health), loaded)
        self._warn_of_fixed(loaded.rules)

    def _take(self, prepared: Prepared, loaded: LoadedRules) -> None:
        """From here on nothing can fail, and every new exchange sees the new rules."""
        self.fleet.retire(self.wiring.commit(prepared))
        self.metrics.pools, self.metrics.breakers = self.wiring.upstreams, self.wiring.breakers
        line, rules, condition = prepared.line, prepared.rules, self.condition
        before = condition.loaded.digest
        self.handler.line, self._admin_token = line, prepared.admin_token
        self.sessions.use((*prepared.session_keys, self._session_key))
        self.durable.use(rules)
        self.listener.use(listener_options(rules, descriptors()))
        self.cached.use(line.tools, arms=same_answers(rules), call_ids=rules.split.call_id_query)
        self.catalogues.use(sources(rules, line.arms.values()), line.tools)
        condition.loaded, condition.fault = loaded, None
        condition.taken_ms = self.clock.wall_ms()
        self.watcher.to, self.watcher.tools = line.to, line.tools.names
        self.metrics.rules_taken(loaded.digest, wall_seconds=condition.taken_ms / 1000)
        self.metrics.target_ratio.set_function(
            lambda: line.splitter.present(self.clock.wall_ms()).share / 100
        )
        self.metrics.at_start(
            line.arms, live=lambda arm: line.splitter.live(arm, self.clock.wall_ms())
        )
        for name, arm in line.arms.items():
            self.metrics.show_breaker(name, arm.breaker.state)
        self.probes.use(self._probed(rules, arm) for arm in line.arms.values())
        condition.warnings = [described(warning) for warning in loaded.warnings]
        condition.warnings += start_warnings(rules, self._settings.has_secret)
        condition.warnings += descriptor_warnings(rules, descriptors())
        for warning in [*condition.warnings, *self.ageing.use(rules)]:
            self.log.warning("rules_warned", message=warning)
        self.log.info("rules_loaded", before=before, digest=loaded.digest, path=str(loaded.path))

    def _refuse(self, error: RulesError) -> None:
        """A rules file that cannot be used: the last good one stays, and everybody can see it."""
        faults = [described(fault) for fault in error.faults]
        self.condition.fault = "; ".join(faults)
        self.metrics.reload_success.set(0)
        self.log.error("rules_refused", faults=faults)

    def _warn_of_fixed(self, rules: Rules) -> None:
        """Tell of changes that only a restart brings into force."""
        before = self._fixed
        for name, value in fixed_at_start(rules).items():
            if value != before[name]:
                self.log.warning("restart_needed", key=name, running=str(before[name]))

    def _probed(self, rules: Rules, arm: Arm) -> Probed:
        def covered() -> bool:
            line = self.handler.line
            if arm.name not in (line.to, line.otherwise):
                return False
            return line.rescuer(arm.name, Kind.FUNCTION, self.clock.wall_ms()) is not None

        return probed(rules, arm, covered)

    def _breaker_changed(self, arm: str) -> None:
        self.probes.wake(arm)
        self.catalogues.wake(arm)
        self.durable.breaker_changed(arm)

    def _health(self) -> Reply:
        return self.operations.health()

    def _crashed(self, name: str, error: BaseException) -> None:
        self.log.error("task_crashed", task=name, exc_info=error)

    def _access_log(self, fd: int | None) -> AccessLog | None:
        if fd is None:
            return None
        later = asyncio.get_running_loop().call_later
        return AccessLog(fd, later=later, now=self.clock.now, wall_ms=self.clock.wall_ms)

    def _wires(self, settings: Settings) -> Wiring:
        clock, start = self.clock, self.tasks.start
        return Wiring(
            clock=clock,
            watch=self.watcher,
            sweep=Sweep(clock),
            secret=settings.secret,
            certificates=self.certificates,
            load=self._load,
            catalogue=lambda arm: self.catalogues.of(arm),
            aside=Errands(clock=clock, log=self.log, start=start).over,
            own=new_id().encode(),
        )

    def _outbox(self) -> Durable:
        clock, start = self.clock, self.tasks.start
        attempts = Attempts(clock=clock, watch=self.watcher, start=start)
        return Durable(
            self.state,
            Redelivery(lambda: self.handler.line, attempts, clock=clock, new_id=new_id),
            secret=self._settings.secret,
            clock=clock,
            figures=self.metrics.outbox,
            log=self.log,
            tasks=self.tasks,
        )

    def _path(self, line: Line) -> Handler:
        return Handler(
            line,
            once=self.once,
            cached=self.cached,
            sessions=self.sessions,
            outbox=self.durable,
            clock=self.clock,
            watch=self.watcher,
            new_id=new_id,
            start=self.tasks.start,
        )

    def _handover(self) -> Handover:
        return Handover(
            self.doors,
            self.once,
            self.durable,
            state=self.state,
            replays=self._replays,
            draining=lambda: "draining" in self.condition.reasons,
            clock=self.clock,
            log=self.log,
            start=self.tasks.start,
        )

    def _rules_watch(self, loaded: LoadedRules) -> RulesWatch:
        return RulesWatch(
            loaded,
            self._settings.environment,
            apply=self._apply,
            refuse=self._refuse,
            secrets=self._settings.fingerprint,
        )

    def _desk(self) -> SidecarOperations:
        return SidecarOperations(
            self.condition,
            clock=self.clock,
            handler=self.handler,
            listener=self.listener,
            probes=self.probes,
            catalogues=self.catalogues,
            watcher=self.watcher,
            wiring=self.wiring,
            guard=self.once.guard,
            durable=self.durable,
            ageing=self.ageing,
            certificates=self.certificates,
        )

    def _show_parts(self) -> None:
        """Figures that are read off the parts when somebody asks."""
        self.metrics.inflight.set_function(lambda: self.handler.inflight)
        self.metrics.runs = self.once.guard.store
        self.metrics.secrets_since = self.ageing.since
        self.metrics.certificates = self.certificates
        self.metrics.callers = lambda: self.listener.room
        cache = self.cached.cache
        self.metrics.cache_entries.set_function(lambda: len(cache))
        self.metrics.cache_bytes.set_function(lambda: cache.bytes)
        self.metrics.loop_lag.set_function(lambda: self.lag.seconds)
        if (access := self._access) is not None:
            self.metrics.access_dropped.set_function(lambda: access.dropped)

    def _load(self) -> tuple[int, float]:
        """Work under way; a body that is still arriving is its sender's time, and no work yet."""
        return self.handler.inflight - self.listener.arriving, self.lag.seconds


def new_id() -> str:
    """A request's ID: 32 hex digits, drawn by lot."""
    return random.getrandbits(128).to_bytes(16).hex()
