"""What an operator sees and may do: fits the admin's `Operations` port.

Reads the parts of a running sidecar; every value is plain JSON, without secrets or call data.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import asdict, dataclass, field
from typing import Any

from msgspec import structs
from prometheus_client.exposition import choose_encoder

from proxy import __version__
from proxy.adapters.catalogues import Catalogues
from proxy.adapters.certificates import Certificates
from proxy.adapters.clock import LoopClock
from proxy.adapters.listener import Listener
from proxy.adapters.logs import stamp
from proxy.adapters.probes import Probes
from proxy.adapters.rules_file import LoadedRules
from proxy.adapters.watch import Watcher
from proxy.ageing import Ageing
from proxy.core.breaker_values import Snapshot, State
from proxy.core.example import example_call
from proxy.core.explain import explain
from proxy.core.guide_health import ArmHealth, health_reply
from proxy.core.health import ProbeResult
from proxy.core.model import Reply
from proxy.core.replay import ReplayGuard
from proxy.core.replay_values import RunState
from proxy.core.rules.show import shown, shown_url
from proxy.durable import Durable
from proxy.handler import Handler
from proxy.outbox_desk import OutboxDesk
from proxy.wiring import Wiring

ACTIONS = {
    "open": State.FORCED_OPEN,
    "close": State.FORCED_CLOSED,
    "metrics-only": State.METRICS_ONLY,
}

HELD = frozenset({RunState.UNKNOWN, RunState.IN_FLIGHT})
REPLAY_STATES = {
    "held": HELD,
    "all": HELD | {RunState.DONE},
    **{str(state): frozenset({state}) for state in (*HELD, RunState.DONE)},
}
MOST_RECORDS = 1000
"""On one page."""


@dataclass(slots=True)
class Condition:
    """How the process is, beyond its parts; the app writes it, the pages read it."""

    loaded: LoadedRules
    taken_ms: int
    started_ms: int
    reasons: list[str] = field(default_factory=lambda: ["starting"])  # why not ready
    fault: str | None = None  # why the newest rules file is not in force
    warnings: list[str] = field(default_factory=list)  # what is worth a look in those in force
    restart_failed: str = ""  # why no other process has followed, when one was to


class SidecarOperations:
    """The pages' values, read off the parts."""

    def __init__(
        self,
        condition: Condition,
        *,
        clock: LoopClock,
        handler: Handler,
        listener: Listener,
        probes: Probes,
        watcher: Watcher,
        wiring: Wiring,
        durable: Durable,
        guard: ReplayGuard | None = None,
        catalogues: Catalogues | None = None,
        ageing: Ageing | None = None,
        certificates: Certificates | None = None,
    ) -> None:
        self.outbox = OutboxDesk(durable, clock)
        self._condition = condition
        self._clock = clock
        self._handler = handler
        self._listener = listener
        self._probes = probes
        self._watcher = watcher
        self._wiring = wiring
        self._guard = guard or ReplayGuard()
        self._catalogues = catalogues
        self._ageing = ageing
        self._certificates = certificates

    def unready(self) -> list[str]:
        """Why traffic is not welcome.  Never because of the arms: rescue and last answer work."""
        return list(self._condition.reasons)

    def status(self) -> dict[str, Any]:
        """One page."""
        condition, line, ageing = self._condition, self._handler.line, self._ageing
        certificates = self._certificates
        dated = [part for part in (ageing, certificates) if part is not None]
        present = line.splitter.present(self._clock.wall_ms())
        return {
            "version": __version__,
            "started_at": stamp(condition.started_ms),
            "ready": not condition.reasons,
            "process": {"pid": os.getpid(), "restart_failed": condition.restart_failed or None},
            "split": {
                "to": present.to,
                "otherwise": present.otherwise,
                "percent": present.percent,
                "cap": present.cap,
                "kill_switch": present.kill,
                "in_force_percent": present.share,
                "actual_percent": round(self._watcher.ratio.value() * 100, 2),
                "changed_at": stamp(present.at_ms),
                "changed_by": present.who,
            },
            "arms": {name: self._arm(name) for name in line.arms},
            "inflight": self._handler.inflight,
            "connections": self._listener.open_connections,
            "tasks": len(asyncio.all_tasks()),
            "rules": {
                "path": str(condition.loaded.path),
                "digest": condition.loaded.digest,
                "taken_at": stamp(condition.taken_ms),
                "warnings": sum((part.warnings() for part in dated), condition.warnings),
                "fault": condition.fault,
            },
            "secrets": ageing.page() if ageing else [],
            "certificates": certificates.page() if certificates else [],
            "outbox": self.outbox.summary(),
            "state": condition.loaded.rules.state,
        }

    def config(self) -> dict[str, Any]:
        """The rules in force; a secret shows as the reference that leads to it."""
        loaded = self._condition.loaded
        return {"digest": loaded.digest, "rules": shown(loaded.rules)}

    def explain(self, call_id: str | None, body: bytes | None) -> dict[str, Any]:
        """Why a call goes where it goes, from its ID or from a request's whole body."""
        line = self._handler.line
        call = example_call(call_id, body, line.ids)
        return explain(line.splitter, call, self._clock.wall_ms()).to_dict()

    def breakers(self) -> dict[str, Any]:
        """Every arm's breaker."""
        return {name: self._breaker(name) for name in self._handler.line.arms}

    def change_breaker(self, arm: str, action: str, tool: str = "") -> dict[str, Any]:
        """An operator's hand on a tool's breaker, or on an arm's and those of all its tools."""
        of_arm, now = self._handler.line.arms[arm].breaker, self._clock.now()
        breaker = of_arm.tools[tool] if tool else of_arm
        if action != "reset" and action not in ACTIONS:
            raise ValueError(f"Expected reset, {', '.join(ACTIONS)}.")
        before = breaker.state
        for each in [breaker] if tool else of_arm.each():
            change = each.reset(now) if action == "reset" else each.force(ACTIONS[action], now)
            if change is not None:
                self._watcher.breaker_changed(arm, change)
        return {"before": before, "after": breaker.state}

    def replays(self, state: str, call_id: str | None) -> dict[str, Any]:
        """What the replay guard knows; of a call nothing but its ID."""
        states, store = REPLAY_STATES.get(state), self._guard.store
        if states is None:
            raise ValueError(f"Expected {', '.join(REPLAY_STATES)}.")
        found = self._guard.records(
            self._clock.now(), states=states, scope=call_id, most=MOST_RECORDS + 1
        )
        return {
            "unknown": store.unknown,
            "in_flight": store.in_flight,
            "done": store.finished,
            "answer_bytes": store.bytes,
            "evicted": store.evicted,
            "more": len(found) > MOST_RECORDS,
            "records": [
                {**structs.asdict(each), "age": round(each.age, 1)} for each in found[:MOST_RECORDS]
            ],
        }

    def release_replay(self, record: str) -> dict[str, Any]:
        """An operator's word that a write may run again."""
        try:
            key = bytes.fromhex(record)
        except ValueError:
            raise KeyError(record) from None
        before = self._guard.release(key, self._clock.now())
        return {"before": before, "after": "released"}

    def metrics(self, accept: str) -> tuple[bytes, str]:
        """The exposition in the form that the scraper prefers."""
        try:
            encode, content_type = choose_encoder(accept)
        except (TypeError, ValueError):  # No version of its format: it hears the oldest.
            encode, content_type = choose_encoder("")
        return encode(self._watcher.metrics.registry), content_type

    def health(self) -> Reply:
        """The guide's public health page, from what the probes know already."""
        began = self._clock.now()
        arms = {}
        for name, arm in self._handler.line.arms.items():
            result = self._probes.result(name)
            arms[name] = ArmHealth(
                arm.breaker.state,
                result.ok if result else None,
                round(result.ms, 2) if result else None,
            )
        took_ms = (self._clock.now() - began) * 1000
        return health_reply(arms, timestamp=stamp(self._clock.wall_ms()), took_ms=took_ms)

    def _arm(self, name: str) -> dict[str, Any]:
        rules = self._condition.loaded.rules.backends[name]
        upstream, result = self._wiring.upstreams[name], self._probes.result(name)
        live = self._handler.line.splitter.live(name, self._clock.wall_ms())
        return {
            "handler": rules.handler,
            "url": shown_url(rules.url),
            "breaker": self._breaker(name),
            "health": self._health(result) if result else None,
            "catalogue": self._catalogues.status(name) if self._catalogues else None,
            "live_calls": live,
            "busy": upstream.busy,
            "idle": upstream.idle,
            "waiting": upstream.waiting,
            "full_total": upstream.full_total,
            "opened_total": upstream.opened_total,
        }

    def _health(self, result: ProbeResult) -> dict[str, Any]:
        return {
            "ok": result.ok,
            "at": stamp(result.at_wall_ms),
            "ms": round(result.ms, 2),
            "detail": result.detail,
        }

    def _breaker(self, name: str) -> dict[str, Any]:
        """An arm's, and those of its tools where they have their own."""
        now, breaker = self._clock.now(), self._handler.line.arms[name].breaker
        tools = breaker.tool_snapshots(now)
        shown = self._snapshot(breaker.snapshot(now), now)
        return shown | {"tools": {tool: self._snapshot(one, now) for tool, one in tools.items()}}

    def _snapshot(self, snapshot: Snapshot, now: float) -> dict[str, Any]:
        """Times as people read them, not as our clock counts them."""
        shown = asdict(snapshot)
        if (left := shown["reopens_in"]) is not None:
            shown["reopens_in"] = round(left, 1)
        if (last := shown["last"]) is not None:
            del last["tool"]  # It stands under its tool already.
            last["at"] = stamp(self._clock.wall_ms() - round((now - last["at"]) * 1000))
        return shown
