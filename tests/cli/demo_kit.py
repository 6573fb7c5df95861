"""What the demo's tests share: a story that plays nowhere, and what a frame is made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from backends.demo import Mood, Salon
from proxy.cli.demo_calls import Heard
from proxy.cli.demo_story import Story
from proxy.cli.demo_tally import Books, Row, Tally
from proxy.cli.demo_view import Frame


class QuietPlace:
    """Where nothing happens by itself."""

    def __init__(self) -> None:
        self.tally = Tally()
        self.log: list[str] = []

    def set_share(self, percent: float) -> None:
        self.log.append(f"share {percent:g}")

    def set_mood(self, mood: Mood) -> None:
        self.log.append(f"mood {mood}")

    def breaker(self) -> str:
        return "closed"


class Nobody:
    """Callers who never book."""

    booking_begins: Callable[[str], None] = staticmethod(lambda arm: None)


def story(seconds: float = 45.0) -> Story:
    return Story(QuietPlace(), Nobody(), seconds=seconds, now=lambda: 100.0)


def breaker(state: str = "closed", **more: Any) -> dict[str, Any]:
    return {"state": state, "reopens_in": None, "successes": 0, "probed": False, **more}


def row(number: int = 1, **more: Any) -> Row:
    values: dict[str, Any] = {
        "call_id": f"call_{number:027x}",
        "tool": "get_available_slots",
        "arm": "mcp",
        "reason": "recorded",
        "outcome": "ok",
        "ms": 41.7,
        "pending": False,
    }
    return Row(**{**values, **more})


def frame(**more: Any) -> Frame:
    """A frame in the middle of a run; `more` replaces its parts."""
    tally = Tally()
    tally.share_is(50)
    tally.since.calls, tally.since.to = 40, 19
    tally.answered.update(mcp=123, webhook=456)
    tally.decided.update(mcp=41, webhook=160)
    tally.waits.extend((90, 100, 800))
    tally.arm_ms["mcp"].extend((30, 40, 50))
    values: dict[str, Any] = {
        "status": {
            "split": {"in_force_percent": 50.0, "to": "mcp"},
            "arms": {
                "mcp": {"breaker": breaker(), "live_calls": 4},
                "webhook": {"breaker": breaker(), "live_calls": 12},
            },
        },
        "story": story(),
        "tally": tally,
        "books": Books(Salon()),
        "heard": Heard(calls=201, live=16, requests=1234),
        "moods": {"mcp": Mood.WELL, "webhook": Mood.WELL},
        "url": "http://127.0.0.1:8080/retell",
        "admin": "http://127.0.0.1:9901",
        "command": "callsplit",
    }
    return Frame(**{**values, **more})
