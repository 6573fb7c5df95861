from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from backends.base import BackendConfig
from backends.mcp_listing import PAGES, Listing
from backends.mcp_peer import Peer
from backends.mcp_sessions import IDLE_MS, Sessions
from proxy.core.model import Era, Kind, Outbound, Reply
from proxy.errors import ProbeFailed, UpstreamFailed
from tests.backends.kit import Answer, ScriptedSend, json_reply, make_call, rpc_error, rpc_result
from tests.backends.told import Rig, Told

DISCOVERED = rpc_result({"supportedVersions": ["2026-07-28"]})
LISTED = rpc_result({"tools": [{"name": "book"}]})
NO_VERSION = rpc_error(-32600, "Bad Request: Unsupported protocol version", status=400)


class One(Listing):
    """A listing whose parts the tests can see."""

    def __init__(self, era: Era | None = None) -> None:
        self.peer = Peer("/mcp?k=v", [])
        self.peer.era = era
        self.own = Sessions(self.peer, BackendConfig("mcp"))
        super().__init__(self.peer, self.own)

    @property
    def names(self) -> set[str]:
        return set(self.catalogue.tools) if self.catalogue is not None else set()


def paged(outbound: Outbound) -> Reply:
    asked = json.loads(outbound.body)
    if asked["method"] != "tools/list":
        return rpc_result({})(outbound)
    params = asked["params"]
    pages = {None: ("a", ""), "": ("b", "last"), "last": ("c", None)}
    name, cursor = pages[params.get("cursor")]
    more = {} if cursor is None else {"nextCursor": cursor}
    return rpc_result({"tools": [{"name": name}], **more})(outbound)


@pytest.mark.parametrize("era", Era)
async def test_a_catalogue_is_followed_to_its_end(era: Era) -> None:
    listing, send = One(era), ScriptedSend(paged)

    await listing.renew(send)

    assert listing.names == {"a", "b", "c"}
    assert not any(send.dispatched)


async def test_a_catalogue_that_goes_in_a_circle_is_left() -> None:
    listing = One(Era.MODERN)
    send = ScriptedSend(rpc_result({"tools": [{"name": "a"}], "nextCursor": "again"}))

    await listing.renew(send)

    assert len(send.sent) == PAGES
    assert listing.catalogue is not None
    assert not listing.catalogue.whole
    assert not await listing.lacks("b", send)


@pytest.mark.parametrize(
    "answer", [rpc_error(-32601), json_reply(b"", 500), rpc_result({"no": "tools"})]
)
async def test_a_catalogue_that_is_refused_leaves_the_old_one(answer: Answer) -> None:
    listing = One(Era.MODERN)
    await listing.renew(ScriptedSend(LISTED))

    with pytest.raises(ProbeFailed):
        await listing.renew(ScriptedSend(answer))

    assert listing.names == {"book"}


def modern_only(outbound: Outbound) -> Reply:
    if dict(outbound.headers).get(b"mcp-protocol-version") != b"2026-07-28":
        return rpc_error(-32022, status=400)
    return both(outbound)


def legacy_only(outbound: Outbound) -> Reply:
    if dict(outbound.headers).get(b"mcp-protocol-version", b"2025-11-25") != b"2025-11-25":
        return NO_VERSION
    return both(outbound)


def both(outbound: Outbound) -> Reply:
    discovers = json.loads(outbound.body)["method"] == "server/discover"
    return (DISCOVERED if discovers else LISTED)(outbound)


@pytest.mark.parametrize(
    ("server", "listing", "asked"),
    [
        (modern_only, False, ["server/discover"] * 2),
        (modern_only, True, ["server/discover", "tools/list"]),
        (legacy_only, False, ["server/discover", "tools/list"]),
        (legacy_only, True, ["server/discover", "tools/list"]),
    ],
)
async def test_a_check_asks_what_the_era_has(
    server: Callable[[Outbound], Reply], listing: bool, asked: list[str]
) -> None:
    one, send = One(), ScriptedSend(server)

    await one.check(send, listing=listing)

    shaken = ("initialize", "notifications/initialized")
    assert [method for method in send.methods if method not in shaken] == asked
    assert not any(send.dispatched)


@pytest.mark.parametrize("listing", [True, False])
@pytest.mark.parametrize(
    ("before", "after", "era"),
    [(modern_only, legacy_only, Era.LEGACY), (legacy_only, modern_only, Era.MODERN)],
)
async def test_a_check_survives_a_change_of_era(
    before: Callable[[Outbound], Reply],
    after: Callable[[Outbound], Reply],
    era: Era,
    listing: bool,
) -> None:
    server = One()
    await server.check(ScriptedSend(before), listing=listing)

    await server.check(ScriptedSend(after), listing=listing)

    assert server.peer.era is era


@pytest.mark.parametrize("listing", [True, False])
@pytest.mark.parametrize("status", [400, 401, 404, 503])
async def test_a_check_fails_where_every_question_is_refused(status: int, listing: bool) -> None:
    with pytest.raises((ProbeFailed, UpstreamFailed), match=str(status)):
        await One().check(ScriptedSend(json_reply(b"", status)), listing=listing)


@pytest.mark.parametrize(
    "told", [Told(Era.LEGACY), Told(Era.MODERN), Told(Era.LEGACY, sessions=False), Told()]
)
async def test_a_refresh_learns_what_the_server_lists_and_how_it_introduces_itself(
    told: Told,
) -> None:
    listing = One()

    await listing.refresh(told)

    assert listing.names == {"book"}
    assert listing.catalogue is not None
    assert listing.catalogue.instructions == "Ask nicely."
    assert not any(told.dispatched)
    assert listing.get("book") is not None
    assert listing.get("other") is None
    assert listing.mirrors("book") == listing.mirrors("other") == ()


async def test_before_the_first_answer_nothing_is_known() -> None:
    listing = One()
    down = Told()
    down.down = UpstreamFailed("connect", "nobody", sent=False)

    with pytest.raises(UpstreamFailed):
        await listing.refresh(down)

    assert listing.catalogue is None
    assert listing.get("book") is None
    assert not await listing.lacks("book", down)


async def test_all_pages_are_asked_for_in_one_session() -> None:
    """Its cursors may hold nowhere else."""
    listing, told, seen = One(), Told(Era.LEGACY), []

    def page(asked: dict[str, Any]) -> Reply:
        number = int(asked["params"].get("cursor", 0))
        seen.append(dict(told.sent[-1].headers)[b"mcp-session-id"])
        more = {"nextCursor": str(number + 1)} if number < 3 else {}
        answer = {"tools": [{"name": f"t{number}"}], **more}
        return json_reply({"jsonrpc": "2.0", "id": asked["id"], "result": answer})

    told.answers["tools/list"] = page
    await listing.refresh(told)

    assert listing.names == {"t0", "t1", "t2", "t3"}
    assert len(set(seen)) == 1


async def test_a_list_goes_on_in_a_new_session_where_the_old_one_is_lost() -> None:
    listing, told = One(), Told(Era.LEGACY)
    await listing.refresh(told)
    told.restart()
    told.tools.append({"name": "new"})

    await listing.renew(told)

    assert listing.names == {"book", "new"}
    assert told.count["initialize"] == 2


async def test_a_server_that_knows_no_session_for_long_is_not_asked_for_ever() -> None:
    listing, told = One(Era.LEGACY), Told(Era.LEGACY)
    lost = rpc_error(-32600, "Session not found", status=404)
    told.answers["tools/list"] = lambda _: lost

    with pytest.raises(ProbeFailed, match="status 404"):
        await listing.renew(told)

    assert told.count["tools/list"] == 2


async def test_a_refresh_asks_whether_the_server_speaks_legacy_by_now() -> None:
    listing, told = One(), Told(Era.MODERN)
    with pytest.raises(UpstreamFailed):
        await listing.own.lease(None, told)
    assert listing.peer.no_legacy

    await listing.refresh(told)
    assert listing.peer.no_legacy
    told.eras.add(Era.LEGACY)
    await listing.refresh(told)

    assert not listing.peer.no_legacy


async def test_a_tool_is_lacking_only_if_the_whole_list_says_so_now() -> None:
    listing, told = One(), Told()

    assert await listing.lacks("other", told)
    assert not await listing.lacks("book", told)
    told.tools.append({"name": "other"})
    assert not await listing.lacks("other", told)


async def test_a_check_survives_a_handshake_that_is_not_understood_any_more() -> None:
    listing = One(Era.LEGACY)

    await listing.check(Told(Era.MODERN), listing=True)

    assert listing.names == {"book"}


async def test_a_refresh_has_sessions_made_ready_for_the_next_call() -> None:
    rig = Rig(Era.LEGACY)
    await rig.arm.refresh(rig.told)
    await rig.run_aside()
    rig.told.forget()

    await rig.arm.refresh(rig.told)
    assert not rig.asides.waiting, "none are missing"
    rig.clock.advance(IDLE_MS / 1000)
    await rig.arm.refresh(rig.told)
    await rig.run_aside()
    rig.told.forget()
    await rig.ask(make_call(Kind.FUNCTION))

    assert rig.told.asked == ["tools/call"], "a call's first tool waits for no handshake"
