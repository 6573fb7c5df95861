from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import generate_latest

from proxy.adapters.metrics import Metrics


class Shown:
    def expiries(self) -> Mapping[tuple[str, ...], float]:
        return {("listen.tls",): 1_800_000_000.0}

    def successes(self) -> Mapping[tuple[str, ...], float]:
        return {("listen.tls",): 1.0, ("backends.mcp.tls",): 0.0}

    def handshakes(self) -> Mapping[tuple[str, ...], float]:
        return {("ok",): 3.0, ("plain",): 0.0}


def exposed(metrics: Metrics) -> set[str]:
    lines = generate_latest(metrics.registry).decode().splitlines()
    return {line for line in lines if line.startswith(("n_certificate_", "n_tls_"))}


def test_without_certificates_nothing_is_shown() -> None:
    assert exposed(Metrics("n")) == set()


def test_each_end_of_tls_and_each_outcome_is_shown() -> None:
    metrics = Metrics("n")
    metrics.certificates = Shown()

    assert exposed(metrics) == {
        'n_certificate_expires_timestamp_seconds{key="listen.tls"} 1.8e+09',
        'n_certificate_last_reload_success{key="listen.tls"} 1.0',
        'n_certificate_last_reload_success{key="backends.mcp.tls"} 0.0',
        'n_tls_handshakes_total{outcome="ok"} 3.0',
        'n_tls_handshakes_total{outcome="plain"} 0.0',
    }
