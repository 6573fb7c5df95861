"""Which figures does callsplit show?  Every metric family, with its help and its labels.

Label values come from closed sets: kinds, arms, verdicts, reasons, the tools of the rules; whatever
else a caller invents is `other`.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Protocol

from prometheus_client import CollectorRegistry, Gauge, Info

from proxy import __version__
from proxy.adapters.certificate_figures import Shown, tell_of_certificates
from proxy.adapters.connection_figures import Callers, tell_of_callers
from proxy.adapters.outbox_watch import OutboxFigures
from proxy.adapters.replay_figures import tell_of_runs
from proxy.adapters.tallies import Counters, Labels, Part, Read, Tallies, Timings
from proxy.core.arm_breaker import ArmBreaker
from proxy.core.model import Kind
from proxy.core.replay_store import RunStore
from proxy.core.shedding import CONNECTIONS, IN_FLIGHT, LAG

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds.  They contain the thresholds that ops alert on (0.3, 0.5, 1) exactly."""

STATES = ("closed", "open", "half_open", "forced_open", "forced_closed", "metrics_only")


SHED_REASONS = (IN_FLIGHT, LAG)  # and `CONNECTIONS`, of no kind


class Pool(Protocol):
    """What is told of the connections to one arm."""

    @property
    def busy(self) -> int: ...
    @property
    def idle(self) -> int: ...
    @property
    def waiting(self) -> int: ...
    @property
    def full_total(self) -> int: ...


class Metrics:
    """One registry for one process, under the namespace of the rules."""

    def __init__(self, namespace: str, *, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self._namespace = namespace
        self.families: list[Counters | Part | Read] = []
        self.pools: Mapping[str, Pool] = {}  # by arm
        self.breakers: Mapping[str, ArmBreaker] = {}  # by arm
        self.secrets_since: Callable[[], Mapping[Labels, float]] = dict  # by key of the rules
        self.runs: RunStore | None = None  # what the replay guard knows
        self.callers: Callable[[], Callers | None] = lambda: None
        self.certificates: Shown | None = None
        c, g = self._counters, self._gauge
        # One row per exchange (`tool` is empty for what ran none), and one per attempt.
        self.exchanges = Timings(("kind", "arm", "outcome", "code_class", "tool"), BUCKETS)
        self.attempts = Timings(("arm", "verdict"), BUCKETS)
        self._tell_in_parts()
        self.rescues = c(
            "rescues", "Answers that came from the other arm, by the arm that failed.",
            "from", "reason")  # fmt: skip
        self.replays = c("replays", "Answers given again instead of running it again.", "kind")
        self.late_answers = c(
            "late_answers", "Writes that ended after their caller could wait no longer.",
            "arm", "verdict")  # fmt: skip
        self.breaker_transitions = c(
            "breaker_transitions", "Changes of an arm's breaker.", "arm", "from", "to"
        )
        self.tool_breaker_transitions = c(
            "tool_breaker_transitions", "Changes of the breakers that tools have on an arm.",
            "arm", "tool", "from", "to")  # fmt: skip
        self.config_faults = c(
            "config_faults", "Refusals by an arm that only an operator can mend.", "arm"
        )
        self.last_answers = c(
            "last_answers", "Callers who heard the last answer because no arm could answer.",
            "kind")  # fmt: skip
        self._tell_of_askers()
        self.cache = c(
            "cache", "Tool calls whose answers are kept, by what came of it.", "tool", "result"
        )
        self.repeats = c("repeats", "Requests refused unread, to be asked anew.", "arm", "outcome")
        self.hedges = c(
            "hedges", "Second attempts beside a slow one, by the arm that was slow.",
            "from", "outcome")  # fmt: skip
        self.mcp_sessions = c(
            "mcp_sessions", "Legacy MCP sessions, by what became of them.", "event"
        )
        self.restarts_failed = c(
            "restarts_failed", "Processes that were started to follow this one, and did not."
        )
        self.restarts_failed[()] += 0
        self.outbox = OutboxFigures(c, g)
        self._tell_of_pools()
        tell_of_runs(self._read, lambda: self.runs)
        tell_of_callers(self._read, lambda: self.callers())
        tell_of_certificates(self._read, lambda: self.certificates)
        self._read(
            "tool_breaker_state", "1 for the state that a tool's breaker on an arm is in.",
            "arm", "tool", "state", of=self._tool_states)  # fmt: skip
        self.registry.register(Tallies(self.families))
        self._tell_of_this_process()

    def _tell_of_askers(self) -> None:
        """Who was turned away, and how old what they prove themselves by is."""
        c = self._counters
        self.auth_failures = c(
            "auth_failures", "Requests with a missing or wrong credential.", "reason"
        )
        self.signature_repeats = c(
            "signature_repeats", "Signatures that hold, but have been here before.", "kind"
        )
        self.admin_refusals = c(
            "admin_refusals", "Requests turned away from the operators' pages.", "reason"
        )
        self.rate_limited = c("rate_limited", "Requests over a limit.", "scope")
        self.shed = c(
            "shed", "Requests turned away because this process had too much to do.",
            "reason", "kind")  # fmt: skip
        self._read(
            "secret_since_timestamp_seconds", "Since when a secret is in use, as the rules say.",
            "key", of=lambda: self.secrets_since())  # fmt: skip

    def _counters(self, name: str, help_text: str, *labels: str) -> Counters:
        family = Counters(f"{self._namespace}_{name}", help_text, labels)
        self.families.append(family)
        return family

    def _tell_in_parts(self) -> None:
        exchanges, attempts, part = self.exchanges, self.attempts, self._part
        part(
            exchanges, "requests", "Exchanges by what they were, who answered and how they ended.",
            "kind", "arm", "outcome", "code_class")  # fmt: skip
        part(
            exchanges, "request_duration_seconds", "Time from a request's head to its answer.",
            "kind", "arm", timed=True)  # fmt: skip
        part(
            exchanges, "tool_executions", "Tool calls by the arm that answered and their outcome.",
            "tool", "arm", "outcome")  # fmt: skip
        part(attempts, "attempts", "Tries at an arm by verdict.", "arm", "verdict")
        part(
            attempts, "attempt_duration_seconds", "Time of one try at an arm.", "arm",
            timed=True)  # fmt: skip

    def _tell_of_this_process(self) -> None:
        g, namespace = self._gauge, self._namespace
        self.breaker_state = g(
            "breaker_state", "1 for the state that an arm's breaker is in.", "arm", "state"
        )
        self.target_ratio = g("rollout_target_ratio", "The share in force, 0 to 1.")
        self.actual_ratio = g(
            "rollout_actual_ratio", "Part of the tool calls of the last 5 minutes decided for `to`."
        )
        self.reload_success = g(
            "rules_last_reload_success", "1 if the newest rules file is in force, 0 if it is bad."
        )
        self.reload_at = g(
            "rules_last_reload_timestamp_seconds", "When a rules file was last taken."
        )
        self.inflight = g("inflight", "Exchanges under way.")
        self.cache_entries = g("cache_entries", "Answers that the tool cache keeps.")
        self.cache_bytes = g("cache_bytes", "Memory that they take, roughly.")
        self.live_calls = g("live_calls", "Calls seen lately and not ended.", "arm")
        self.loop_lag = g(
            "event_loop_lag_seconds", "How late the event loop is: the median of 5 ticks."
        )
        self.access_dropped = g("access_lines_dropped", "Access lines that the disk did not take.")
        self._rules = Info(
            "rules", "The rules in force.", namespace=namespace, registry=self.registry
        )
        Info("build", "This build.", namespace=namespace, registry=self.registry).info(
            {"version": __version__, "python": platform.python_version()}
        )

    def _tell_of_pools(self) -> None:
        def connections() -> Mapping[Labels, float]:
            return {
                (arm, state): getattr(pool, state)
                for arm, pool in self.pools.items()
                for state in ("busy", "idle")
            }

        def waiting() -> Mapping[Labels, float]:
            return {(arm,): pool.waiting for arm, pool in self.pools.items()}

        def full() -> Mapping[Labels, float]:
            return {(arm,): pool.full_total for arm, pool in self.pools.items()}

        read = self._read
        read("upstream_connections", "Connections to an arm.", "arm", "state", of=connections)
        read("upstream_waiting", "Attempts that wait for a connection.", "arm", of=waiting)
        read(
            "upstream_full", "Attempts that got no connection: all were in use.", "arm", of=full,
            gauge=False)  # fmt: skip

    def _tool_states(self) -> Mapping[Labels, float]:
        return {
            (arm, tool, state): float(breaker.state == state)
            for arm, of_arm in self.breakers.items()
            for tool, breaker in of_arm.tools.items()
            for state in STATES
        }

    def _read(
        self,
        name: str,
        help_text: str,
        *labels: str,
        of: Callable[[], Mapping[Labels, float]],
        gauge: bool = True,
    ) -> None:
        family = f"{self._namespace}_{name}"
        self.families.append(Read(family, help_text, labels, of, gauge=gauge))

    def _part(
        self, whole: Timings, name: str, help_text: str, *labels: str, timed: bool = False
    ) -> None:
        family = f"{self._namespace}_{name}"
        self.families.append(Part(whole, family, help_text, labels, timed=timed))

    def _gauge(self, name: str, help_text: str, *labels: str) -> Gauge:
        return Gauge(name, help_text, labels, namespace=self._namespace, registry=self.registry)

    def rules_taken(self, digest: str, *, wall_seconds: float) -> None:
        """A rules file is in force."""
        self._rules.info({"hash": digest})
        self.reload_success.set(1)
        self.reload_at.set(wall_seconds)

    def show_breaker(self, arm: str, state: str) -> None:
        """Exactly one state of an arm reads 1."""
        for known in STATES:
            self.breaker_state.labels(arm, known).set(known == state)

    def at_start(self, arms: Iterable[str], *, live: Callable[[str], float]) -> None:
        """Make the children that must exist before their first event, or alerts see no data."""
        for arm in arms:
            self.attempts.foresee(arm, "success")
            self.attempts.foresee(arm, "failed")
            self.config_faults[arm,] += 0
            self.live_calls.labels(arm).set_function(partial(live, arm))
            for outcome in ("given", "refused"):
                self.repeats[arm, outcome] += 0
            for outcome in ("won", "lost", "refused"):
                self.hedges[arm, outcome] += 0
            for kind in ("function", "args", "tools", "mcp", "event", "inbound"):
                self.exchanges.foresee(kind, arm, "ok", "2xx", "")
        for kind in ("write", "event", "twin"):
            self.replays[kind,] += 0
        for kind in ("function", "args", "tools", "mcp", "event", "inbound"):
            self.last_answers[kind,] += 0
            for reason in SHED_REASONS:
                self.shed[reason, kind] += 0
        for reason in ("missing", "malformed", "wrong", "stale", "replayed"):
            self.auth_failures[reason,] += 0
        for kind in ("event", "inbound", "function", "args"):
            self.signature_repeats[kind,] += 0
        for reason in ("host", "cross_site", "missing", "wrong", "body"):
            self.admin_refusals[reason,] += 0
        for scope in ("tool", "ip"):
            self.rate_limited[scope,] += 0
        self.shed[CONNECTIONS, Kind.OTHER] += 0
        for event in ("opened", "refused", "ended"):
            self.mcp_sessions[event,] += 0
