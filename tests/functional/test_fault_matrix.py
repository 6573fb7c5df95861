"""Every fault, at every kind of request, on fresh and on kept connections, at one arm and at both.

Each cell of `fault_table` is run `RUNS` times through real sockets, all columns of a row at once;
the arms count what reached them.  No breaker is open, so no run knows of another.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.functional import fault_table
from tests.functional.fault_table import SUBJECTS, TOOLS, Cell
from tests.functional.faulty import FAULTS, WARM, Fault, RawOrigin, Wire
from tests.functional.kit import (
    PENDING,
    SAY,
    Sidecar,
    event,
    function,
    merged,
    running,
    tools_call,
)
from tests.functional.wire import Answer, until

RUNS = int(os.environ.get("MATRIX_RUNS", "20"))
"""Runs of each cell."""

NEVER_LEFT = "say 0+0"

AT_ONCE = 100
"""Exchanges under way at a time."""

SPARE = 10
"""Connections kept beyond those: what is done beside the path (a catalogue, a cancellation) may
hold some of them when a run wants its own.
"""

PATIENCE = "250ms"
"""Of the arms that nothing but a deadline ends; the others have all the time they need."""

REPLAYED = b"x-callsplit-replayed"
LETTERS = {"first": "A", "second": "B"}

BETWEEN_TWO_WEBHOOKS = fault_table.read(fault_table.BETWEEN_TWO_WEBHOOKS)
FROM_MCP = fault_table.read(fault_table.FROM_MCP_TO_A_WEBHOOK)
REPEATED = fault_table.read(fault_table.REPEATED_WRITES)


@dataclass(frozen=True)
class Way:
    """The first arm's language, and the caller's."""

    wire: Wire
    table: fault_table.Table
    subjects: tuple[str, ...] = SUBJECTS
    relays: bool = False  # the caller speaks MCP itself


WAYS = {
    "webhook": Way(Wire.WEBHOOK, BETWEEN_TWO_WEBHOOKS),
    "mcp json": Way(Wire.JSON, FROM_MCP),
    "mcp sse": Way(Wire.SSE, FROM_MCP, TOOLS),
    "mcp caller": Way(Wire.JSON, FROM_MCP, TOOLS, relays=True),
}


def document(first: RawOrigin, second: RawOrigin) -> dict[str, Any]:
    """Everything goes to `first`, but for an agent that always has the second."""
    arm = {
        "connect_timeout": "10s",
        "keepalive": "60s",
        "connections": 4 * AT_ONCE,
        "timeout": "10s",
        "breaker": {"enabled": False},
    }
    handler = "webhook" if first.wire is Wire.WEBHOOK else "mcp"
    own = {"effect": "write", "say": SAY, "say_pending": PENDING, "linger": "50ms"}
    return {
        "version": 1,
        "listen": {"address": "127.0.0.1:0", "drain_grace": "5s"},
        "admin": {"address": "127.0.0.1:0"},
        "split": {
            "to": "first",
            "otherwise": "second",
            "percent": 100,
            "salt": "faults",
            "overrides": [{"when": {"agent_id": {"in": ["second"]}}, "to": "second"}],
        },
        "backends": {
            "first": {"handler": handler, "url": f"{first.url}/first", **arm},
            "second": {"handler": "webhook", "url": f"{second.url}/second", **arm},
        },
        "tools": {"default": own, **{effect: {"effect": effect} for effect in TOOLS}},
        # A loop that a hundred callers at once keep busy must not shed any of them.
        "limits": {"tools_per_minute": None, "ip_per_minute": None, "max_lag": None},
        "outbox": {"enabled": False},  # Else events that no arm takes are taken here.
        "metrics": {"namespace": "t"},
    }


def hasty(rules: dict[str, Any]) -> dict[str, Any]:
    """The same with little patience."""
    return merged(rules, {"backends": {arm: {"timeout": PATIENCE} for arm in LETTERS}})


def body_of(subject: str, call_id: str, **call: Any) -> bytes:
    """What Retell would send; the tools are called after their effects."""
    if subject == "event":
        return event(call_id=call_id)
    if subject == "inbound":
        about = {"call_id": call_id, "from_number": "+1", "to_number": "+2"}
        return json.dumps({"event": "call_inbound", "call_inbound": about}).encode()
    return function(subject, call_id, {"slot": "10:00"}, **call)


@dataclass
class Stage:
    """A sidecar between two arms, and what was heard there."""

    way: Way
    first: RawOrigin
    second: RawOrigin
    sidecar: Sidecar
    rules: dict[str, Any]
    heard: dict[str, Answer] = field(default_factory=dict)  # by call ID

    @property
    def arms(self) -> tuple[RawOrigin, RawOrigin]:
        return self.first, self.second

    async def ask(self, subject: str, call_id: str, **call: Any) -> Answer:
        """One exchange, in the caller's language; the last one of a call is what counts."""
        if self.way.relays:
            target, body = f"/mcp/{call_id}", tools_call(subject, {"slot": "10:00"})
        else:
            target, body = "/retell", body_of(subject, call_id, **call)
        answer = self.heard[call_id] = await self.sidecar.post(target, body)
        return answer

    async def warm(self, count: int) -> None:
        """Open so many connections to each arm, and let each carry a request."""
        asked = [
            self.sidecar.post("/retell", body_of("read", f"{WARM}-{agent}-{n}", agent_id=agent))
            for agent in ("first", "second")
            for n in range(count)
        ]
        answers = asyncio.ensure_future(asyncio.gather(*asked))
        await until(lambda: all(arm.warm == count for arm in self.arms), "all are under way")
        for arm in self.arms:
            arm.go.set()
        assert {answer.status for answer in await answers} == {200}
        await until(lambda: self.kept() == [count, count], "so many wait for a request")

    def kept(self) -> list[int]:
        """How many connections to each arm wait for a request."""
        upstreams = self.sidecar.app.wiring.upstreams
        return [upstreams[arm.name].idle for arm in self.arms]

    def cell(self, call_id: str) -> Cell:
        """What came of one exchange."""
        answer = self.heard[call_id]
        first, second = (arm.delivered[call_id] for arm in self.arms)
        return Cell(heard(answer), first, second, again=REPLAYED in answer.names)


def heard(answer: Answer) -> str:
    """Who answered, or which last answer it was."""
    said = answer.json
    if answer.status == 503 and answer.reason == "last_answer":
        return "503" if answer.value(b"retry-after") else "503 without retry-after"
    assert answer.status == 200
    if answer.reason == "last_answer":
        return last_answer(said)
    arms = [arm for arm in LETTERS if arm in json.dumps(said)]
    return "".join(LETTERS[arm] for arm in arms if answer.arm == arm or answer.reason == "replayed")


def last_answer(said: Any) -> str:
    """The word for a last answer, in whichever language."""
    if said == {"call_inbound": {}}:
        return "{}"
    if "jsonrpc" in said:
        assert said["id"] == 7
        assert said["result"]["isError"] is True
        (block,) = said["result"]["content"]
        sentence = block["text"]
    else:
        assert said["success"] is False
        sentence = said["message"]
    return {SAY: "say", PENDING: "pending"}[sentence]


def reason(way: Way, fault: Fault, subject: str, cell: Cell) -> str:
    """What the answer's header says of it."""
    if cell.heard == "A":
        return "share"
    if cell.heard != "B":
        return "last_answer"
    return "kind" if way.table is FROM_MCP and subject not in TOOLS else f"rescue_{fault.why}"


@contextlib.asynccontextmanager
async def stage(
    folder: Path, way: Way, fault: Fault, *, reused: bool, **sections: Any
) -> AsyncIterator[Stage]:
    """Both arms well, a sidecar that knows their language."""
    async with contextlib.AsyncExitStack() as stack:
        first = RawOrigin("first", way.wire, closes=not reused)
        second = RawOrigin("second", Wire.WEBHOOK, closes=not reused)
        for arm in (first, second):
            arm.listen()
            stack.push_async_callback(arm.stop)
        rules = merged(document(first, second), sections)
        rules = rules if reused or not fault.slow else hasty(rules)
        sidecar = await stack.enter_async_context(running(folder, rules))
        ready = Stage(way, first, second, sidecar, rules)
        if way.wire is not Wire.WEBHOOK:  # A handshake that fails runs nothing: see test_rescue.
            await ready.ask("read", "handshake")
            assert ready.cell("handshake") == Cell("A", 1, 0)
        yield ready


async def broken(ready: Stage, fault: Fault, *, reused: bool, both: bool, count: int) -> None:
    """Have `count` connections kept and some to spare, if any are to be; let the fault begin."""
    if reused:
        count += SPARE
        await ready.warm(count)
        if fault.slow:  # Only now: to open all those connections may take a while.
            await ready.sidecar.write(hasty(ready.rules))
            await until(lambda: ready.kept() == [count, count], "so many wait again")
    await ready.first.break_with(fault)
    if both:
        await ready.second.break_with(fault)


async def in_batches(asked: list[Callable[[], Coroutine[Any, Any, Answer]]]) -> None:
    """All of them, `AT_ONCE` at a time."""
    for at in range(0, len(asked), AT_ONCE):
        await asyncio.gather(*[ask() for ask in asked[at : at + AT_ONCE]])


def is_late(cell: Cell, expected: Cell) -> bool:
    """A busy machine used the patience up before the request had left: that is another row.

    Such a run is repeated, once.  One that was delivered too often is never late.
    """
    return cell.first < expected.first or cell.second < expected.second


@pytest.mark.parametrize("both", [False, True], ids=["one arm", "both arms"])
@pytest.mark.parametrize("reused", [False, True], ids=["fresh", "reused"])
@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
async def test_a_fault_has_the_outcome_that_the_table_says(
    tmp_path: Path, way: Way, name: str, reused: bool, both: bool
) -> None:
    fault = FAULTS[name]
    expected = {subject: way.table[name, subject, both] for subject in way.subjects}
    asked = [(subject, f"{subject}-{n}") for n in range(RUNS) for subject in way.subjects]
    async with stage(tmp_path, way, fault, reused=reused) as ready:
        await broken(ready, fault, reused=reused, both=both, count=min(len(asked), AT_ONCE))
        await in_batches([partial(ready.ask, *one) for one in asked])
        late = {
            (subject, call_id)
            for subject, call_id in asked
            if fault.slow and is_late(ready.cell(call_id), expected[subject])
        }
        again = {(subject, f"{call_id}-again") for subject, call_id in late}
        await in_batches([partial(ready.ask, *one) for one in again])

    outcomes = {subject: Counter[str]() for subject in way.subjects}
    reasons: dict[str, set[str]] = {subject: set() for subject in way.subjects}
    for subject, call_id in (set(asked) - late) | again:
        outcomes[subject][str(ready.cell(call_id))] += 1
        reasons[subject].add(ready.heard[call_id].reason)
    assert outcomes == {subject: {str(cell): RUNS} for subject, cell in expected.items()}
    assert reasons == {one: {reason(way, fault, one, expected[one])} for one in way.subjects}
    delivered = ready.first.delivered + ready.second.delivered
    assert all(delivered[call_id] <= 1 for subject, call_id in asked if subject == "write")
    carried = [arm.carried[call] for arm in ready.arms for _, call in asked if call in arm.carried]
    assert all(carried) if reused else not any(carried)


# -- Writes that are asked for twice.


def asking(*tool_calls: str) -> dict[str, Any]:
    """A call whose agent has asked for these, in turn; all but the last have been answered."""
    said: list[dict[str, Any]] = []
    for one in tool_calls:
        said += [
            {"role": "tool_call_invocation", "tool_call_id": one, "name": "write"},
            {"role": "tool_call_result", "tool_call_id": one, "content": PENDING},
        ]
    return {"transcript_with_tool_calls": said[:-1]}


async def twice(ready: Stage, how: str, call_id: str) -> Answer:
    """Ask for one booking two times, as agents and Retell do; the answer to the second."""
    first = ready.ask("write", call_id, **asking("tc_1"))
    if how == "twin":
        both = await asyncio.gather(first, ready.ask("write", call_id, **asking("tc_1")))
        marked = [answer for answer in both if REPLAYED in answer.names]
        assert len(marked) < 2
        ready.heard[call_id] = marked[0] if marked else both[1]
    else:
        await first
        again = asking("tc_1", "tc_2") if how == "other id" else asking("tc_1")
        await ready.ask("write", call_id, **again)
    return ready.heard[call_id]


def hurried(fault: Fault) -> dict[str, Any]:
    """Little patience where a repeat waits for what will never come."""
    unknown = fault.why not in ("", "connect")
    return {"fallback": {"budget": {"function": "500ms"}, "min_attempt": "50ms"}} if unknown else {}


@pytest.mark.parametrize("both", [False, True], ids=["one arm", "both arms"])
@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("way", [WAYS["webhook"], WAYS["mcp sse"]], ids=["webhook", "mcp sse"])
async def test_a_write_that_is_asked_for_twice_runs_once_whatever_breaks(
    tmp_path: Path, way: Way, name: str, both: bool
) -> None:
    """At most one delivery, but for a business no, after which the agent may ask anew."""
    fault = FAULTS[name]
    hows = ("other id", "retry", "twin")
    asked = [(how, f"{how} {n}".replace(" ", "-")) for n in range(RUNS) for how in hows]
    async with stage(tmp_path, way, fault, reused=False, **hurried(fault)) as ready:
        await broken(ready, fault, reused=False, both=both, count=0)
        await in_batches([partial(twice, ready, *one) for one in asked])

    outcomes = {how: Counter[str]() for how in hows}
    for how, call_id in asked:
        outcomes[how][str(ready.cell(call_id))] += 1
    if hurried(fault):  # On a busy machine some never left in time: they have not run, and hear so.
        for counted in outcomes.values():
            counted.pop(NEVER_LEFT, None)
    expected = {how: {str(REPEATED[name, how, both])} for how in hows}
    assert {how: set(counted) for how, counted in outcomes.items()} == expected
