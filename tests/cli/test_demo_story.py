from __future__ import annotations

import asyncio
from collections.abc import Callable

from backends.demo import Mood
from proxy.cli.demo_story import ACTS, PATIENCE, Act, Story
from tests.cli.demo_kit import Nobody, QuietPlace
from tests.fakes import FakeClock


class Racing:
    """A clock that moves two seconds whenever somebody looks at it."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        self.seconds += 2
        return self.seconds


class Bookers:
    booking_begins: Callable[[str], None] = staticmethod(lambda arm: None)


class LivelyPlace(QuietPlace):
    """Shows at once what an act waits for; a booking begins on each arm whenever it is looked at.

    The arm's breaker opens with any bad mood.
    """

    def __init__(self, bookers: Bookers) -> None:
        super().__init__()
        self._bookers = bookers
        self._mood = Mood.WELL

    def set_mood(self, mood: Mood) -> None:
        super().set_mood(mood)
        self._mood = mood
        self.tally.rescued["rescue_connect"] += mood is Mood.REFUSE
        self.tally.pending += mood is Mood.HANG

    def breaker(self) -> str:
        state = "closed" if self._mood is Mood.WELL else "open"
        self._bookers.booking_begins("webhook")
        if self._mood is Mood.WELL:
            self._bookers.booking_begins("mcp")
        return state


async def test_the_arm_is_broken_twice_and_healed_twice() -> None:
    bookers = Bookers()
    place = LivelyPlace(bookers)
    await Story(place, bookers, seconds=45, now=Racing()).play()

    assert place.log == [
        "share 10", "mood well", "share 50", "mood well", "mood refuse", "mood well",
        "mood hang", "mood well",
    ]  # fmt: skip


async def test_a_short_run_plays_every_act_too() -> None:
    bookers = Bookers()
    place = LivelyPlace(bookers)
    clock = Racing()
    story = Story(place, bookers, seconds=8, now=clock)
    await story.play()

    assert (story.number, story.act) == (len(ACTS), ACTS[-1])
    assert place.log[-2:] == ["mood hang", "mood well"]
    assert story.elapsed > 0
    assert story.progress == 1.0


async def test_an_act_that_cannot_show_its_point_ends_all_the_same() -> None:
    place, clock = QuietPlace(), Racing()
    story = Story(place, Nobody(), seconds=45, now=clock)
    await asyncio.wait_for(story.play(), 20)

    assert place.log[-1] == "mood well"
    assert clock.seconds > 45 + PATIENCE


async def test_the_arm_dies_at_a_booking_of_its_own_and_at_no_other() -> None:
    place, bookers = QuietPlace(), Bookers()
    act = next(act for act in ACTS if act.at_booking)
    clock = FakeClock()
    playing = asyncio.ensure_future(Story(place, bookers, seconds=45, now=clock.now)._play(act))
    await asyncio.sleep(0)

    bookers.booking_begins("webhook")
    assert place.log == []
    bookers.booking_begins("mcp")
    assert place.log == ["mood hang"]

    clock.advance(2 * PATIENCE)
    await playing
    bookers.booking_begins("mcp")
    assert place.log == ["mood hang"]


async def test_without_an_end_the_acts_begin_again() -> None:
    bookers = Bookers()
    place = LivelyPlace(bookers)
    playing = asyncio.ensure_future(Story(place, bookers, seconds=0, now=Racing()).play())
    async with asyncio.timeout(20):
        while place.log.count("share 10") < 3:
            await asyncio.sleep(0.01)
    playing.cancel()

    assert place.log.count("mood hang") >= 2


def test_the_acts_fit_the_screen() -> None:
    """A title leaves room for the time, the words have two lines of 80 columns."""

    def lines(act: Act) -> int:
        count, length = 1, 0
        for word in act.words.split():
            if length + len(word) > 80:
                count, length = count + 1, 0
            length += len(word) + 1
        return count

    assert all(len(act.title) <= 44 for act in ACTS)
    assert all(lines(act) <= 2 for act in ACTS)
