from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from proxy.adapters.clock import LoopClock
from proxy.adapters.tasks import Tasks
from proxy.cli import demo_calls
from proxy.cli.demo_calls import Callers
from proxy.cli.demo_rules import SAY_PENDING
from proxy.core.signature import SignatureResult, verify

KEY = b"key_throwaway"
FREE = {"success": True, "slots": [{"time": "10:00", "available": True}]}
FULL: dict[str, Any] = {"success": True, "slots": []}
OK = {"success": True}

Answers = dict[str, Any]


class Sidecar:
    """What stands at the other end: answers by tool, and remembers what it heard."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Any]] = {}  # by tool or event; the last one stays
        self.status = 200
        self.heard: list[dict[str, Any]] = []
        self.signatures: list[SignatureResult] = []
        self.hangs_at = ""  # a tool or event that is not answered until `healed`
        self.healed = asyncio.Event()

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.read()
        header = request.headers["x-retell-signature"].encode()
        self.signatures.append(verify([KEY], body, header, LoopClock().wall_ms()))
        heard = json.loads(body)
        self.heard.append(heard)
        name = heard.get("name") or heard["event"]
        if name == self.hangs_at:
            await self.healed.wait()
        said = self.answers.get(name, [OK])
        value = said.pop(0) if len(said) > 1 else said[0]
        text = value if isinstance(value, str) else json.dumps(value)
        return web.Response(status=self.status, text=text, headers={"x-callsplit-arm": "mcp"})

    def of(self, call_id: str) -> list[str]:
        """What was heard of one call, in order."""
        return [
            heard.get("name") or heard["event"]
            for heard in self.heard
            if (heard.get("call") or heard["call_inbound"])["call_id"] == call_id
        ]

    def call_ids(self) -> set[str]:
        return {(heard.get("call") or heard["call_inbound"])["call_id"] for heard in self.heard}


@pytest.fixture
async def sidecar() -> Sidecar:
    sidecar = Sidecar()
    sidecar.answers["get_available_slots"] = [FREE]
    return sidecar


Make = Callable[..., Awaitable[Callers]]


@pytest.fixture
async def make(sidecar: Sidecar, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Make]:
    application = web.Application()
    application.router.add_post("/retell", sidecar.answer)
    server = TestServer(application)
    await server.start_server()
    tasks = Tasks(lambda name, error: None)
    made: list[Callers] = []

    async def start(url: str | None = None, *, books: bool = True, rate: float = 20) -> Callers:
        monkeypatch.setattr(demo_calls, "BOOKERS", 1.0 if books else 0.0)
        callers = Callers(
            url or str(server.make_url("/retell")),
            KEY,
            rate=rate,
            pause=0.01,
            tasks=tasks,
            clock=LoopClock(),
        )
        made.append(callers)
        callers.start()
        return callers

    yield start
    for callers in made:
        callers.hurry()
        await callers.stop()
    await tasks.aclose()
    await server.close()


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.005)


async def test_a_booker_goes_through_a_whole_call(make: Make, sidecar: Sidecar) -> None:
    callers = await make()
    await until(lambda: callers.heard.booked >= 2)
    await callers.stop()

    first = sidecar.heard[0]["call_inbound"]["call_id"]
    assert sidecar.of(first) == [
        "call_inbound", "call_started", "get_customer_info", "get_available_slots",
        "book_appointment", "call_ended", "call_analyzed",
    ]  # fmt: skip
    booking = next(heard for heard in sidecar.heard if heard.get("name") == "book_appointment")
    assert booking["args"]["time"] == "10:00"
    assert callers.heard.unanswered == 0
    assert callers.heard.requests == len(sidecar.heard)


async def test_callers_are_not_in_each_others_way(make: Make, sidecar: Sidecar) -> None:
    """So that every booking that is confirmed on looking again is the caller's own."""
    times = [f"{hour:02}:{minute}" for hour in range(9, 18) for minute in ("00", "30")]
    sidecar.answers["get_available_slots"] = [
        {"success": True, "slots": [{"time": time} for time in times]}
    ]
    callers = await make(rate=50)
    await until(lambda: callers.heard.booked >= 20)
    await callers.stop()

    booked = [
        (heard["args"]["date"], heard["args"]["time"])
        for heard in sidecar.heard
        if heard.get("name") == "book_appointment"
    ]
    assert len(set(booked)) == len(booked)


async def test_an_asker_asks_and_does_not_book(make: Make, sidecar: Sidecar) -> None:
    callers = await make(books=False)
    await until(lambda: any(heard.get("event") == "call_analyzed" for heard in sidecar.heard))
    await callers.stop()

    tools = {heard["name"] for heard in sidecar.heard if "name" in heard}
    assert tools == {"get_company_info", "get_available_slots"}
    assert callers.heard.booked == 0


async def test_every_request_is_signed_over_its_own_bytes(make: Make, sidecar: Sidecar) -> None:
    callers = await make()
    await until(lambda: callers.heard.booked >= 1)
    await callers.stop()

    assert set(sidecar.signatures) == {SignatureResult.OK}


async def test_who_hangs_up_says_good_bye(make: Make, sidecar: Sidecar) -> None:
    """Calls under way at the end of the demo end as calls do, and at once."""
    callers = await make(rate=50)
    await until(lambda: callers.heard.live >= 3)
    await callers.stop()

    assert callers.heard.live == 0
    assert len(sidecar.call_ids()) == callers.heard.calls
    for call_id in sidecar.call_ids():
        assert sidecar.of(call_id)[-2:] == ["call_ended", "call_analyzed"]


async def test_who_hangs_up_before_the_booking_books_nothing(make: Make, sidecar: Sidecar) -> None:
    sidecar.hangs_at = "get_available_slots"
    callers = await make(rate=0.01)
    await until(lambda: any(heard.get("name") == sidecar.hangs_at for heard in sidecar.heard))
    stopping = asyncio.ensure_future(callers.stop())
    await asyncio.sleep(0)
    sidecar.healed.set()
    await stopping

    assert sidecar.of(sidecar.heard[0]["call_inbound"]["call_id"])[-3:] == [
        "get_available_slots", "call_ended", "call_analyzed"
    ]  # fmt: skip
    assert callers.heard.booked == 0


async def test_patience_is_rewarded_with_a_confirmation(make: Make, sidecar: Sidecar) -> None:
    sidecar.answers["get_available_slots"] = [FREE, FULL]
    sidecar.answers["book_appointment"] = [{"success": False, "message": SAY_PENDING}]
    callers = await make(rate=0.01)
    await until(lambda: callers.heard.confirmed)

    assert (callers.heard.pending, callers.heard.booked) == (1, 0)
    assert sidecar.of(next(iter(sidecar.call_ids()))).count("book_appointment") == 1


async def test_who_still_finds_the_time_free_is_not_confirmed(make: Make, sidecar: Sidecar) -> None:
    sidecar.answers["book_appointment"] = [{"success": False, "message": SAY_PENDING}]
    callers = await make(rate=0.01)
    await until(lambda: any(heard.get("event") == "call_analyzed" for heard in sidecar.heard))

    assert (callers.heard.pending, callers.heard.confirmed) == (1, 0)
    assert sidecar.heard[-1]["call"]["call_analysis"]["call_successful"] is False


async def test_a_time_that_is_taken_is_no_fault(make: Make, sidecar: Sidecar) -> None:
    sidecar.answers["book_appointment"] = [{"success": False, "message": "Not free any more."}]
    callers = await make()
    await until(lambda: callers.heard.declined)

    assert callers.heard.unanswered == callers.heard.booked == 0


async def test_a_booking_is_announced_with_the_arm_that_serves_the_call(
    make: Make, sidecar: Sidecar
) -> None:
    arms: list[str] = []
    heard_before: list[int] = []
    callers = await make()

    def begins(arm: str) -> None:
        arms.append(arm)
        heard_before.append(sum(h.get("name") == "book_appointment" for h in sidecar.heard))

    callers.booking_begins = begins
    await until(lambda: callers.heard.booked)
    assert arms[0] == "mcp"
    assert heard_before[0] == 0


@pytest.mark.parametrize("status", [302, 400, 503])
async def test_an_answer_that_retell_would_not_take_counts_as_none(
    make: Make, sidecar: Sidecar, status: int
) -> None:
    sidecar.status = status
    callers = await make()
    await until(lambda: callers.heard.unanswered >= 2)


@pytest.mark.parametrize("said", ["no JSON", "[1]"])
async def test_a_tool_may_answer_with_anything(make: Make, sidecar: Sidecar, said: str) -> None:
    sidecar.answers["book_appointment"] = [said]
    callers = await make()
    await until(lambda: callers.heard.declined)


async def test_nobody_at_the_other_end_counts_as_unanswered(make: Make) -> None:
    callers = await make("http://127.0.0.1:1/retell")
    await until(lambda: callers.heard.unanswered >= 2)


async def test_in_a_hurry_nobody_is_waited_for(make: Make, sidecar: Sidecar) -> None:
    sidecar.hangs_at = "call_inbound"
    callers = await make()
    await until(lambda: callers.heard.live)
    callers.hurry()

    async with asyncio.timeout(5):
        await callers.stop()
    assert callers.heard.live == 0
    assert callers.heard.unanswered == 0
    sidecar.healed.set()
