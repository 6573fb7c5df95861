"""Who calls?  Invented callers, at a steady pace, over real sockets, signed as Retell signs."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import aiohttp
import orjson

from proxy.adapters.clock import LoopClock
from proxy.adapters.tasks import Tasks
from proxy.cli.demo_retell import Conversation
from proxy.cli.demo_rules import SAY_PENDING
from proxy.core.signature import HEADER, sign

PATIENCE = 10.0
"""Seconds that Retell waits for an answer to a webhook."""

WISHES = ("09:00", "10:30", "12:00", "13:30", "15:00", "16:30")
"""Times of day that callers ask for, each day's callers a different one: nobody is in the way."""

BOOKERS = 0.6
"""Part of the callers who book; the others only ask."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for one request; status 0 if nothing did."""

    status: int
    arm: str = ""
    content: bytes = b""

    @property
    def ok(self) -> bool:
        """Retell takes any 2xx."""
        return 200 <= self.status < 300

    def read(self) -> Mapping[str, Any]:
        """The JSON object in it; {} if there is none."""
        try:
            value = orjson.loads(self.content)
        except orjson.JSONDecodeError:
            return {}
        return value if isinstance(value, dict) else {}


@dataclass(slots=True)
class Heard:
    """What all callers together experienced."""

    calls: int = 0
    live: int = 0
    requests: int = 0
    unanswered: int = 0  # no answer at all, or none that Retell would take
    booked: int = 0  # were told that their appointment stands
    declined: int = 0  # were told that the time is taken, or that booking is impossible now
    pending: int = 0  # heard `say_pending`
    confirmed: int = 0  # ... looked again, and found their time taken: by themselves


class Callers:
    """Places `rate` calls a second from `start` to `stop`; `pause` is the mean pause in one.

    `booking_begins(arm)` hears of each booking just before it is asked for, with the arm
    that has answered this call's tools so far.
    """

    def __init__(
        self, url: str, key: bytes, *, rate: float, pause: float, tasks: Tasks, clock: LoopClock
    ) -> None:
        self.heard = Heard()
        self.booking_begins: Callable[[str], None] = lambda arm: None
        self._url = url
        self._key = key
        self._every = 1 / rate
        self._mean_pause = pause
        self._tasks = tasks
        self._wall_ms = clock.wall_ms
        self._closing = asyncio.Event()
        self._calls: set[asyncio.Task[None]] = set()
        self._session: aiohttp.ClientSession | None = None
        self._placing: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to call."""
        self._session = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=PATIENCE),
            connector=aiohttp.TCPConnector(limit=0),
            headers={"content-type": "application/json", "user-agent": "callsplit-demo"},
        )
        self._placing = self._tasks.start(self._place(), "demo calls")

    async def stop(self) -> None:
        """Place no more calls; those under way say good-bye and hang up."""
        assert self._session is not None
        assert self._placing is not None
        self._closing.set()
        await asyncio.wait({self._placing, *self._calls})
        await self._session.close()

    def hurry(self) -> None:
        """Cut what still runs."""
        self._closing.set()
        for task in self._calls:
            task.cancel()

    async def _place(self) -> None:
        while not self._closing.is_set():
            task = self._tasks.start(self._call(self.heard.calls), "demo call")
            self.heard.calls += 1
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)
            await self._pause(self._every)

    async def _pause(self, seconds: float) -> None:
        """Wait, unless it is time to hang up."""
        try:
            async with asyncio.timeout(seconds):
                await self._closing.wait()
        except TimeoutError:
            pass

    async def _call(self, number: int) -> None:
        """One call from the first ring to its analysis."""
        talk = Conversation(number)
        self.heard.live += 1
        try:
            await self._send(talk.inbound(self._wall_ms()))
            await self._pause(self._mean_pause / 2)
            await self._send(talk.started(self._wall_ms()))
            happy = await self._talk(talk, number)
            await self._send(talk.ended(self._wall_ms()))
            await self._pause(self._mean_pause / 2)
            await self._send(talk.analyzed(self._wall_ms(), successful=happy))
        finally:
            self.heard.live -= 1

    async def _talk(self, talk: Conversation, number: int) -> bool:
        """What is said in between; True if the caller got what they wanted."""
        books = random.random() < BOOKERS
        date = _date(number, self._wall_ms())
        talk.said("user", "I need a haircut." if books else "Do you have time next week?")
        opening = "get_customer_info" if books else "get_company_info"
        first = await self._ask(talk, opening, {"phone": talk.phone} if books else {})
        slots = await self._ask(talk, "get_available_slots", {"date": date, "service": "haircut"})
        times = _times(slots)
        if not books or not times:
            return bool(times)
        wish = WISHES[number % len(WISHES)]
        time = next((time for time in times if time >= wish), times[-1])
        return await self._book(talk, date, time, first.arm if first is not None else "")

    async def _book(self, talk: Conversation, date: str, time: str, arm: str) -> bool:
        wanted = {"date": date, "time": time, "service": "haircut", "name": talk.name}
        talk.said("user", f"{time} would be great.")
        answer = await self._ask(talk, "book_appointment", wanted, lambda: self.booking_begins(arm))
        if answer is None:
            return False
        said = answer.read()
        if said.get("success") is True:
            self.heard.booked += 1
            return True
        if said.get("message") != SAY_PENDING:
            self.heard.declined += answer.ok
            return False
        self.heard.pending += 1
        talk.said("agent", SAY_PENDING)
        again = await self._ask(talk, "get_available_slots", {"date": date, "service": "haircut"})
        confirmed = again is not None and again.ok and time not in _times(again)
        self.heard.confirmed += confirmed
        return confirmed

    async def _ask(
        self,
        talk: Conversation,
        tool: str,
        args: Mapping[str, str],
        just_before: Callable[[], None] = lambda: None,
    ) -> Answer | None:
        """Pause as people do, then call a tool; None if the caller hung up instead."""
        await self._pause(self._mean_pause * random.uniform(0.6, 1.4))
        if self._closing.is_set():
            return None
        just_before()
        answer = await self._send(talk.function(tool, args))
        talk.tool_answered(answer.content, successful=answer.ok)
        return answer

    async def _send(self, body: bytes) -> Answer:
        """One signed request, as Retell sends it."""
        assert self._session is not None
        signature = sign(self._key, body, self._wall_ms()).decode()
        self.heard.requests += 1
        try:
            async with self._session.post(
                self._url, data=body, headers={HEADER.decode(): signature}
            ) as response:
                content = await response.read()
                arm = response.headers.get("x-callsplit-arm", "")
                answer = Answer(response.status, arm, content)
        except (aiohttp.ClientError, TimeoutError):
            answer = Answer(0)
        self.heard.unanswered += not answer.ok
        return answer


def _date(number: int, wall_ms: int) -> str:
    """The caller's day: the next one whose wishes are not all given away."""
    today = datetime.fromtimestamp(wall_ms / 1000, UTC).date()
    return str(today + timedelta(days=1 + number // len(WISHES)))


def _times(answer: Answer | None) -> list[str]:
    slots = answer.read().get("slots", []) if answer is not None else []
    return [slot["time"] for slot in slots]
