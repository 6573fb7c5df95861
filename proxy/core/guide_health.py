"""What does `GET /api/mcp/retell/health` say?  The migration guide's shape, from what is known.

Public, so it tells states and nothing else: no address, no error text.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from proxy.core.breaker_values import State
from proxy.core.model import Reply

_SHUT = (State.OPEN, State.FORCED_OPEN)


@dataclass(frozen=True, slots=True)
class ArmHealth:
    """What the latest probe and the breaker know of an arm; `probed` None: never asked."""

    breaker: State
    probed: bool | None = None
    probe_ms: float | None = None

    @property
    def well(self) -> bool:
        """The arm can be asked, as far as anybody knows."""
        return self.probed is not False and self.breaker not in _SHUT


def health_reply(arms: Mapping[str, ArmHealth], *, timestamp: str, took_ms: float) -> Reply:
    """200 while any arm can answer, else 503.

    `status` is `healthy` if all arms are, `degraded` if some are.
    """
    well = [health.well for health in arms.values()]
    status = "healthy" if all(well) else "degraded" if any(well) else "unhealthy"
    body = {
        "service": "callsplit",
        "status": status,
        "timestamp": timestamp,
        "checks": {name: _check(health) for name, health in arms.items()},
        "response_time_ms": round(took_ms, 2),
    }
    headers = [(b"content-type", b"application/json"), (b"cache-control", b"no-store")]
    return Reply(200 if any(well) else 503, headers, orjson.dumps(body))


def _check(health: ArmHealth) -> dict[str, object]:
    return {
        "status": "healthy" if health.well else "unhealthy",
        "circuit_breaker": health.breaker,
        "probe_ms": health.probe_ms,
    }
