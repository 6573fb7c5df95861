"""Which figures does callsplit show?  Every metric family, and its children resolved once.

Label values come from closed sets: kinds, arms, verdicts, reasons, the tools of the rules; whatever
else a caller invents is `other`.  Children are kept in tables, because `labels()` costs a
microsecond and a request may cost forty.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Generic, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info
from prometheus_client.metrics import MetricWrapperBase

from proxy import __version__

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Seconds.  They contain the thresholds that ops alert on (0.3, 0.5, 1) exactly."""

STATES = ("closed", "open", "half_open", "forced_open", "forced_closed", "metrics_only")

F = TypeVar("F", bound=MetricWrapperBase)


class Children(dict[Any, F], Generic[F]):
    """A family's children by label values; a new one is made at first sight."""

    def __init__(self, family: F) -> None:
        super().__init__()
        self.family = family

    def __missing__(self, labels: Any) -> F:
        values = labels if isinstance(labels, tuple) else (labels,)
        child = self[labels] = self.family.labels(*values)
        return child


class Metrics:
    """One registry for one process, under the namespace of the rules."""

    def __init__(self, namespace: str, *, registry: CollectorRegistry | None = None) -> None:
        self.registry = registry or CollectorRegistry()
        self._namespace = namespace
        c, g, h = self._counter, self._gauge, self._histogram
        self.requests = Children(c(
            "requests", "Exchanges by what they were, who answered and how they ended.",
            "kind", "arm", "outcome", "code_class"))  # fmt: skip
        self.request_seconds = Children(
            h(
                "request_duration_seconds",
                "Time from a request's head to its answer.",
                "kind",
                "arm",
            )
        )
        self.attempts = Children(c("attempts", "Tries at an arm by verdict.", "arm", "verdict"))
        self.attempt_seconds = Children(
            h("attempt_duration_seconds", "Time of one try at an arm.", "arm")
        )
        self.rescues = Children(c(
            "rescues", "Answers that came from the other arm, by the arm that failed.",
            "from", "reason"))  # fmt: skip
        self.tools = Children(c(
            "tool_executions", "Tool calls by the arm that answered and their outcome.",
            "tool", "arm", "outcome"))  # fmt: skip
        self.breaker_state = Children(
            g("breaker_state", "1 for the state that an arm's breaker is in.", "arm", "state")
        )
        self.breaker_transitions = Children(
            c("breaker_transitions", "Changes of an arm's breaker.", "arm", "from", "to")
        )
        self.config_faults = Children(
            c("config_faults", "Refusals by an arm that only an operator can mend.", "arm")
        )
        self.last_answers = Children(c(
            "last_answers", "Callers who heard the last answer because no arm could answer.",
            "kind"))  # fmt: skip
        self.auth_failures = Children(
            c("auth_failures", "Requests with a missing or wrong credential.", "reason")
        )
        self.rate_limited = Children(c("rate_limited", "Requests over a limit.", "scope"))
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
        self.live_calls = Children(g("live_calls", "Calls seen lately and not ended.", "arm"))
        self.loop_lag = g("event_loop_lag_seconds", "How late the event loop's last timer was.")
        self.access_dropped = g("access_lines_dropped", "Access lines that the disk did not take.")
        self._rules = Info("rules", "The rules in force.", namespace=namespace,
                           registry=self.registry)  # fmt: skip
        Info("build", "This build.", namespace=namespace, registry=self.registry).info(
            {"version": __version__, "python": platform.python_version()})  # fmt: skip

    def _counter(self, name: str, help_text: str, *labels: str) -> Counter:
        return Counter(name, help_text, labels, namespace=self._namespace, registry=self.registry)

    def _gauge(self, name: str, help_text: str, *labels: str) -> Gauge:
        return Gauge(name, help_text, labels, namespace=self._namespace, registry=self.registry)

    def _histogram(self, name: str, help_text: str, *labels: str) -> Histogram:
        return Histogram(name, help_text, labels, buckets=BUCKETS, namespace=self._namespace,
                         registry=self.registry)  # fmt: skip

    def rules_taken(self, digest: str, *, wall_seconds: float) -> None:
        """A rules file is in force."""
        self._rules.info({"hash": digest})
        self.reload_success.set(1)
        self.reload_at.set(wall_seconds)

    def show_breaker(self, arm: str, state: str) -> None:
        """Exactly one state of an arm reads 1."""
        for known in STATES:
            self.breaker_state[arm, known].set(known == state)

    def at_start(self, arms: Iterable[str], *, live: Callable[[str], float]) -> None:
        """Make the children that must exist before their first event, or alerts see no data."""
        for arm in arms:
            self.show_breaker(arm, "closed")
            self.attempts[arm, "success"].inc(0)
            self.attempt_seconds[arm]
            self.config_faults[arm].inc(0)
            self.live_calls[arm].set_function(partial(live, arm))
            for kind in ("function", "args", "tools", "mcp", "event", "inbound"):
                self.requests[kind, arm, "ok", "2xx"].inc(0)
                self.request_seconds[kind, arm]
