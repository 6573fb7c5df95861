from __future__ import annotations

import asyncio
import json
import random
from typing import Any

import pytest

from backends.base import ToolConfig
from backends.mcp_asking import nobody_waits
from proxy.core.model import Call, Effect, Era, Kind, Ran, Reply, Session
from proxy.errors import UpstreamFailed
from tests.backends.kit import body_of, json_reply, make_call
from tests.backends.told import Rig, legacy, message, modern, refusal


def function(n: int = 0, *, call_id: str | None = "call_1") -> Call:
    return make_call(Kind.FUNCTION, id=call_id, arguments=b'{"n":%d}' % n)


@pytest.mark.parametrize("events", [True, False])
async def test_a_call_is_asked_in_one_session_of_its_own(events: bool) -> None:
    rig = Rig(Era.LEGACY, events=events, version="2025-06-18")

    replies = [await rig.ask(function(n)) for n in range(3)]
    await rig.ask(function(9, call_id="other"))

    assert [json.loads(body_of(reply)) for reply in replies] == [{"n": n} for n in range(3)]
    assert [session for _, session in rig.told.ran] == ["s1"] * 3 + ["s2"]
    assert rig.told.count["initialize"] == 2
    runs = [dispatched for dispatched in rig.told.dispatched if dispatched]
    assert len(runs) == 4, "no leg but that of the tool can run it"
    fields = dict(rig.told.sent[-1].headers)
    assert fields[b"mcp-protocol-version"] == b"2025-06-18", "as it was agreed"


async def test_a_server_without_sessions_is_asked_bare() -> None:
    rig = Rig(Era.LEGACY, sessions=False)

    for n in range(3):
        await rig.ask(function(n))

    assert rig.told.asked == [
        "server/discover",
        "initialize",
        "notifications/initialized",
        *["tools/call"] * 3,
    ]


async def test_a_lost_session_is_replaced_and_the_tool_run_once() -> None:
    rig = Rig(Era.LEGACY)
    await rig.ask(function(1))
    rig.told.restart()
    rig.clock.advance(60)

    reply = await rig.ask(function(2))

    assert json.loads(body_of(reply)) == {"n": 2}
    assert rig.told.ran == [({"n": 1}, "s1"), ({"n": 2}, "s2")]
    assert rig.repeated == 0, "a restart loses every session at once: no budget would do"
    rig.told.restart()
    assert json.loads(body_of(await rig.ask(function(3)))) == {"n": 3}
    assert rig.repeated == 1, "to lose them all the time is another matter"


async def test_a_server_that_begins_to_keep_sessions_is_understood() -> None:
    rig = Rig(Era.LEGACY, sessions=False)
    await rig.ask(function(1))
    rig.told.keeps_sessions = True

    assert json.loads(body_of(await rig.ask(function(2)))) == {"n": 2}


@pytest.mark.parametrize("why", ["no budget", "server away", "lost again"])
async def test_a_session_that_cannot_be_replaced_has_run_nothing(why: str) -> None:
    rig = Rig(Era.LEGACY)
    await rig.ask(function(1))
    rig.told.restart()
    rig.repeats = why != "no budget"
    rig.told.handshake = json_reply(b"", 503) if why == "server away" else None
    if why == "lost again":
        rig.told.answers["tools/call"] = lambda _: refusal(404, "Session not found")

    reply = await rig.ask(function(2))

    assert reply.verdict is not None
    assert (reply.verdict.label, reply.verdict.ran) == ("refused", Ran.NO)
    assert len(rig.told.ran) == 1


async def test_a_handshake_that_fails_means_that_nothing_ran() -> None:
    rig = Rig(Era.LEGACY)
    rig.told.handshake = json_reply(b"", 503)

    with pytest.raises(UpstreamFailed) as caught:
        await rig.ask(function())

    assert (caught.value.why, caught.value.sent) == ("status", False)


async def test_a_server_that_wants_no_handshake_any_more_is_asked_as_it_wants() -> None:
    rig = Rig(Era.LEGACY)
    await rig.ask(function(1))
    rig.told.eras = {Era.MODERN}

    reply = await rig.ask(function(2, call_id="new"))

    assert json.loads(body_of(reply)) == {"n": 2}
    rig.told.forget()
    await rig.ask(function(3, call_id="newer"))
    assert rig.told.asked == ["tools/call"]


@pytest.mark.parametrize(
    ("effect", "taken_back"),
    [(Effect.READ, True), (Effect.IDEMPOTENT, True), (Effect.WRITE, False)],
)
@pytest.mark.parametrize("sessions", [True, False])
async def test_a_late_read_is_taken_back_and_a_write_never(
    effect: Effect, taken_back: bool, sessions: bool
) -> None:
    rig = Rig(Era.LEGACY, sessions=sessions, tools={"book": ToolConfig(effect)})

    async def gate(_: dict[str, Any]) -> None:
        raise UpstreamFailed("timeout", "slow", sent=True)

    rig.told.gate = gate
    with pytest.raises(UpstreamFailed):
        await rig.ask(function())
    asked = message(rig.told.sent[-1].body)["id"]
    await rig.run_aside()

    taken = [each for each in rig.told.notified if each[0] == "notifications/cancelled"]
    expected = [("s1", asked)] if taken_back and sessions else []
    assert [(session, params["requestId"]) for _, session, params in taken] == expected


async def test_a_modern_request_is_taken_back_by_hanging_up() -> None:
    rig = Rig(tools={"book": ToolConfig(Effect.READ)})

    async def gate(_: dict[str, Any]) -> None:
        raise UpstreamFailed("timeout", "slow", sent=True)

    rig.told.gate = gate
    with pytest.raises(UpstreamFailed):
        await rig.ask(function())

    assert not rig.asides.waiting


@pytest.mark.parametrize(
    ("end", "waits"),
    [
        (asyncio.CancelledError(), True),
        (UpstreamFailed("timeout", "", sent=True), True),
        (UpstreamFailed("timeout", "", sent=False), False),
        (UpstreamFailed("reset", "", sent=True), False),
    ],
)
def test_what_ended_without_us_is_not_ours_to_take_back(end: BaseException, waits: bool) -> None:
    assert nobody_waits(end) is waits


async def test_a_session_is_given_back_however_its_exchange_ends() -> None:
    rig = Rig(Era.LEGACY)

    async def gate(_: dict[str, Any]) -> None:
        raise UpstreamFailed("reset", "gone", sent=True)

    rig.told.gate = gate
    with pytest.raises(UpstreamFailed):
        await rig.ask(function())

    (seat,) = rig.arm._cross._sessions._of.values()
    assert seat.users == 0


# Concurrent calls with equal IDs.


class Shuffled:
    """A way to a told server that answers its tools in any order."""

    def __init__(self, rig: Rig, lot: random.Random) -> None:
        self._rig = rig
        self._lot = lot
        self._waiting: list[asyncio.Event] = []
        rig.told.gate = self._gate

    async def _gate(self, _: dict[str, Any]) -> None:
        go = asyncio.Event()
        self._waiting.append(go)
        await go.wait()

    async def until(self, done: asyncio.Future[Any]) -> None:
        while not done.done():
            for _ in range(self._lot.randrange(1, 12)):
                await asyncio.sleep(0)
            if self._waiting:
                self._waiting.pop(self._lot.randrange(len(self._waiting))).set()


async def one_interleaving(seed: int) -> None:
    """Callers of every kind, all with ID 1, at one server, in an order of their own."""
    lot = random.Random(seed)
    eras = lot.choice([(Era.LEGACY,), (Era.MODERN,), (Era.LEGACY, Era.MODERN)])
    rig = Rig(*eras, sessions=lot.random() < 0.7, events=lot.random() < 0.3)
    begun = [await rig.begin(f"c{n}") for n in range(2)]
    calls = [ask_of(lot, n, begun) for n in range(6)]
    shuffled = Shuffled(rig, lot)
    answers = asyncio.gather(*map(rig.ask, calls))
    await shuffled.until(answers)
    for n, (call, reply) in enumerate(zip(calls, await answers, strict=True)):
        assert await heard(call, reply) == {"n": n}, f"interleaving {seed}"
    assert sorted(args["n"] for args, _ in rig.told.ran) == list(range(6))


def ask_of(lot: random.Random, n: int, begun: list[Session]) -> Call:
    arguments, call_id = {"n": n}, lot.choice(["call_1", "call_2", None])
    params = {"name": "book", "arguments": arguments}
    kind = lot.choice(["function", "modern", "legacy", "bare"])
    if kind == "function":
        return function(n, call_id=call_id)
    if kind == "modern":
        call = modern("tools/call", params, rpc_id=b"1")
    else:
        session = lot.choice(begun) if kind == "legacy" else None
        call = legacy("tools/call", params, session=session, rpc_id=b"1")
    call.id, call.arguments = call_id, json.dumps(arguments).encode()
    return call


async def heard(call: Call, reply: Reply) -> Any:
    """What the tool echoed to this caller."""
    raw = reply.body
    if not isinstance(raw, bytes):
        raw = b"".join([chunk async for chunk in raw]).rpartition(b"data: ")[2]
    if call.kind is Kind.FUNCTION:
        return json.loads(raw)
    answer = message(raw)
    assert answer["id"] == 1
    return json.loads(answer["result"]["content"][0]["text"])


@pytest.mark.parametrize("tens", range(10))
async def test_callers_with_equal_ids_hear_their_own_answers_in_every_interleaving(
    tens: int,
) -> None:
    """A thousand in all: shared sessions, shared calls, shared IDs, answers in any order."""
    for seed in range(tens * 100, tens * 100 + 100):
        await one_interleaving(seed)


async def test_tools_of_one_call_share_its_session_and_no_id() -> None:
    rig = Rig(Era.LEGACY)
    calls = [function(n, call_id="one") for n in range(20)]

    await asyncio.gather(*map(rig.ask, calls))

    runs = [each for each in rig.told.sent if b'"tools/call"' in each.body]
    assert len({message(each.body)["id"] for each in runs}) == 20
    assert {session for _, session in rig.told.ran} == {"s1"}
