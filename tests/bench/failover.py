"""callsplit and Envoy before the same two arms: the first until it breaks, then the second.

Both open after five failures and look again after a second, without active health checks.  Envoy
does it with its own means: outlier detection on the first cluster, an aggregate cluster behind the
route.  It retries nothing, for it cannot tell a booking from a question: both are a POST.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from tests.bench.peers import envoy
from tests.bench.place import Place

FAILURES = 5
RESTS = 1
"""Seconds."""


def callsplit(place: Place, first: int, second: int) -> list[str]:
    """The sidecar between the ports of the two arms."""
    breaker = {"failures": FAILURES, "open_for": f"{RESTS}s", "open_max": f"{RESTS}s"}
    rules = {
        "version": 1,
        "listen": {"address": f"127.0.0.1:{place.port}", "drain_grace": "1s"},
        "admin": {"address": f"127.0.0.1:{place.admin_port}"},
        "split": {"to": "new", "otherwise": "old", "percent": 100, "salt": "bench"},
        "backends": {
            "new": {"handler": "webhook", "url": _url(first), "breaker": breaker},
            "old": {"handler": "webhook", "url": _url(second), "breaker": breaker},
        },
        "tools": {
            "default": {"effect": "write", "say": "Not now.", "say_pending": "Please wait."},
            "get_available_slots": {"effect": "read"},
            "book_appointment": {"effect": "write"},
        },
        "limits": {"tools_per_minute": None, "ip_per_minute": None},
        "state_dir": str(place.directory / "state"),
    }
    path = place.directory / "rules.yaml"
    path.write_text(json.dumps(rules, indent=1))
    return [sys.executable, "-m", "proxy", "serve", "--rules", str(path)]


def envoy_failover(place: Place, first: int, second: int) -> list[str]:
    """Envoy between the ports of the two arms."""
    manager = envoy.connection_manager([], cluster="both")
    bootstrap = envoy.bootstrap(place, manager, [])
    bootstrap["admin"] = {"address": _address(place.admin_port)}
    bootstrap["static_resources"]["clusters"] = [
        _cluster("new", first, outlier_detection=_outliers()),
        _cluster("old", second),
        {
            "name": "both",
            "connect_timeout": "0.25s",
            "lb_policy": "CLUSTER_PROVIDED",
            "cluster_type": {
                "name": "envoy.clusters.aggregate",
                "typed_config": {
                    "@type": "type.googleapis.com/"
                    "envoy.extensions.clusters.aggregate.v3.ClusterConfig",
                    "clusters": ["new", "old"],
                },
            },
        },
    ]
    return envoy.start(place, bootstrap)


def openings(text: str) -> int:
    """How often the first arm was taken out of use, by the metrics page of either."""
    total = 0.0
    for line in text.splitlines():
        ours = "breaker_transitions_total{" in line and 'arm="new"' in line and 'to="open"' in line
        if ours or line.startswith("cluster.new.outlier_detection.ejections_enforced_total: "):
            total += float(line.split()[-1])
    return int(total)


def _outliers() -> dict[str, Any]:
    """The only endpoint of a cluster is never ejected by default: hence the last line."""
    return {
        "consecutive_5xx": FAILURES,
        "interval": "0.1s",
        "base_ejection_time": f"{RESTS}s",
        "max_ejection_time": f"{RESTS}s",
        "max_ejection_percent": 100,
    }


def _cluster(name: str, port: int, **more: Any) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": _address(port)}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "0.25s",
        # By default a host that fails again within a second of its return stays in use for that
        # second.
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}, "update_merge_window": "0s"},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
        **more,
    }


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _url(port: int) -> str:
    return f"http://127.0.0.1:{port}/retell"
