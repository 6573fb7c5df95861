"""Phone calls as Retell and its agents make them, and an account of what they were told."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.phone import Phone
from tests.functional.wire import Answer

SAY = "Nothing happened."
PENDING = "It may have happened."
RETRIES = 3
"""How often Retell sends an event or an inbound call again that got no 2xx."""

BACK_OFF = 0.5
"""Seconds before the first of them; twice as many before each further one."""


@dataclass
class Told:
    """What callers heard."""

    answers: Counter[str] = field(default_factory=Counter)  # by kind and outcome
    ill_formed: list[str] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)
    bookings: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    asked: dict[tuple[str, str], tuple[float, float]] = field(default_factory=dict)  # from, to
    meant: Counter[tuple[str, str]] = field(default_factory=Counter)  # how often each is meant
    events: set[tuple[str, str]] = field(default_factory=set)  # taken with a 2xx
    not_taken: list[str] = field(default_factory=list)  # answered: later


@dataclass(frozen=True)
class Habits:
    """What agents do: `repeats` = they, and Retell, ask again for what they asked already."""

    repeats: bool


class PhoneCall:
    """One call, from its ringing to its analysis."""

    def __init__(self, phone: Phone, told: Told, habits: Habits, pick: random.Random) -> None:
        self._phone, self._told, self._habits, self._pick = phone, told, habits, pick
        self.id = f"call_{pick.getrandbits(108):027x}"
        self._started = int(time.time() * 1000)
        self._asked: list[dict[str, Any]] = []  # the transcript of its tools
        self._slots = 0

    async def live(self) -> None:
        """All of it."""
        await self._hook("inbound", self._inbound())
        await self._hook("event", self._event("call_started"))
        does = self._look, self._book, self._book, self._change_its_mind, self._book_what_is_taken
        for _ in range(self._pick.randint(2, 5)):
            await asyncio.sleep(self._pick.uniform(0.0, 0.3))
            await self._pick.choice(does)()
        await self._hook("event", self._event("call_ended"))
        await self._hook("event", self._event("call_analyzed"))

    # -- What the agent does.

    async def _look(self) -> None:
        await self._tool("get_available_slots", {"slot": "any"})

    async def _book(self) -> None:
        slot = self._new_slot()
        heard = await self._booking(slot)
        if self._habits.repeats and self._pick.random() < 0.5:
            await self._again(slot, heard)

    async def _again(self, slot: str, heard: str) -> None:
        """The agent has forgotten, was interrupted, or heard that it is pending."""
        await asyncio.sleep(self._pick.uniform(0.0, 1.0))
        for _ in range(self._pick.randint(1, 2)):
            if heard == "no":
                return
            heard = await self._booking(slot)

    async def _change_its_mind(self) -> None:
        """Book, cancel, and book the same again: the second booking is meant."""
        slot = self._new_slot()
        if await self._booking(slot) != "done":
            return
        if await self._tool("cancel_appointment", {"slot": slot}) == "done":
            self._told.meant[self.id, slot] += 1
            await self._booking(slot)

    async def _book_what_is_taken(self) -> None:
        await self._tool("book_appointment", {"slot": f"taken {self._new_slot()}"})

    def _new_slot(self) -> str:
        self._slots += 1
        return f"slot {self._slots}"

    async def _booking(self, slot: str) -> str:
        key = self.id, slot
        self._told.meant[key] = max(self._told.meant[key], 1)
        heard = self._told.bookings.setdefault(key, [])
        began = time.monotonic()
        heard.append(await self._tool("book_appointment", {"slot": slot}))
        first, _ = self._told.asked.get(key, (began, began))
        self._told.asked[key] = first, time.monotonic()
        return heard[-1]

    # -- What Retell sends.

    async def _tool(self, name: str, arguments: dict[str, Any]) -> str:
        """What it came to: done, no, say, pending, or lost."""
        number = f"tc_{len(self._asked)}"
        said = {"role": "tool_call_invocation", "tool_call_id": number, "name": name}
        self._asked.append(said)
        body = json.dumps(
            {"name": name, "call": self._call(tools=self._asked), "args": arguments}
        ).encode()
        heard = await self._heard(name, body)
        if self._habits.repeats and name != "get_available_slots" and self._pick.random() < 0.1:
            heard = await self._heard(name, body)  # Retell again: the same bytes.
        self._asked.append({"role": "tool_call_result", "tool_call_id": number, "content": heard})
        return heard

    async def _heard(self, name: str, body: bytes) -> str:
        answer = await self._phone.ask(f"{name} of {self.id}", "/retell", body)
        heard = "lost" if answer is None else outcome(answer)
        self._count("function", heard, answer)
        return heard

    async def _hook(self, kind: str, body: bytes) -> None:
        """An event or an inbound call, with Retell's retries."""
        for number in range(RETRIES + 1):
            answer = await self._phone.ask(f"{kind} of {self.id}", "/retell", body)
            heard = "lost" if answer is None else hook_outcome(kind, answer)
            self._count(kind, heard, answer)
            if heard == "done" and kind == "event":
                self._told.events.add((self.id, json.loads(body)["event"]))
            if heard != "later":
                return
            await asyncio.sleep(BACK_OFF * 2**number)

    def _count(self, kind: str, heard: str, answer: Answer | None) -> None:
        how = answer.reason if answer is not None else "none"
        self._told.answers[f"{kind} {heard}: {how}"] += 1
        if answer is None:
            self._told.unanswered.append(f"{kind} of {self.id}")
        elif heard == "later":
            self._told.not_taken.append(f"{kind} of {self.id}: {how}")
        elif heard == "ill-formed":
            self._told.ill_formed.append(f"{kind} of {self.id}: {answer.status} {how}")

    def _call(self, **more: Any) -> dict[str, Any]:
        call = {"call_id": self.id, "agent_id": "agent_chaos", "start_timestamp": self._started}
        tools = more.pop("tools", [])
        return {**call, "transcript_with_tool_calls": list(tools), **more}

    def _event(self, name: str) -> bytes:
        return json.dumps({"event": name, "call": self._call(tools=self._asked)}).encode()

    def _inbound(self) -> bytes:
        about = {"call_id": self.id, "from_number": "+14155550100", "to_number": "+14155550199"}
        stamp = self._started
        return json.dumps(
            {"event": "call_inbound", "event_timestamp": stamp, "call_inbound": about}
        ).encode()


def outcome(answer: Answer) -> str:
    """What a tool's caller can make of an answer."""
    said = parsed(answer)
    if answer.status != 200 or said is None:
        return "ill-formed"
    if said.get("success") is True:
        return "done"
    return {SAY: "say", PENDING: "pending"}.get(said.get("message", ""), "no")


def hook_outcome(kind: str, answer: Answer) -> str:
    """What Retell makes of it: done, or to be sent again later."""
    if answer.status == 503 and kind == "event" and answer.value(b"retry-after"):
        return "later"
    if not 200 <= answer.status < 300:
        return "ill-formed"
    if kind == "inbound":
        said = parsed(answer)
        return "done" if said is not None and "call_inbound" in said else "ill-formed"
    return "done"


def parsed(answer: Answer) -> dict[str, Any] | None:
    """Its JSON object, if it is one."""
    try:
        said = answer.json
    except ValueError:
        return None
    return said if isinstance(said, dict) else None
