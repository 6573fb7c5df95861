"""Envoy as most run it: weighted clusters by chance, no look at the body, no access line."""

from __future__ import annotations

from tests.bench.peers import envoy
from tests.bench.place import Place

KEY = "envoy-plain"
LABEL = "Envoy, body unread"


def command(place: Place) -> list[str]:
    """One worker, as the Python peers have one process."""
    clusters = {"clusters": [{"name": "mcp", "weight": 50}, {"name": "webhook", "weight": 50}]}
    manager = envoy.connection_manager([], weighted_clusters=clusters)
    return envoy.start(place, envoy.bootstrap(place, manager, ["mcp", "webhook"]))


def fault(place: Place, requests: int) -> str | None:
    """It promises nothing but an answer."""
    return None
