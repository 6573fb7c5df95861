from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import generate_latest

from proxy.adapters.metrics import BUCKETS, SHED_REASONS, Metrics
from proxy.core import shedding


def exposed(metrics: Metrics) -> dict[str, float]:
    lines = generate_latest(metrics.registry).decode().splitlines()
    return {
        text.rpartition(" ")[0]: float(text.rpartition(" ")[2])
        for text in lines
        if not text.startswith("#")
    }


def test_names_carry_the_namespace_of_the_rules() -> None:
    metrics = Metrics("askproai_mcp")
    metrics.exchanges.observe(("function", "mcp", "ok", "2xx", "book"), 0.2)

    text = generate_latest(metrics.registry).decode()
    assert (
        'askproai_mcp_requests_total{arm="mcp",code_class="2xx",kind="function",outcome="ok"} 1.0'
        in text
    )


def test_the_buckets_hold_the_alert_thresholds() -> None:
    assert {0.3, 0.5, 1.0} <= set(BUCKETS)


def test_a_breaker_shows_exactly_one_state() -> None:
    metrics = Metrics("n")
    metrics.show_breaker("mcp", "open")

    states = {k: v for k, v in exposed(metrics).items() if k.startswith("n_breaker_state")}
    assert sum(states.values()) == 1
    assert states['n_breaker_state{arm="mcp",state="open"}'] == 1


def test_children_that_alerts_ask_for_exist_from_the_start() -> None:
    metrics = Metrics("n")
    metrics.at_start(["mcp", "webhook"], live={"mcp": 3.0, "webhook": 4.0}.__getitem__)
    seen = exposed(metrics)

    assert seen['n_requests_total{arm="mcp",code_class="2xx",kind="function",outcome="ok"}'] == 0
    assert seen['n_live_calls{arm="mcp"}'] == 3
    assert seen['n_live_calls{arm="webhook"}'] == 4


def test_taken_rules_are_shown_by_their_digest() -> None:
    metrics = Metrics("n")
    metrics.rules_taken("ab12", wall_seconds=1_767_225_600.5)
    seen = exposed(metrics)

    assert seen['n_rules_info{hash="ab12"}'] == 1
    assert seen["n_rules_last_reload_success"] == 1
    assert seen["n_rules_last_reload_timestamp_seconds"] == 1_767_225_600.5


@dataclass
class Pool:
    busy: int = 0
    idle: int = 0
    waiting: int = 0
    full_total: int = 0


def test_the_pools_are_those_of_the_rules_in_force() -> None:
    metrics = Metrics("n")
    metrics.pools = {"mcp": Pool(busy=3, idle=2, waiting=1, full_total=5), "left": Pool()}
    seen = exposed(metrics)
    assert seen['n_upstream_connections{arm="mcp",state="busy"}'] == 3
    assert seen['n_upstream_connections{arm="mcp",state="idle"}'] == 2
    assert seen['n_upstream_waiting{arm="mcp"}'] == 1
    assert seen['n_upstream_full_total{arm="mcp"}'] == 5

    metrics.pools = {"mcp": Pool()}
    assert not [name for name in exposed(metrics) if 'arm="left"' in name]


def test_every_reason_to_shed_is_shown_from_the_start() -> None:
    metrics = Metrics("n")
    metrics.at_start([], live=lambda _: 0.0)

    assert set(SHED_REASONS) == {shedding.IN_FLIGHT, shedding.LAG}
    for reason in SHED_REASONS:
        assert exposed(metrics)[f'n_shed_total{{kind="event",reason="{reason}"}}'] == 0
