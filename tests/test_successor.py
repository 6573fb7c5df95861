from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from proxy import successor
from proxy.adapters.channel import (
    Answer,
    Begin,
    BeginEvent,
    Channel,
    Ended,
    EventEnded,
    Go,
    Message,
    Post,
)
from proxy.adapters.clock import LoopClock
from proxy.core.model import Ran
from proxy.core.replay_events import EventStep
from proxy.core.replay_values import Full, Replay, Run, Wait
from proxy.successor import Successor
from tests.adapters.outbox_kit import event
from tests.handover_kit import BOOKED, pair, write

RUN = Run(b"k" * 16, 3, "call_a", "book", 900.0)


class Played:
    """A successor that a test plays."""

    def __init__(self) -> None:
        ours, self.channel = pair()
        self.known = Successor(ours, pid=7, clock=LoopClock())
        self.listening = asyncio.ensure_future(self.known.listen())

    async def hear(self) -> Message:
        async with asyncio.timeout(20):
            return (await self.channel.receive())[0]


@pytest.fixture
async def played() -> AsyncIterator[Played]:
    played = Played()
    yield played
    played.channel.close()
    await played.listening
    await played.known.finish(1.0)


@pytest.mark.parametrize(
    ("answer", "step"),
    [
        (Answer(1, done=BOOKED), Replay(BOOKED)),
        (Answer(1, wait=True), Wait(b"k" * 16, unknown=True)),
        (Answer(1), Full()),
    ],
)
async def test_its_word_counts(played: Played, answer: Answer, step: object) -> None:
    asked = asyncio.ensure_future(played.known.begin(write(tool_call_id="t")))
    assert await played.hear() == Begin(1, b"k" * 16, "call_a", "book", 900.0, "t")
    played.channel.send(Go())  # makes no sense here, and is passed over
    played.channel.send(Answer(99))
    played.channel.send(answer)

    assert await asked == step


async def test_leave_to_run_comes_with_the_runs_number(played: Played) -> None:
    """So that `Idempotency-Key` is what it would be over there."""
    asked = asyncio.ensure_future(played.known.begin(write()))
    await played.hear()
    played.channel.send(Answer(1, run=3, yes=True))

    run = await asked

    assert isinstance(run, Run)
    assert (run.key, run.number, run.idempotency) == (RUN.key, 3, RUN.idempotency)


@pytest.mark.parametrize(
    ("answer", "step"),
    [
        (Answer(1, yes=True), EventStep.DELIVER),
        (Answer(1, wait=True), EventStep.WAIT),
        (Answer(1), EventStep.DELIVERED),
    ],
)
async def test_events_are_asked_about(played: Played, answer: Answer, step: EventStep) -> None:
    asked = asyncio.ensure_future(played.known.begin_event(5))
    assert await played.hear() == BeginEvent(1, 5)
    played.channel.send(answer)

    assert await asked is step


@pytest.mark.parametrize(
    ("outcome", "message"),
    [
        (BOOKED, Ended(RUN.key, 3, BOOKED, ran=True)),
        (Ran.NO, Ended(RUN.key, 3, None, ran=False)),
        (Ran.UNKNOWN, Ended(RUN.key, 3, None, ran=True)),
    ],
)
async def test_it_hears_how_things_end(played: Played, outcome: object, message: Message) -> None:
    played.known.ended(RUN, outcome)  # type: ignore[arg-type]
    played.known.event_ended(5, taken=True)

    assert await played.hear() == message
    assert await played.hear() == EventEnded(5, taken=True)


async def test_leave_that_comes_too_late_is_handed_back(
    played: Played, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody would settle it, and the write would wait for ever."""
    monkeypatch.setattr(successor, "PATIENCE", 0.0)
    assert await played.known.begin(write()) is None
    assert await played.known.begin_event(5) is None
    entry, letter = event()
    asked = asyncio.ensure_future(played.known.post(entry, letter, until=0.0))
    for _ in range(3):
        await played.hear()
    asked.cancel()
    await asyncio.wait({asked})
    for answer in (Answer(1, run=3, yes=True), Answer(2, yes=True), Answer(3, yes=True)):
        played.channel.send(answer)

    assert await played.hear() == Ended(RUN.key, 3, None, ran=False)
    assert await played.hear() == EventEnded(5, taken=False)


async def test_an_event_is_kept_over_there(played: Played) -> None:
    entry, letter = event()
    asked = asyncio.ensure_future(played.known.post(entry, letter, until=LoopClock().now() + 20.0))
    post = await played.hear()
    assert isinstance(post, Post)
    assert (post.entry, post.letter) == (entry, letter)
    assert 19.0 < post.patience <= 20.0
    played.channel.send(Answer(1, yes=True))

    assert await asked


async def test_once_it_is_gone_nothing_is_known(played: Played) -> None:
    waiting = asyncio.ensure_future(played.known.begin(write()))
    await played.hear()
    played.channel.close()

    assert await waiting is None
    await played.listening
    assert await played.known.begin(write()) is None
    assert await played.known.begin_event(5) is None
    played.known.ended(RUN, BOOKED)  # Nobody hears it.


async def test_its_last_words_are_not_waited_for_for_ever(channel_full: Channel) -> None:
    known = Successor(channel_full, pid=7, clock=LoopClock())

    await known.finish(0.01)

    assert channel_full.lost


@pytest.fixture
async def channel_full() -> AsyncIterator[Channel]:
    ours, theirs = pair()
    theirs._loop.remove_reader(theirs._sock.fileno())
    entry, letter = event(size=3_000_000)
    ours.send(Post(1, entry, letter, 1.0))
    yield ours
    theirs.close()
