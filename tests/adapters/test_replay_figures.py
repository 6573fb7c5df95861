from __future__ import annotations

from prometheus_client import generate_latest

from proxy.adapters.metrics import Metrics
from proxy.core.dialects.kept import Kept
from proxy.core.model import Kind
from proxy.core.replay import ReplayGuard
from proxy.core.replay_values import Done, Run


def exposed(metrics: Metrics) -> dict[str, float]:
    lines = generate_latest(metrics.registry).decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs if name.startswith("n_replay_")}


def test_without_a_guard_nothing_is_shown() -> None:
    assert exposed(Metrics("n")) == {}


def test_what_the_guard_knows_is_shown_by_state() -> None:
    metrics, guard = Metrics("n"), ReplayGuard(most=2)
    metrics.runs = guard.store

    def run(key: bytes) -> Run:
        began = guard.begin(key, "call_1a", tool="book", replay_for=900.0, now=1.0)
        assert isinstance(began, Run)
        return began

    kept = Kept(Kind.FUNCTION, 200, (), b"booked", "success")
    guard.finished(run(b"1"), Done(kept, success=True), 1.0)
    guard.unknown(run(b"2"), 1.0)
    seen = exposed(metrics)
    assert seen['n_replay_records{state="done"}'] == 1
    assert seen['n_replay_records{state="unknown"}'] == 1
    assert seen['n_replay_records{state="in_flight"}'] == 0
    assert seen["n_replay_bytes"] == guard.store.bytes > 0
    assert seen['n_replay_evicted_total{what="run"}'] == 0

    run(b"3")
    seen = exposed(metrics)
    assert seen['n_replay_records{state="in_flight"}'] == 1
    assert seen['n_replay_evicted_total{what="run"}'] == 1
    assert seen['n_replay_evicted_total{what="answer"}'] == 0
