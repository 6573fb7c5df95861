"""Small real classes that stand in for the world in tests."""

from __future__ import annotations

from typing import Any


class FakeClock:
    """A clock that moves only when told to."""

    def __init__(self, now: float = 1000.0, wall_ms: int = 1_767_225_600_000) -> None:
        self._now = now
        self._wall_ms = wall_ms

    def now(self) -> float:
        return self._now

    def wall_ms(self) -> int:
        return self._wall_ms

    def advance(self, seconds: float) -> None:
        self._now += seconds
        self._wall_ms += round(seconds * 1000)


class FakeOperations:
    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.state = "open"

    def unready(self) -> list[str]:
        return self.reasons

    def status(self) -> dict[str, Any]:
        return {"split": {"percent": 25.0}}

    def config(self) -> dict[str, Any]:
        return {"admin": {"token": "env:ADMIN?"}}

    def explain(self, call_id: str | None, body: bytes | None) -> dict[str, Any]:
        if body == b"{":
            raise ValueError("the body is not JSON")
        return {"call_id": call_id, "body": len(body or b"")}

    def breakers(self) -> dict[str, Any]:
        return {"mcp": {"state": self.state}}

    def change_breaker(self, arm: str, action: str) -> dict[str, Any]:
        if arm != "mcp":
            raise KeyError(arm)
        if action != "reset":
            raise ValueError("expected reset, open, close or metrics-only")
        before, self.state = self.state, "closed"
        return {"before": before, "after": self.state}

    def metrics(self, accept: str) -> tuple[bytes, str]:
        return b"# EOF\n" if "openmetrics" in accept else b"up 1\n", "text/plain; version=0.0.4"
