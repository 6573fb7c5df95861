"""Other people's MCP clients through callsplit, to real MCP servers that die, and come back."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import pytest_asyncio

from tests.functional.kit import BOOK, PENDING, SAY, SLOTS, Process, function, rules
from tests.functional.wire import Answer, Origin, request
from tests.mcp.kit import Server, Session, Stage, told_webhook

pytestmark = pytest.mark.asyncio(loop_scope="module")

TOKEN = "of-the-agent"
BEARER = {"authorization": f"Bearer {TOKEN}"}

AUTO, LEGACY, PINNED = ("mcp2", "auto"), ("mcp2", "legacy"), ("mcp2", "2026-07-28")
MCP1, FASTMCP = ("mcp1", "legacy"), ("fastmcp", "auto")
FLAVOURS = [AUTO, LEGACY, PINNED, MCP1, FASTMCP]
"""Which client, in which of its modes."""

MODERN = frozenset({AUTO, PINNED, FASTMCP})
"""Those that speak modern where the server does."""

Flavour: TypeAlias = tuple[str, str]

TOOLS = {
    SLOTS: {
        "effect": "read",
        "description": "Free slots, says the operator.",
        "input_schema": {"type": "object", "properties": {"marker": {"type": "string"}}},
    },
    BOOK: {
        "effect": "write",
        "description": "Book a slot, says the operator.",
        "input_schema": {"type": "object", "required": ["marker"]},
    },
}

each_flavour = pytest.mark.parametrize("flavour", FLAVOURS, ids=" ".join)


def from_webhook(asked: dict[str, Any]) -> dict[str, Any]:
    return {"from": "webhook", "tool": asked["name"], "marker": asked["args"]["marker"]}


def said(result: dict[str, Any]) -> Any:
    """What a tool said, if it was no error."""
    assert not result["isError"], result
    return json.loads(result["text"])


def answer(arm: str, tool: str, marker: str) -> dict[str, str]:
    return {"from": arm, "tool": tool, "marker": marker}


class Place(Stage):
    """Servers of each kind, the webhook, and sidecars before them."""

    def __init__(self, folder: Path, stack: contextlib.AsyncExitStack) -> None:
        super().__init__(folder, stack)
        self._own = stack
        self.webhook = Origin("webhook", told_webhook(from_webhook))
        stack.push_async_callback(self.webhook.stop)
        self.dual = self.server("mcp2")
        self.old = self.server("mcp1")
        self.new = self.server("mcp2", "--only-modern")

    async def sidecar(self, name: str, url: str, **sections: Any) -> Process:
        """In a process of its own, with this MCP server behind it."""
        folder = self.folder / name
        folder.mkdir()
        process = Process(folder)
        self._own.push_async_callback(process.stop)
        patient = {"url": url, "breaker": {"enabled": False}, "catalogue_every": "60s"}
        whole = {
            "backends": {"mcp": patient},
            "tools": TOOLS,
            "auth": {"tokens": ["env:AGENT_TOKEN"],
                     "require": {"mcp": ["token"], "function": ["none"]}},
            **sections,
        }  # fmt: skip
        await process.start(rules(self.webhook, self.webhook, **whole), {"AGENT_TOKEN": TOKEN})
        await process.up()
        return process


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    async with contextlib.AsyncExitStack() as stack:
        place = Place(tmp_path_factory.mktemp("clients"), stack)
        await place.webhook.listen()
        yield place


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def to_dual(place: Place) -> Process:
    """Before a server of both eras."""
    await place.dual.up()
    return await place.sidecar("dual", place.dual.url)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def to_old(place: Place) -> Process:
    """Before one that knows the handshake only."""
    await place.old.up()
    return await place.sidecar("old", place.old.url)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def to_new(place: Place) -> Process:
    """Before one that knows it no more."""
    await place.new.up()
    return await place.sidecar("new", place.new.url)


@pytest_asyncio.fixture(loop_scope="module")
async def dual(place: Place) -> Server:
    """Its server of both eras, up."""
    await place.dual.up()
    return place.dual


def of(sidecar: Process, call_id: str) -> str:
    return f"http://127.0.0.1:{sidecar.port}/mcp/{call_id}"


def name_of(flavour: Flavour, what: str) -> str:
    """A call ID, and a marker, of a test's own."""
    return f"call_{what}_{'_'.join(flavour)}"


# -- While all is well.


@each_flavour
async def test_a_client_finds_the_server_as_if_it_had_asked_it_directly(
    place: Place, to_dual: Process, dual: Server, flavour: Flavour
) -> None:
    call_id = name_of(flavour, "well")
    direct = await place.session(flavour, dual.url)
    through = await place.session(flavour, of(to_dual, call_id), BEARER)

    assert through.about == direct.about
    assert through.about["version"] == ("2026-07-28" if flavour in MODERN else "2025-11-25")
    assert await through.tools() == await direct.tools()
    for tool in (SLOTS, BOOK):
        result = await through.call(tool, marker=call_id)
        assert result == await direct.call(tool, marker=call_id)
        assert said(result) == answer("mcp", tool, call_id)
    await through.close()
    await direct.close()
    assert not [seen for seen in place.webhook.seen if call_id.encode() in seen.body]


@each_flavour
async def test_a_client_of_any_era_reaches_a_server_that_knows_only_the_handshake(
    place: Place, to_old: Process, flavour: Flavour
) -> None:
    """One pinned to the modern revision could not so much as list its tools by itself."""
    await reaches(place, to_old, flavour, "old")


@each_flavour
async def test_a_client_of_any_era_reaches_a_server_that_has_given_the_handshake_up(
    place: Place, to_new: Process, flavour: Flavour
) -> None:
    await reaches(place, to_new, flavour, "new")


async def reaches(place: Place, sidecar: Process, flavour: Flavour, server: str) -> None:
    call_id = name_of(flavour, server)
    session = await place.session(flavour, of(sidecar, call_id), BEARER)

    tools = await session.tools()
    assert set(tools) == {SLOTS, BOOK}
    assert tools[SLOTS]["annotations"]["readOnlyHint"] is True
    for tool in (SLOTS, BOOK):
        result = await session.call(tool, marker=call_id)
        assert said(result) == answer("mcp", tool, call_id)
        assert result["structured"] == {"result": result["text"]}
    await session.close()


@pytest.mark.parametrize("kind", ["dual", "old", "new"])
async def test_a_function_of_retells_runs_on_each_of_these_servers(
    place: Place, to_dual: Process, to_old: Process, to_new: Process, dual: Server, kind: str
) -> None:
    """Before and after a restart of it, within a call and in a new one."""
    sidecar, server = {
        "dual": (to_dual, dual),
        "old": (to_old, place.old),
        "new": (to_new, place.new),
    }[kind]

    async def runs(call_id: str, marker: str) -> None:
        heard = await sidecar.call(BOOK, call_id, marker=marker)
        assert (heard.arm, heard.json) == ("mcp", answer("mcp", BOOK, marker)), heard

    for number in range(3):
        await runs(f"call_function_{number}", f"before {number}")
    await server.kill()
    await server.up()
    for number in range(1, 5):
        await runs(f"call_function_{number}", f"after {number}")


async def test_calls_of_all_clients_at_once_never_mix(
    place: Place, to_dual: Process, dual: Server
) -> None:
    """Every client counts its requests from the same number."""
    every = list(enumerate(FLAVOURS * 2))
    sessions = await asyncio.gather(
        *[
            place.session(flavour, of(to_dual, f"call_many_{number}"), BEARER)
            for number, flavour in every
        ]
    )
    tools = (SLOTS, BOOK, SLOTS)
    asked = {
        f"many {number} {turn}": session.begin(
            tool, marker=f"many {number} {turn}", held=True, progress=bool(turn)
        )
        for number, session in enumerate(sessions)
        for turn, tool in enumerate(tools)
    }
    functions = {
        f"function {number}": asyncio.create_task(
            post(to_dual, function(BOOK, f"call_many_f{number}", held(f"function {number}")))
        )
        for number in range(5)
    }
    await dual.saw("began", *asked, *functions)

    for marker in sorted(asked | functions, key=lambda marker: marker[::-1]):
        dual.release(marker)

    for marker, each in asked.items():
        assert said(await each.result())["marker"] == marker
    for marker, task in functions.items():
        assert (await task).json == answer("mcp", BOOK, marker)
    for session in sessions:
        await session.close()


def held(marker: str) -> dict[str, Any]:
    return {"marker": marker, "held": True}


async def post(sidecar: Process, body: bytes) -> Answer:
    client = await sidecar.connect()
    return await client.ask(request("POST", "/retell", body))


@each_flavour
async def test_progress_is_heard_before_the_answer(
    place: Place, to_dual: Process, dual: Server, flavour: Flavour
) -> None:
    call_id = name_of(flavour, "progress")
    session = await place.session(flavour, of(to_dual, call_id), BEARER)

    asked = session.begin(SLOTS, marker=call_id, steps=3, held=True)
    await asked.heard(3)
    assert not asked.answer.done()
    dual.release(call_id)

    assert said(await asked.result())["marker"] == call_id
    assert asked.progress == [[1, 3], [2, 3], [3, 3]]
    await session.close()


@pytest.mark.parametrize("steps", [0, 1], ids=["before a word", "half way"])
@each_flavour
async def test_a_call_taken_back_by_its_client_is_taken_back_at_the_server(
    place: Place, to_dual: Process, dual: Server, flavour: Flavour, steps: int
) -> None:
    """And the session goes on."""
    call_id = name_of(flavour, f"cancel{steps}")
    session = await place.session(flavour, of(to_dual, call_id), BEARER)

    asked = session.begin(SLOTS, marker=call_id, steps=steps, held=True)
    await dual.saw("began", call_id)
    await asked.heard(steps)
    await session.cancel(asked)
    with pytest.raises(RuntimeError, match="CancelledError"):
        await asked.result()

    await dual.saw("cancelled", call_id)
    assert said(await session.call(SLOTS, marker=f"{call_id} again"))["from"] == "mcp"
    await session.close()


# -- While the MCP server is in trouble.


@each_flavour
async def test_a_restart_of_the_server_is_nothing_that_a_client_notices(
    place: Place, to_dual: Process, dual: Server, flavour: Flavour
) -> None:
    """By themselves, no client re-initializes a session that its server has forgotten."""
    call_id = name_of(flavour, "restart")
    session = await place.session(flavour, of(to_dual, call_id), BEARER)
    assert said(await session.call(SLOTS, marker=f"{call_id} 1"))["from"] == "mcp"

    await dual.kill()
    await dual.up()

    for number, tool in enumerate((BOOK, SLOTS), 2):
        result = await session.call(tool, marker=f"{call_id} {number}")
        assert said(result) == answer("mcp", tool, f"{call_id} {number}")
    assert set(await session.tools()) == {SLOTS, BOOK}
    await session.close()


async def test_a_restart_under_many_sessions_costs_none_of_them(
    place: Place, to_dual: Process, dual: Server
) -> None:
    """All of them find out at the same time."""
    many = [(flavour, name_of(flavour, f"many{number}")) for number in range(4)
            for flavour in FLAVOURS]  # fmt: skip
    sessions = [
        await place.session(flavour, of(to_dual, call_id), BEARER) for flavour, call_id in many
    ]

    await dual.kill()
    await dual.up()

    asked = [
        session.begin(tool, marker=f"{call_id} {tool}")
        for session, (_, call_id) in zip(sessions, many, strict=True)
        for tool in (SLOTS, BOOK)
    ]
    answered = [said(await each.result())["from"] for each in asked]
    for session in sessions:
        await session.close()
    assert answered == ["mcp"] * len(asked)


@each_flavour
async def test_a_server_that_dies_under_its_calls_leaves_none_without_an_answer(
    place: Place, to_dual: Process, dual: Server, flavour: Flavour
) -> None:
    """A read is asked again of the webhook; a write may have run, and its client is told so.

    The same whether the answer had begun (with progress) or not.
    """
    call_id = name_of(flavour, "dies")
    session = await place.session(flavour, of(to_dual, call_id), BEARER)
    await session.tools()  # By now the client knows how the server says its answers look.
    asked = {
        f"{call_id} {tool} {steps}": session.begin(
            tool, marker=f"{call_id} {tool} {steps}", steps=steps, held=True
        )
        for tool in (SLOTS, BOOK)
        for steps in (0, 1)
    }
    await dual.saw("began", *asked)
    for marker, each in asked.items():
        if marker.endswith("1"):
            await each.heard(1)

    await dual.kill()

    for marker, each in asked.items():
        result = await each.result()
        if SLOTS in marker:
            assert said(result) == answer("webhook", SLOTS, marker)
        else:
            assert (result["isError"], result["text"]) == (True, PENDING)
    await dual.up()
    again = await session.call(BOOK, marker=f"{call_id} later")
    assert said(again) == answer("mcp", BOOK, f"{call_id} later")
    await session.close()
    assert not [seen for seen in written(place) if call_id in seen]


def written(place: Place) -> list[str]:
    """What the webhook was asked to write."""
    asked = [seen.json for seen in place.webhook.seen]
    return [one["args"]["marker"] for one in asked if one["name"] == BOOK]


async def test_clients_that_come_while_the_server_is_away_find_what_it_had(
    place: Place, to_dual: Process, dual: Server
) -> None:
    """In their own era too: from the catalogue of before."""
    before = await place.session(AUTO, of(to_dual, "call_before"), BEARER)
    listed = await before.tools()
    await dual.kill()

    for flavour in FLAVOURS:
        call_id = name_of(flavour, "meanwhile")
        session = await place.session(flavour, of(to_dual, call_id), BEARER)
        modern = flavour in MODERN
        assert session.about["version"] == ("2026-07-28" if modern else "2025-11-25")
        tools = await session.tools()
        assert {name: tool["inputSchema"] for name, tool in tools.items()} == {
            name: TOOLS[name]["input_schema"] for name in listed
        }
        assert tools[SLOTS]["annotations"]["readOnlyHint"] is True
        for tool in (SLOTS, BOOK):
            result = await session.call(tool, marker=call_id)
            assert said(result) == answer("webhook", tool, call_id)
        await session.close()
    await dual.up()


async def test_a_session_that_began_while_the_server_was_away_goes_on_when_it_is_back(
    place: Place, to_dual: Process, dual: Server
) -> None:
    await dual.kill()
    sessions: list[tuple[Flavour, Session]] = []
    for flavour in FLAVOURS:
        session = await place.session(flavour, of(to_dual, name_of(flavour, "back")), BEARER)
        assert said(await session.call(SLOTS, marker="away"))["from"] == "webhook"
        sessions.append((flavour, session))

    await dual.up()

    for flavour, session in sessions:
        result = await session.call(BOOK, marker=name_of(flavour, "back"))
        assert said(result) == answer("mcp", BOOK, name_of(flavour, "back"))
        await session.close()


# -- Where there is no MCP server at all.


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def to_nobody(place: Place) -> Process:
    """Its MCP server has never been there; the breaker is as it ships."""
    never = place.server("mcp2")
    return await place.sidecar(
        "nobody", never.url, backends={"mcp": {"url": never.url, "catalogue_every": "60s"}}
    )


@each_flavour
async def test_a_server_that_never_was_is_not_missed(
    place: Place, to_nobody: Process, flavour: Flavour
) -> None:
    await served_by_the_webhook(place, to_nobody, flavour, "nobody")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def at_nought(place: Place) -> Process:
    """All calls are the webhook's."""
    nought = {"to": "mcp", "otherwise": "webhook", "percent": 0, "salt": "functional"}
    await place.dual.up()
    return await place.sidecar("nought", place.dual.url, split=nought)


@each_flavour
async def test_at_share_nought_the_webhook_is_an_mcp_server(
    place: Place, at_nought: Process, dual: Server, flavour: Flavour
) -> None:
    await served_by_the_webhook(place, at_nought, flavour, "nought")

    assert not [event for event in dual.events if "nought" in event[2]]


async def served_by_the_webhook(
    place: Place, sidecar: Process, flavour: Flavour, what: str
) -> None:
    call_id = name_of(flavour, what)
    session = await place.session(flavour, of(sidecar, call_id), BEARER)

    modern = flavour in MODERN
    assert session.about["version"] == ("2026-07-28" if modern else "2025-11-25")
    tools = await session.tools()
    assert set(tools) == set(TOOLS)
    for name, declared in TOOLS.items():
        assert tools[name]["description"] == declared["description"]
        assert tools[name]["inputSchema"] == declared["input_schema"]
        for number in range(3):
            result = await session.call(name, marker=f"{call_id} {number}")
            assert said(result) == answer("webhook", name, f"{call_id} {number}")
    await session.close()


@each_flavour
async def test_where_nobody_answers_a_client_hears_what_to_say(
    place: Place, to_dual: Process, dual: Server, flavour: Flavour
) -> None:
    """Nothing has run: the tool's `say`, as an error that the model can read."""
    call_id = name_of(flavour, "neither")
    session = await place.session(flavour, of(to_dual, call_id), BEARER)
    await session.tools()
    await dual.kill()
    await place.webhook.refuse()

    try:
        for tool in (SLOTS, BOOK):
            result = await session.call(tool, marker=call_id)
            assert (result["isError"], result["text"]) == (True, SAY)
    finally:
        await place.webhook.listen()
        await dual.up()
    assert said(await session.call(BOOK, marker=f"{call_id} later"))["from"] == "mcp"
    await session.close()
