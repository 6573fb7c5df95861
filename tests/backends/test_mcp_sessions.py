from __future__ import annotations

import asyncio

import pytest

from backends import mcp_sessions
from backends.base import BackendConfig
from backends.mcp_peer import Agreed, Peer
from backends.mcp_sessions import IDLE_MS, LOOSE, READY, Seat, Sessions
from proxy.core.model import Era
from proxy.errors import UpstreamFailed
from tests.backends.told import Asides, Told
from tests.fakes import FakeClock


class Rig:
    def __init__(self, told: Told | None = None) -> None:
        self.told = told or Told(Era.LEGACY)
        self.asides = Asides()
        self.clock = FakeClock()
        self.peer = Peer("/mcp", [])
        config = BackendConfig("mcp", aside=self.asides, wall_ms=self.clock.wall_ms)
        self.sessions = Sessions(self.peer, config)

    async def lease(self, key: str | None) -> Seat:
        return await self.sessions.lease(key, self.told)

    async def used(self, key: str | None) -> bytes | None:
        """A lease that is given back at once: its session."""
        seat = await self.lease(key)
        self.sessions.release(seat)
        return seat.agreed.session

    async def run_aside(self) -> None:
        await self.asides.run(self.told)


async def test_a_call_has_one_session_and_nobody_else_has_it() -> None:
    rig = Rig()

    one = [await rig.used("one") for _ in range(3)]
    two = [await rig.used("two") for _ in range(3)]

    assert len(set(one)) == len(set(two)) == 1
    assert one[0] != two[0]
    assert rig.told.count["initialize"] == 2


async def test_the_first_tools_of_a_call_share_one_handshake() -> None:
    rig = Rig()

    seats = await asyncio.gather(*(rig.lease("one") for _ in range(20)))

    assert len(set(map(id, seats))) == 1
    assert rig.told.count["initialize"] == 1


async def test_a_server_without_sessions_shakes_hands_once() -> None:
    rig = Rig(Told(Era.LEGACY, sessions=False))

    used = [await rig.used(key) for key in ("one", None, "two", None)]

    assert used == [None] * 4
    assert rig.told.asked == ["initialize", "notifications/initialized"]


async def test_without_a_call_a_session_has_one_exchange_at_a_time() -> None:
    rig = Rig()

    seats = [await rig.lease(None) for _ in range(LOOSE + 3)]
    assert len({seat.agreed.session for seat in seats}) == LOOSE + 3
    for seat in seats:
        rig.sessions.release(seat)
    again = [await rig.lease(None) for _ in range(LOOSE)]

    known = {seat.agreed.session for seat in seats}
    assert {seat.agreed.session for seat in again} <= known
    await rig.run_aside()
    assert len(rig.told.ended) == 3, "what is not kept is ended"


async def test_a_session_that_lay_ready_is_one_calls_for_good() -> None:
    rig = Rig()
    await rig.used("first")
    await rig.run_aside()
    assert rig.told.count["initialize"] == 1 + READY

    sessions = [await rig.used(f"call {n}") for n in range(READY)]

    assert rig.told.count["initialize"] == 1 + READY, "no handshake on the path"
    assert len(set(sessions)) == READY
    assert [await rig.used(f"call {n}") for n in range(READY)] == sessions


async def test_those_that_lie_ready_are_begun_again_beside_the_path() -> None:
    rig = Rig()
    await rig.used("first")
    await rig.run_aside()
    await rig.used("second")
    assert len(rig.asides.waiting) == 1, "one errand, however many are missing"
    await rig.used("third")
    assert len(rig.asides.waiting) == 1
    await rig.run_aside()

    assert len(rig.sessions._ready) == READY


async def test_an_errand_that_is_never_run_is_handed_out_again_later() -> None:
    rig = Rig()
    await rig.used("first")
    rig.asides.waiting.clear()
    await rig.used("second")
    assert not rig.asides.waiting

    rig.clock.advance(4)
    await rig.used("third")

    assert len(rig.asides.waiting) == 1


async def test_nothing_is_made_ready_for_a_server_without_sessions() -> None:
    rig = Rig()
    await rig.used("first")
    rig.told.keeps_sessions = False

    await rig.run_aside()
    rig.sessions.make_ready()

    assert rig.told.count["initialize"] == 2
    assert not rig.asides.waiting
    assert await rig.used("second") is None


async def test_a_session_unused_for_long_is_ended_and_begun_anew() -> None:
    rig = Rig()
    before = await rig.used("one")
    rig.asides.waiting.clear()
    rig.clock.advance(IDLE_MS / 1000)

    after = await rig.used("one")

    assert after != before
    await rig.run_aside()
    assert before is not None
    assert before.decode() in rig.told.ended


async def test_what_lay_ready_for_too_long_is_not_used() -> None:
    rig = Rig()
    await rig.used("first")
    await rig.run_aside()
    old = {seat.agreed.session for seat in rig.sessions._ready}
    rig.clock.advance(IDLE_MS / 1000)

    assert await rig.used("second") not in old


async def test_what_lay_ready_for_too_long_is_replaced_in_time() -> None:
    rig = Rig()
    await rig.used("first")
    await rig.run_aside()
    old = {seat.agreed.session for seat in rig.sessions._ready}
    rig.clock.advance(IDLE_MS / 1000)

    rig.sessions.make_ready()
    await rig.run_aside()

    assert len(rig.sessions._ready) == READY
    assert old.isdisjoint({seat.agreed.session for seat in rig.sessions._ready})
    assert {each.encode() for each in rig.told.ended} == old


async def test_a_session_in_use_is_not_idle() -> None:
    rig = Rig()
    seat = await rig.lease("one")
    rig.clock.advance(IDLE_MS / 1000)

    assert await rig.lease("one") is seat


async def test_the_call_longest_unused_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp_sessions, "CALLS_KEPT", 2)
    rig = Rig()
    one = await rig.used("one")
    two = await rig.used("two")
    assert await rig.used("one") == one
    await rig.used("three")

    await rig.run_aside()
    assert one is not None
    assert two is not None
    assert two.decode() in rig.told.ended
    assert one.decode() not in rig.told.ended
    assert await rig.used("one") == one


async def test_a_forgotten_session_in_use_is_ended_by_its_last_user(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(mcp_sessions, "CALLS_KEPT", 1)
    rig = Rig()
    seats = [await rig.lease("one") for _ in range(2)]
    await rig.used("two")
    rig.asides.waiting.clear()

    rig.sessions.release(seats[0])
    assert not rig.asides.waiting
    rig.sessions.release(seats[1])
    await rig.run_aside()

    assert rig.told.ended == [(seats[0].agreed.session or b"").decode()]


async def test_a_lost_session_is_replaced_once_for_all_who_lost_it() -> None:
    rig = Rig()
    losers = [await rig.lease("one") for _ in range(5)]
    await rig.run_aside()
    rig.told.restart()

    async def mend(seat: Seat) -> Seat:
        rig.sessions.lose(seat)
        rig.sessions.release(seat)
        return await rig.lease("one")

    seats = await asyncio.gather(*map(mend, losers))

    assert len({seat.agreed.session for seat in seats}) == 1
    assert rig.told.count["initialize"] == 1 + READY + 1
    assert (seats[0].agreed.session or b"").decode() in rig.told.sessions


async def test_with_one_lost_session_those_that_wait_are_not_trusted() -> None:
    rig = Rig()
    loose, seat = await rig.lease(None), await rig.lease("one")
    rig.sessions.release(loose)
    await rig.run_aside()
    rig.told.restart()
    rig.sessions.lose(seat)

    sessions = [await rig.used(None), await rig.used("one"), await rig.used("two")]

    assert all(each is not None and each.decode() in rig.told.sessions for each in sessions)


async def test_a_lost_session_is_not_ended_and_not_kept() -> None:
    rig = Rig()
    seat = await rig.lease(None)
    rig.asides.waiting.clear()
    rig.sessions.lose(seat)
    rig.sessions.lose(seat)
    rig.sessions.release(seat)

    assert not rig.asides.waiting
    assert await rig.used(None) != seat.agreed.session


async def test_a_server_may_begin_to_keep_sessions() -> None:
    rig = Rig(Told(Era.LEGACY, sessions=False))
    seat = await rig.lease("one")
    rig.told.keeps_sessions = True
    rig.sessions.lose(seat)
    rig.sessions.release(seat)

    assert await rig.used("one") is not None


async def test_a_handshake_that_fails_leaves_nothing_behind() -> None:
    rig = Rig()
    rig.told.down = UpstreamFailed("connect", "nobody", sent=False)
    with pytest.raises(UpstreamFailed):
        await rig.lease("one")
    rig.told.down = None

    assert await rig.used("one") is not None


async def test_the_servers_introduction_is_asked_for_once() -> None:
    rig = Rig()

    welcome = await rig.sessions.welcome(rig.told)

    assert welcome.instructions == "Ask nicely."
    assert await rig.sessions.welcome(rig.told) is welcome
    assert rig.told.count["initialize"] == 1


async def test_a_server_that_needs_no_handshake_says_nothing_of_itself() -> None:
    rig = Rig(Told(Era.LEGACY, sessions=False))
    await rig.used(None)
    rig.peer.welcome = None

    assert (await rig.sessions.welcome(rig.told)).instructions == ""


@pytest.mark.parametrize(("told", "does"), [(Told(Era.LEGACY), True), (Told(Era.MODERN), False)])
async def test_whether_a_server_speaks_legacy_is_tried(told: Told, does: bool) -> None:
    rig = Rig(told)

    assert await rig.sessions.serves_legacy(told) is does
    assert len(rig.asides.waiting) == does, "what was begun for that is ended"


async def test_a_server_that_is_away_may_speak_legacy_for_all_we_know() -> None:
    rig = Rig()
    rig.told.down = UpstreamFailed("connect", "nobody", sent=False)

    assert await rig.sessions.serves_legacy(rig.told)


async def test_after_a_lull_idle_sessions_are_ended_a_few_at_a_time() -> None:
    rig = Rig()
    for n in range(6):
        await rig.used(f"call {n}")
    await rig.run_aside()
    rig.clock.advance(IDLE_MS / 1000)

    await rig.used("one")
    await rig.run_aside()
    assert len([each for each in rig.told.ended if each not in ("s7", "s8")]) == 4
    await rig.used("two")
    await rig.run_aside()
    assert len([each for each in rig.told.ended if each not in ("s7", "s8")]) == 6


def test_no_session_needs_no_end() -> None:
    rig = Rig()
    rig.sessions.end(Agreed(None))

    assert not rig.asides.waiting
