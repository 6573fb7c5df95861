"""One run: start everything, let calls come and harm be done, heal, and look at what is left."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos import verdict
from tests.chaos.calls import PENDING, SAY, Habits, PhoneCall, Told
from tests.chaos.children import BackendChild, Footprint, SidecarChild
from tests.chaos.ledger import entries
from tests.chaos.monkey import Monkey, Say
from tests.chaos.phone import Outages, Phone

WARM_UP = 2.0
SPARED = 0.35
"""The last part of a run in which the sidecar is not restarted."""

SETTLES = 20.0
"""Seconds in which everything has to be given back."""

AT_ONCE = 300
"""Calls at a time; more wait to begin."""

SPARE_DESCRIPTORS = 2
"""Files that may come and go by themselves."""


MAY_LOSE = (
    "what a killed sidecar knew of writes: one that ran before may run again if it is repeated "
    "(double_bookings.after_a_kill), and its caller may hear that nothing ran "
    "(untrue.after_a_kill); never an event that was taken"
)


@dataclass(frozen=True)
class Plan:
    """What is asked of a run."""

    seconds: float
    seed: int
    rate: float
    kills: bool
    repeats: bool
    outbox: bool
    keep: Path | None


def rules(folder: Path, mcp: int, webhook: int, *, outbox: bool) -> dict[str, Any]:
    """Both arms in use, both ways of rescue, little patience, breakers that open often."""
    breaker = {"failures": 5, "open_for": "1s", "open_max": "3s"}
    arm = {"keepalive": "1s", "breaker": breaker, "connections": 128}
    write = {"effect": "write", "linger": "5s"}
    return {
        "version": 1,
        "listen": {"drain_grace": "6s"},
        "split": {"to": "mcp", "otherwise": "webhook", "percent": 60, "salt": "chaos"},
        "backends": {
            "mcp": {
                "handler": "mcp",
                "url": f"http://127.0.0.1:{mcp}/mcp",
                "timeout": "1s",
                "health": {"probe": "tools/list", "every": "1s"},
                **arm,
            },
            "webhook": {
                "handler": "webhook",
                "url": f"http://127.0.0.1:{webhook}/hook",
                "timeout": "2s",
                "health": {"path": "/health", "every": "1s"},
                **arm,
            },
        },
        "fallback": {
            "both_ways": True,
            "budget": {"function": "2s", "event": "6s", "inbound": "6s"},
        },
        "tools": {
            "default": {"effect": "write", "say": SAY, "say_pending": PENDING},
            "get_available_slots": {"effect": "read"},
            "book_appointment": write,
            "cancel_appointment": write,
        },
        "limits": {"tools_per_minute": None, "ip_per_minute": None},
        "outbox": {"enabled": outbox, "retry_first": "200ms", "retry_max": "1s"},
        "state_dir": str(folder / "state"),
    }


async def run(plan: Plan, say: Say) -> dict[str, Any]:
    """The report."""
    with contextlib.ExitStack() as stack:
        folder = plan.keep
        if folder is None:
            folder = Path(tempfile.mkdtemp(prefix="chaos-"))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        return await _run(plan, folder, say)


async def _run(plan: Plan, folder: Path, say: Say) -> dict[str, Any]:
    ledger, outages, told = folder / "ledger", Outages(), Told()
    mcp = BackendChild("mcp", "mcp", folder, ledger, plan.seed)
    webhook = BackendChild("webhook", "webhook", folder, ledger, plan.seed)
    sidecar = SidecarChild(folder, rules(folder, mcp.port, webhook.port, outbox=plan.outbox))
    phone, pick = Phone(sidecar.port, outages), random.Random(plan.seed)
    monkey = Monkey((mcp, webhook), sidecar, outages, random.Random(plan.seed), say,
                    kills=plan.kills)  # fmt: skip
    async with _started(mcp, webhook, sidecar):
        async with _calls(plan, phone, told, pick):
            await asyncio.sleep(WARM_UP)
        phone.hang_up()
        before = await sidecar.settled(SETTLES)
        async with _calls(plan, phone, told, pick):
            await monkey.rage(plan.seconds, plan.seconds * (1 - SPARED))
        phone.hang_up()
        say("heal, and look at what is left")
        if plan.outbox:
            await _delivered(ledger, told)
        after = await sidecar.settled(SETTLES)
    return _report(plan, phone, told, monkey, sidecar, entries(ledger), before, after)


@contextlib.asynccontextmanager
async def _started(*children: BackendChild | SidecarChild) -> AsyncIterator[None]:
    try:
        for child in children:
            await child.start()
        for child in children:
            await child.up()
        yield
    finally:
        for child in reversed(children):
            await child.stop()


@contextlib.asynccontextmanager
async def _calls(plan: Plan, phone: Phone, told: Told, pick: random.Random) -> AsyncIterator[None]:
    """New calls at the plan's rate; at the end, those that live go on to their end."""
    room, living = asyncio.Semaphore(AT_ONCE), set[asyncio.Task[None]]()

    async def one() -> None:
        call = PhoneCall(phone, told, Habits(plan.repeats), random.Random(pick.getrandbits(64)))
        async with room:
            await call.live()

    async def begin() -> None:
        while True:
            living.add(task := asyncio.create_task(one()))
            task.add_done_callback(living.discard)
            await asyncio.sleep(pick.expovariate(plan.rate))

    beginning = asyncio.create_task(begin())
    try:
        yield
    finally:
        beginning.cancel()
        await asyncio.gather(beginning, return_exceptions=True)
        await asyncio.gather(*living)


async def _delivered(ledger: Path, told: Told) -> None:
    """Wait for what is in the outbox; what never comes is found to be lost."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + SETTLES
    while verdict.lost_events(entries(ledger), told).broken and loop.time() < ends:
        await asyncio.sleep(0.2)


def _report(
    plan: Plan,
    phone: Phone,
    told: Told,
    monkey: Monkey,
    sidecar: SidecarChild,
    ledger: list[dict[str, Any]],
    before: Footprint,
    after: Footprint,
) -> dict[str, Any]:
    findings = {
        "unanswered": verdict.plain(told.unanswered),
        "broken_off": verdict.plain(phone.broken_off),
        "ill_formed": verdict.plain(told.ill_formed),
        "double_bookings": verdict.doubles(ledger, told, monkey.killed_at),
        "untrue": verdict.untrue(ledger, told, monkey.killed_at),
        "lost_events": verdict.lost_events(ledger, told),
        "events_not_taken": verdict.plain(told.not_taken if plan.outbox else ()),
        "permits": verdict.plain(f"{name}: {count}" for name, count in after.left.items()),
        "leaks": verdict.plain(_leaks(before, after)),
        "crashes": verdict.plain(_crashes(sidecar)),
    }
    return {
        "seed": plan.seed,
        "seconds": plan.seconds,
        "calls_a_second": plan.rate,
        "sidecar": "killed with -9" if plan.kills else "restarted gracefully",
        "may_lose": MAY_LOSE if plan.kills else "nothing",
        "repeats": plan.repeats,
        "outbox": plan.outbox,
        "harm": dict(sorted(monkey.done.items())),
        "phone": dict(sorted(phone.counts.items())),
        "answers": dict(sorted(told.answers.items())),
        "bookings_meant": sum(told.meant.values()),
        "bookings_made": sum(entry["what"] == "booking" for entry in ledger),
        "events_taken": len(told.events),
        "events_delivered": sum(entry["what"] == "event" for entry in ledger),
        "before": vars(before),
        "after": vars(after),
        "found": {name: finding.told() for name, finding in findings.items()},
        "reached": not any(finding.broken for finding in findings.values()),
    }


def _leaks(before: Footprint, after: Footprint) -> list[str]:
    leaks = []
    if after.descriptors > before.descriptors + SPARE_DESCRIPTORS:
        leaks.append(f"descriptors: {before.descriptors} before, {after.descriptors} after")
    if before.tasks is not None and after.tasks is not None and after.tasks > before.tasks:
        leaks.append(f"tasks: {before.tasks} before, {after.tasks} after")
    return leaks


def _crashes(sidecar: SidecarChild) -> list[str]:
    names = ("exchange_crashed", "task_crashed")
    crashes = [str(one)[:300] for name in names for one in sidecar.events(name)]
    return crashes + [f"exit {code}" for code in sidecar.exits if code != 0]
