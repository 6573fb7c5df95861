"""What does an old process hear from the one that has followed it?  What may run, what is kept.

Fits `proxy.once.Heir` and `proxy.durable.Heir`: from the hand-over on the new process decides what
runs, and the old one tells it how things end.
"""

from __future__ import annotations

import asyncio
from itertools import count
from typing import Final, TypeAlias

from proxy.adapters.channel import (
    Answer,
    Begin,
    BeginEvent,
    Channel,
    Ended,
    EventEnded,
    Lost,
    Post,
)
from proxy.core.model import Ran
from proxy.core.outbox import Entry, Letter
from proxy.core.replay_events import EventStep
from proxy.core.replay_values import Done, Full, Replay, Run, Wait
from proxy.once import Elsewhere, Outcome
from proxy.ports import Clock

PATIENCE: Final = 5.0
"""Seconds for one answer: the new process loads what it is told before it gives any."""

Question: TypeAlias = Begin | BeginEvent | Post

_FULL: Final = Full()


class Successor:
    """The other end of the channel, once it is the service."""

    def __init__(self, channel: Channel, *, pid: int, clock: Clock) -> None:
        self.pid = pid
        self._channel = channel
        self._clock = clock
        self._ids = count(1)
        self._held: list[Question] | None = None
        # Questions until they are answered, even if nobody waits any more.
        self._asked: dict[int, tuple[Question, asyncio.Future[Answer | None]]] = {}

    async def begin(self, asked: Elsewhere) -> Run | Replay | Wait | Full | None:
        """What to do about a write; None: nobody is there who could say."""
        id = next(self._ids)
        answer = await self._ask(
            id,
            Begin(id, asked.key, asked.scope, asked.tool, asked.replay_for, asked.tool_call_id),
            PATIENCE,
        )
        if answer is None:
            return None
        if answer.run:
            return Run(asked.key, answer.run, asked.scope, asked.tool, asked.replay_for)
        if answer.done is not None:
            return Replay(answer.done)
        # Nobody tells this side how a run of the other one ends.
        return Wait(asked.key, unknown=True) if answer.wait else _FULL

    async def begin_event(self, key: int) -> EventStep | None:
        """What to do about an event."""
        id = next(self._ids)
        answer = await self._ask(id, BeginEvent(id, key), PATIENCE)
        if answer is None:
            return None
        if answer.wait:
            return EventStep.WAIT
        return EventStep.DELIVER if answer.yes else EventStep.DELIVERED

    def ended(self, run: Run, outcome: Outcome) -> None:
        """This has become of a run."""
        if isinstance(outcome, Done):
            self._channel.send(Ended(run.key, run.number, outcome, ran=True))
        else:
            self._channel.send(Ended(run.key, run.number, None, ran=outcome is not Ran.NO))

    def event_ended(self, key: int, *, taken: bool) -> None:
        """This has become of an event."""
        self._channel.send(EventEnded(key, taken))

    async def post(self, entry: Entry, letter: Letter, *, until: float) -> bool:
        """Whether it has kept an event."""
        id, patience = next(self._ids), max(0.8, until - self._clock.now())
        answer = await self._ask(id, Post(id, entry, letter, patience), patience)
        return answer is not None and answer.yes

    def hold(self) -> None:
        """Ask nothing before `release`: something else is to be heard first."""
        self._held = []

    def release(self) -> None:
        """Ask what is held, and hold nothing more."""
        held, self._held = self._held, None
        for question in held or ():
            self._channel.send(question)

    async def listen(self) -> None:
        """Take its answers, until it is gone."""
        try:
            while True:
                message, _ = await self._channel.receive()
                if isinstance(message, Answer) and message.id in self._asked:
                    self._answered(message, *self._asked.pop(message.id))
        except Lost:
            self.lose()

    def lose(self) -> None:
        """Nobody answers any more."""
        self._channel.close()
        for _, waiting in self._asked.values():
            if not waiting.done():
                waiting.set_result(None)
        self._asked.clear()

    async def finish(self, timeout: float) -> None:
        """Nothing more is to be told: let it hear the last of it, and hang up."""
        try:
            async with asyncio.timeout(timeout):
                await self._channel.flush()
        except TimeoutError:
            pass
        self.lose()

    async def _ask(self, id: int, question: Question, patience: float) -> Answer | None:
        if self._channel.lost:
            return None
        waiting: asyncio.Future[Answer | None] = asyncio.get_running_loop().create_future()
        self._asked[id] = question, waiting
        if self._held is None:
            self._channel.send(question)
        else:
            self._held.append(question)
        try:
            async with asyncio.timeout(patience):
                return await waiting
        except TimeoutError:
            return None

    def _answered(
        self, answer: Answer, question: Question, waiting: asyncio.Future[Answer | None]
    ) -> None:
        """Leave that comes too late for anybody to use is handed back."""
        if not waiting.done():
            waiting.set_result(answer)
        elif isinstance(question, Begin) and answer.run:
            self._channel.send(Ended(question.key, answer.run, None, ran=False))
        elif isinstance(question, BeginEvent) and answer.yes:
            self._channel.send(EventEnded(question.key, taken=False))
