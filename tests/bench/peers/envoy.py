"""Envoy doing callsplit's job: call ID out of the JSON body, weighted clusters by its hash, a JSON
access line.  Every mean is Envoy's own filter, no Lua.
"""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from typing import Any

from tests.bench.place import CACHE, Place

KEY = "envoy"
LABEL = "Envoy, same job"
BINARY = CACHE / "venv" / "bin" / "envoy"

_LINE = {
    "time": "%START_TIME%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(:PATH)%",
    "peer": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
    "call_id": "%DYNAMIC_METADATA(callsplit:call_id)%",
    "arm": "%UPSTREAM_CLUSTER%",
    "status": "%RESPONSE_CODE%",
    "flags": "%RESPONSE_FLAGS%",
    "bytes_in": "%BYTES_RECEIVED%",
    "bytes_out": "%BYTES_SENT%",
    "ms": "%DURATION%",
}
_HTTP = "type.googleapis.com/envoy.extensions.filters.http"


def command(place: Place) -> list[str]:
    """One worker, as the Python peers have one process."""
    return start(place, config(place))


def fault(place: Place, requests: int) -> str | None:
    """Both clusters must have been chosen, by a call ID, and every request logged."""
    arms: Counter[str] = Counter()
    with place.access_log.open() as file:
        for line in map(json.loads, file):
            if not line["call_id"]:
                return "a request without a call ID"
            arms[line["arm"]] += 1
    if arms.total() < requests:
        return f"{arms.total()} access lines for {requests} requests"
    if min(arms["mcp"], arms["webhook"]) < arms.total() * 0.3:
        return f"an uneven split: {dict(arms)}"
    return None


def start(place: Place, bootstrap: dict[str, Any]) -> list[str]:
    """Validate and write a bootstrap; the command that runs it."""
    path = place.directory / "envoy.json"
    path.write_text(json.dumps(bootstrap, indent=1))
    quiet = ["--log-level", "error", "--disable-hot-restart", "--concurrency", "1"]
    subprocess.run(
        [str(BINARY), "--mode", "validate", "-c", str(path), *quiet],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return [str(BINARY), "-c", str(path), *quiet]


def config(place: Place) -> dict[str, Any]:
    """The bootstrap of the whole job."""
    manager = connection_manager(
        [
            _filter(
                "json_to_metadata.v3.JsonToMetadata",
                request_rules={
                    "rules": [
                        {
                            "selectors": [{"key": "call"}, {"key": "call_id"}],
                            "on_present": {"metadata_namespace": "callsplit", "key": "call_id"},
                        }
                    ]
                },
            ),
            _filter(
                "set_filter_state.v3.Config",
                clear_route_cache=True,
                on_request_headers=[
                    {
                        "object_key": "callsplit.call_id",
                        "factory_key": "envoy.hashable_string",
                        "format_string": {
                            "text_format_source": {
                                "inline_string": "%DYNAMIC_METADATA(callsplit:call_id)%"
                            }
                        },
                    }
                ],
            ),
        ],
        hash_policy=[{"filter_state": {"key": "callsplit.call_id"}}],
        weighted_clusters={
            "use_hash_policy": True,
            "clusters": [{"name": "mcp", "weight": 50}, {"name": "webhook", "weight": 50}],
        },
    )
    manager["access_log"] = [
        {
            "name": "file",
            "typed_config": {
                "@type": "type.googleapis.com/"
                "envoy.extensions.access_loggers.file.v3.FileAccessLog",
                "path": str(place.access_log),
                "log_format": {"json_format": _LINE},
            },
        }
    ]
    return bootstrap(place, manager, ["mcp", "webhook"])


def connection_manager(filters: list[dict[str, Any]], **route: Any) -> dict[str, Any]:
    """HTTP connection manager with one catch-all route."""
    return {
        "@type": "type.googleapis.com/envoy.extensions.filters.network"
        ".http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "http_filters": [*filters, _filter("router.v3.Router")],
        "route_config": {
            "virtual_hosts": [
                {
                    "name": "all",
                    "domains": ["*"],
                    "routes": [{"match": {"prefix": "/"}, "route": {"timeout": "30s", **route}}],
                }
            ]
        },
    }


def bootstrap(place: Place, manager: dict[str, Any], clusters: list[str]) -> dict[str, Any]:
    """One plain listener, and the origin under each cluster's name."""
    chain = {"filters": [{"name": "http", "typed_config": manager}]}
    listener = {"name": "in", "address": _address(place.port), "filter_chains": [chain]}
    endpoint = {"endpoint": {"address": _address(place.origin_port)}}
    return {
        "static_resources": {
            "listeners": [listener],
            "clusters": [
                {
                    "name": name,
                    "type": "STATIC",
                    "connect_timeout": "1s",
                    "load_assignment": {
                        "cluster_name": name,
                        "endpoints": [{"lb_endpoints": [endpoint]}],
                    },
                }
                for name in clusters
            ],
        }
    }


def _filter(name: str, **config: Any) -> dict[str, Any]:
    return {"name": name.split(".")[0], "typed_config": {"@type": f"{_HTTP}.{name}", **config}}


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
