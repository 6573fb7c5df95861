from __future__ import annotations

import asyncio

import pytest

from backends import mcp_repairs
from backends.mcp_peer import Peer
from backends.mcp_repairs import Repairs
from backends.mcp_sessions import YOUNG_MS
from proxy.core.model import Era, Session
from proxy.errors import UpstreamFailed
from tests.backends.told import LEGACY, Told, message
from tests.fakes import FakeClock

BEGIN = b'{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18"}}'


def session(id: str = "c", upstream: str | None = "s1") -> Session:
    return Session(id, "mcp", LEGACY, 0, upstream)


def repairs() -> Repairs:
    return Repairs(Peer("/mcp", []), FakeClock().wall_ms)


async def test_a_session_is_what_its_token_says_until_it_is_renewed() -> None:
    known, told = repairs(), Told(Era.LEGACY)
    assert known.now(session()) == b"s1"
    assert known.now(session(upstream=None)) is None

    assert await known.renew(session(upstream="old"), b"old", told) == b"s1"

    assert known.now(session(upstream="old")) == b"s1"


async def test_who_comes_late_takes_what_another_has_renewed() -> None:
    known, told = repairs(), Told(Era.LEGACY)
    lost = session(upstream="old")

    renewed = await asyncio.gather(*(known.renew(lost, b"old", told) for _ in range(5)))
    renewed.append(await known.renew(lost, b"old", told))

    assert renewed == [b"s1"] * 6
    assert told.count["initialize"] == 1, "nobody has lost what it is now"
    assert await known.renew(lost, b"s1", told) == b"s2"


async def test_what_a_session_began_with_is_said_again_each_time() -> None:
    known, told = repairs(), Told(Era.LEGACY)
    known.begun(session(), BEGIN)

    for _ in range(2):
        await known.renew(session(), known.now(session()), told)

    asked = [message(each.body) for each in told.sent if b"initialize" in each.body]
    said = [each["params"] for each in asked if each["method"] == "initialize"]
    assert said == [{"protocolVersion": "2025-06-18"}] * 2


async def test_a_message_that_cannot_be_read_is_not_said_again() -> None:
    known, told = repairs(), Told(Era.LEGACY)
    known.begun(session(), b'{"params":[]}')

    await known.renew(session(), b"s1", told)

    assert message(told.sent[0].body)["params"]["protocolVersion"] == LEGACY


async def test_a_repair_that_fails_changes_nothing() -> None:
    known, told = repairs(), Told(Era.LEGACY)
    told.down = UpstreamFailed("connect", "nobody", sent=False)

    with pytest.raises(UpstreamFailed):
        await known.renew(session(), b"s1", told)

    assert known.now(session()) == b"s1"


async def test_a_session_may_end_up_without_one_at_the_server() -> None:
    known = repairs()

    assert await known.renew(session(), b"s1", Told(Era.LEGACY, sessions=False)) is None
    assert known.now(session()) is None

    known.end(session())
    assert known.now(session()) == b"s1"


async def test_what_is_known_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcp_repairs, "SESSIONS_KEPT", 2)
    known, told = repairs(), Told(Era.LEGACY)
    for id in ("a", "b", "c"):
        await known.renew(session(id, "old"), b"old", told)

    assert [known.now(session(id, "old")) for id in ("a", "b", "c")] == [b"old", b"s2", b"s3"]


async def test_a_session_is_young_when_it_has_just_been_begun_anew() -> None:
    clock, told = FakeClock(), Told(Era.LEGACY)
    known = Repairs(Peer("/mcp", []), clock.wall_ms)
    known.begun(session(), BEGIN)
    assert not known.is_young(session())

    await known.renew(session(), b"s1", told)

    assert known.is_young(session())
    clock.advance(YOUNG_MS / 1000)
    assert not known.is_young(session())
