"""What happens in the demo, act by act, and when is an act over?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from backends.demo import Mood
from proxy.cli.demo_rules import FAILURES, TO, TRIALS
from proxy.cli.demo_tally import Tally
from proxy.core.breaker_values import State

CYCLE = 45.0
"""Seconds of all acts together, unless the run is shorter."""

TICK = 0.05
PATIENCE = 5.0
"""Seconds that an act may go on until what it is to show has been seen."""


@dataclass(frozen=True, slots=True)
class Signs:
    """What an act waits for."""

    breaker: str
    rescues: int
    pending: int


Met = Callable[[Signs, Signs], bool]
"""Whether an act has shown what it is to show, from the signs at its begin and those now."""


@dataclass(frozen=True, slots=True)
class Act:
    """One act.  `share` None: unchanged; `weight` is its part of the whole time."""

    title: str
    words: str
    weight: float
    mood: Mood = Mood.WELL
    share: float | None = None
    at_booking: bool = False  # the mood changes at the very moment of a booking on the MCP arm
    met: Met = lambda before, now: True


def _rescued(before: Signs, now: Signs) -> bool:
    return now.breaker == State.OPEN and now.rescues > before.rescues


def _pending(before: Signs, now: Signs) -> bool:
    return now.breaker == State.OPEN and now.pending > before.pending


def _closed(_: Signs, now: Signs) -> bool:
    return now.breaker == State.CLOSED


ACTS = (
    Act(
        "10 % of the calls go to MCP",
        "Each call ID is hashed: about one call in ten goes to the new MCP arm, "
        "the others stay with the webhook, each call with one arm to its end.",
        7,
        share=10,
    ),
    Act(
        "raising the share to 50 %",
        "The rules file was saved with percent: 50 and is in force without a restart. "
        "Calls under way keep their arm, new ones split evenly.",
        9,
        share=50,
    ),
    Act(
        "the MCP arm refuses connections",
        f"Its callers are answered by the webhook. After {FAILURES} failures in a row "
        "the breaker opens, and MCP is not even asked any more.",
        8,
        Mood.REFUSE,
        met=_rescued,
    ),
    Act(
        "the MCP arm is back",
        f"The breaker's rest ends: first a probe, then {TRIALS} reads that the webhook could "
        "still rescue. If all go well, it closes.",
        7,
        met=_closed,
    ),
    Act(
        "the MCP arm dies after it ran a booking",
        "Its answer never comes. To ask the webhook could book twice, so the caller hears "
        "that it is being checked. Reads are rescued.",
        6,
        Mood.HANG,
        at_booking=True,
        met=_pending,
    ),
    Act(
        "healed",
        "Half-open probes, then closed again: MCP gets its half of the calls back. "
        "Below stands who was not answered, and what ran twice.",
        8,
        met=_closed,
    ),
)


class Place(Protocol):
    """What the story changes and sees."""

    tally: Tally

    def set_share(self, percent: float) -> None:
        """Change the rules."""

    def set_mood(self, mood: Mood) -> None:
        """Break the MCP arm, or heal it."""

    def breaker(self) -> str:
        """The state of the MCP arm's breaker."""


class Bookers(Protocol):
    """Who tells of bookings."""

    booking_begins: Callable[[str], None]


class Story:
    """Plays the acts: once in `seconds`, or for ever if that is 0.

    `now()` is clock seconds.  What can be read at any time: the act, its number, how far it is.
    """

    def __init__(
        self, place: Place, callers: Bookers, *, seconds: float, now: Callable[[], float]
    ) -> None:
        self.seconds = seconds
        self.act = ACTS[0]
        self.number = 1
        self.began = self.ends = now()
        self._place = place
        self._callers = callers
        self._now = now
        self._start = now()

    @property
    def elapsed(self) -> float:
        """Seconds since the curtain rose."""
        return self._now() - self._start

    @property
    def progress(self) -> float:
        """How much of the present act is over, 0 to 1."""
        length = self.ends - self.began
        return min(1.0, (self._now() - self.began) / length) if length > 0 else 1.0

    async def play(self) -> None:
        """All acts, and again if there is no end."""
        await self._cycle(self.seconds or CYCLE)
        while not self.seconds:
            await self._cycle(CYCLE)

    async def _cycle(self, seconds: float) -> None:
        ends, weight = self._now() + seconds, sum(act.weight for act in ACTS)
        for number, act in enumerate(ACTS, 1):
            planned = max(0.0, ends - self._now()) * act.weight / weight
            weight -= act.weight
            self.act, self.number = act, number
            self.began, self.ends = self._now(), self._now() + planned
            await self._play(act)

    async def _play(self, act: Act) -> None:
        before = self._signs()
        if act.share is not None:
            self._place.set_share(act.share)
        if act.at_booking:
            self._callers.booking_begins = lambda arm: self._strike(act.mood, arm)
        else:
            self._place.set_mood(act.mood)
        while self._now() < self.ends or not self._over(act, before):  # noqa: ASYNC110 - no event
            await asyncio.sleep(TICK)
        self._callers.booking_begins = lambda arm: None

    def _over(self, act: Act, before: Signs) -> bool:
        return act.met(before, self._signs()) or self._now() > self.ends + PATIENCE

    def _strike(self, mood: Mood, arm: str) -> None:
        if arm == TO:
            self._place.set_mood(mood)

    def _signs(self) -> Signs:
        tally = self._place.tally
        return Signs(self._place.breaker(), tally.rescues, tally.pending)
