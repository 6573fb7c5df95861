"""What would a small hair salon answer?  In process, for trying callsplit without any upstream.

Every arm of a demo shares one `Salon`, which remembers what ran on which arm and can be told
to break an arm.  Options: `like` (`mcp` takes tools only, `webhook` everything), `latency` in
seconds, `salon` to share one's own.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import orjson

from backends.base import BackendConfig, Send
from proxy.core.dialects import answers, inbound, jsonrpc, tools
from proxy.core.dialects.jsonrpc import ToolResult
from proxy.core.model import TOOL_KINDS, Call, Kind, Reply
from proxy.errors import ProbeFailed, UpstreamFailed

_OPENS, _CLOSES = 9, 18
_RUNS_KEPT = 10_000
_CUSTOMERS = {
    "+14155550100": {"name": "Ana Lopez", "visits": 7, "prefers": "Maria"},
    "+14155550101": {"name": "Ben Carter", "visits": 1, "prefers": None},
    "+14155550102": {"name": "Chloe Martin", "visits": 23, "prefers": "Jonas"},
}
_COMPANY = {
    "name": "Salon Mondlicht",
    "services": [
        {"name": "haircut", "minutes": 30, "price": "38.00 EUR"},
        {"name": "colour", "minutes": 90, "price": "95.00 EUR"},
    ],
    "hours": "Monday to Saturday, 9:00 to 18:00",
    "timezone": "Europe/Berlin",
}


class Mood(StrEnum):
    """What is wrong with an arm."""

    WELL = "well"
    REFUSE = "refuse"  # nobody listens: nothing runs
    ERROR = "error"  # it fails before it does anything, but says only that it failed
    HANG = "hang"  # it runs the tool and never answers


@dataclass(frozen=True, slots=True)
class Run:
    """One tool that ran."""

    arm: str
    tool: str
    call_id: str | None


@dataclass(slots=True)
class Salon:
    """The shared truth behind all arms: bookings, what ran where, and which arm is broken."""

    bookings: dict[tuple[str, str], dict[str, Any]] = field(default_factory=dict)
    runs: deque[Run] = field(default_factory=lambda: deque(maxlen=_RUNS_KEPT))
    ran: Counter[tuple[str, str]] = field(default_factory=Counter)  # (arm, tool) -> times
    events: Counter[tuple[str, str]] = field(default_factory=Counter)  # (arm, event) -> times
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _moods: dict[str, Mood] = field(default_factory=dict)
    _healed: dict[str, asyncio.Event] = field(default_factory=dict)

    def mood(self, arm: str) -> Mood:
        """How the arm is."""
        return self._moods.get(arm, Mood.WELL)

    def set_mood(self, arm: str, mood: Mood) -> None:
        """Break an arm, or heal it: then what hung there fails at once."""
        self._moods[arm] = mood
        if mood is not Mood.HANG and arm in self._healed:
            self._healed.pop(arm).set()

    async def until_healed(self, arm: str) -> None:
        """Wait until the arm no longer hangs."""
        if self.mood(arm) is Mood.HANG:
            await self._healed.setdefault(arm, asyncio.Event()).wait()

    def run(self, arm: str, call: Call) -> dict[str, Any]:
        """Run the call's tool on `arm` and return what it says."""
        tool = call.tool or ""
        work = _TOOLS.get(tool)
        if work is None:
            return {"success": False, "message": "I don't know how to do that."}
        self.runs.append(Run(arm, tool, call.id))
        self.ran[arm, tool] += 1
        return work(self, _arguments(call))

    def free(self, date: str) -> list[str]:
        """The times of a day that nobody has booked."""
        times = (f"{hour:02}:{minute:02}" for hour in range(_OPENS, _CLOSES) for minute in (0, 30))
        return [time for time in times if (date, time) not in self.bookings]


def _arguments(call: Call) -> dict[str, str]:
    """The arguments as texts; a demo forgives whatever else they are."""
    given = orjson.loads(call.arguments or b"{}")
    return {name: str(value) for name, value in given.items()} if isinstance(given, dict) else {}


def _slots(salon: Salon, args: Mapping[str, str]) -> dict[str, Any]:
    date = args.get("date", "")
    times = [{"time": time, "available": True} for time in salon.free(date)]
    return {"success": True, "date": date, "timezone": _COMPANY["timezone"], "slots": times}


def _book(salon: Salon, args: Mapping[str, str]) -> dict[str, Any]:
    date, time = args.get("date", ""), args.get("time", "")
    if time not in salon.free(date):
        return {"success": False, "message": f"{time or 'That time'} is not free any more."}
    booking = {"booking_id": f"bk_{next(salon.numbers):05}", "date": date, "time": time}
    salon.bookings[date, time] = {**booking, "name": args.get("name", "")}
    return {"success": True, **booking}


def _cancel(salon: Salon, args: Mapping[str, str]) -> dict[str, Any]:
    wanted = args.get("booking_id")
    for slot, booking in salon.bookings.items():
        if booking["booking_id"] == wanted:
            del salon.bookings[slot]
            return {"success": True, "booking_id": wanted}
    return {"success": False, "message": "There is no such booking."}


def _customer(_: Salon, args: Mapping[str, str]) -> dict[str, Any]:
    known = _CUSTOMERS.get(args.get("phone", ""))
    return {"success": True, "found": known is not None, **(known or {})}


def _company(_: Salon, __: Mapping[str, str]) -> dict[str, Any]:
    return {"success": True, **_COMPANY}


_TOOLS: Mapping[str, Callable[[Salon, Mapping[str, str]], dict[str, Any]]] = {
    "get_available_slots": _slots,
    "book_appointment": _book,
    "cancel_appointment": _cancel,
    "get_customer_info": _customer,
    "get_company_info": _company,
}

SALON = Salon()
"""The one that arms share unless they are given another."""


class DemoBackend:
    """Answers in process; never uses `send`."""

    def __init__(self, config: BackendConfig) -> None:
        options = config.options
        like = options.get("like", "webhook")
        self.kinds = TOOL_KINDS if like == "mcp" else frozenset(Kind) - {Kind.LLM}
        self.salon: Salon = options.get("salon", SALON)
        self._arm = config.name
        self._latency = float(options.get("latency", 0.0))

    async def handle(self, call: Call, send: Send) -> Reply:
        """Answer like the real thing, unless this arm is broken."""
        await self._work()
        mood = self.salon.mood(self._arm)
        if mood is Mood.REFUSE:
            raise UpstreamFailed("connect", "the demo arm is switched off", sent=False)
        if mood is Mood.ERROR:
            raise UpstreamFailed("status", "the demo arm fails", sent=True)
        reply = self._answer(call)
        if mood is Mood.HANG:
            await self.salon.until_healed(self._arm)
            raise UpstreamFailed("timeout", "the demo arm hung", sent=True)
        return reply

    async def probe(self, send: Send) -> None:
        """Well or not; raises `ProbeFailed`."""
        mood = self.salon.mood(self._arm)
        if mood is not Mood.WELL:
            raise ProbeFailed(f"the demo arm is told to {mood}")

    async def _work(self) -> None:
        """Take about as long as a real arm: a little spread, now and then a long one."""
        if self._latency > 0:
            await asyncio.sleep(self._latency * random.lognormvariate(0, 0.3))

    def _answer(self, call: Call) -> Reply:
        json = [(b"content-type", answers.JSON)]
        if call.kind is Kind.MCP:
            return self._to_mcp(call)
        if call.kind is Kind.INBOUND:
            self.salon.events[self._arm, call.event or ""] += 1
            return Reply(200, json, inbound.no_instructions(call.event))
        if call.kind not in TOOL_KINDS:
            self.salon.events[self._arm, call.event or str(call.kind)] += 1
            return Reply(200, json, b'{"status":"ok"}')
        said = orjson.dumps(self.salon.run(self._arm, call)).decode()
        if call.kind is Kind.TOOLS:
            return Reply(200, json, tools.render(said))
        return Reply(200, json, said.encode())

    def _to_mcp(self, call: Call) -> Reply:
        if call.rpc_method != "tools/call" or call.rpc_id is None:
            return answers.no_such_method(call)
        said = self.salon.run(self._arm, call)
        raw = orjson.dumps(said)
        result = ToolResult(raw.decode(), raw, is_error=not said["success"])
        era = jsonrpc.era_of(call.head.named)
        return answers.rpc_reply(call, jsonrpc.render_result(call.rpc_id, era, result))
