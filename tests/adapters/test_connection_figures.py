from __future__ import annotations

from prometheus_client import generate_latest

from proxy.adapters.listener.room import Room
from proxy.adapters.metrics import Metrics


def exposed(metrics: Metrics) -> dict[str, float]:
    lines = generate_latest(metrics.registry).decode().splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return {name: float(value) for name, value in pairs if name.startswith("n_connections")}


def test_before_anybody_listens_nothing_is_shown() -> None:
    assert exposed(Metrics("n")) == {}


def test_who_is_there_and_who_was_turned_away_is_shown() -> None:
    metrics, room = Metrics("n"), Room(1)
    metrics.callers = lambda: room
    room.enter("192.0.2.1")
    room.enter("192.0.2.2")

    assert exposed(metrics) == {
        "n_connections": 2,
        "n_connections_limit": 1,
        'n_connections_refused_total{reason="full"}': 1,
        'n_connections_refused_total{reason="address"}': 0,
        "n_connections_let_go_total": 0,
    }
