from __future__ import annotations

import orjson
import pytest

from proxy.core.breaker_values import State
from proxy.core.guide_health import ArmHealth, health_reply

WELL = ArmHealth(State.CLOSED, True, 1.5)
UNKNOWN = ArmHealth(State.CLOSED)
OPEN = ArmHealth(State.OPEN, True)
UNWELL = ArmHealth(State.CLOSED, False)


@pytest.mark.parametrize(
    ("mcp", "webhook", "status", "code"),
    [
        (WELL, WELL, "healthy", 200),
        (UNKNOWN, UNKNOWN, "healthy", 200),
        (OPEN, WELL, "degraded", 200),
        (WELL, UNWELL, "degraded", 200),
        (OPEN, UNWELL, "unhealthy", 503),
        (ArmHealth(State.HALF_OPEN), WELL, "healthy", 200),
        (ArmHealth(State.FORCED_OPEN), WELL, "degraded", 200),
    ],
)
def test_it_is_unhealthy_only_if_nobody_can_answer(
    mcp: ArmHealth, webhook: ArmHealth, status: str, code: int
) -> None:
    reply = health_reply({"mcp": mcp, "webhook": webhook}, timestamp="now", took_ms=0.123)

    assert reply.status == code
    assert isinstance(reply.body, bytes)
    assert orjson.loads(reply.body)["status"] == status


def test_the_shape_is_the_guides() -> None:
    reply = health_reply({"mcp": WELL}, timestamp="2026-01-01T00:00:00.000Z", took_ms=0.126)

    assert isinstance(reply.body, bytes)
    assert orjson.loads(reply.body) == {
        "service": "callsplit",
        "status": "healthy",
        "timestamp": "2026-01-01T00:00:00.000Z",
        "checks": {"mcp": {"status": "healthy", "circuit_breaker": "closed", "probe_ms": 1.5}},
        "response_time_ms": 0.13,
    }
