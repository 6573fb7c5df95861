"""When a server is asked what it lists, who hears of it, and what stays when it is away."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from backends.base import Send
from proxy.adapters.catalogue_file import CatalogueFiles
from proxy.adapters.catalogues import Catalogues, Renewer, Source
from proxy.adapters.clock import LoopClock
from proxy.adapters.logs import configure
from proxy.adapters.state_dir import StateDir
from proxy.adapters.tasks import Tasks
from proxy.core.arm_breaker import ArmBreaker
from proxy.core.breaker import BreakerConfig
from proxy.core.breaker_values import State
from proxy.core.dialects.catalogue import Catalogue, parse_page
from proxy.core.model import Call, Effect, Head, Kind, Outbound, Reply
from proxy.core.rules.fallback import BUDGETS
from proxy.core.tool_table import ToolTable
from proxy.errors import ProbeFailed, UpstreamFailed
from proxy.ports import Arm
from tests.fakes import FakeClock, FakeUpstream

ASKED = Outbound("POST", "/mcp", [])
URL = "http://127.0.0.1:8000/mcp"


def catalogue(*names: str, read_only: bool = True) -> Catalogue:
    hints = {"readOnlyHint": read_only}
    tools = [{"name": name, "annotations": hints} for name in names]
    found = parse_page(json.dumps({"tools": tools}).encode()).tools
    return Catalogue({tool.name: tool for tool in found})


class Server:
    """A backend whose server lists `lists`, or fails with it; `held` makes it wait for a word."""

    kinds = frozenset(Kind)
    speaks_mcp = True

    def __init__(self, lists: Catalogue | Exception | None = None) -> None:
        self.lists = lists
        self.catalogue: Catalogue | None = None
        self.held: asyncio.Event | None = None
        self.asked = 0
        self.heard = asyncio.Event()
        self.under_way = 0
        self.most = 0

    async def handle(self, call: Call, send: Send) -> Reply:
        raise AssertionError("nobody calls a tool")

    async def refresh(self, send: Send) -> None:
        self.asked += 1
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        self.heard.set()
        try:
            if self.held is not None:
                await self.held.wait()
            await send(ASKED, dispatches=False)
        finally:
            self.under_way -= 1
        if isinstance(self.lists, Exception):
            raise self.lists
        self.catalogue = self.lists


class Desk:
    """One arm and everything around the asking."""

    def __init__(
        self,
        state: StateDir,
        lists: Catalogue | Exception | None = None,
        *,
        clock: LoopClock | None = None,
    ) -> None:
        self.clock = FakeClock()
        self.asking_clock = clock or self.clock
        self.server = Server(lists)
        self.endpoint = FakeUpstream()
        self.breaker = ArmBreaker(BreakerConfig(failures=1))
        self.tools = ToolTable({}, BUDGETS)
        self.changed: list[Catalogue | None] = []
        self._log = io.StringIO()
        self.log = configure(self.clock.wall_ms, stream=self._log)
        self.files = CatalogueFiles(state, self.log)
        self.tasks = Tasks(self._crashed)
        self.catalogues = Catalogues(
            clock=self.clock,
            log=self.log,
            tasks=self.tasks,
            files=self.files,
            jitter=lambda: 0.5,
        )

    def source(self, *, url: str = URL, timeout: float = 30.0) -> Source:
        arm = Arm("mcp", self.server, self.endpoint, self.breaker, timeout)
        return Source(arm, self.server.refresh, url, 60.0)

    def renewer(self, source: Source | None = None) -> Renewer:
        async def changed(renewer: Renewer) -> None:
            self.changed.append(renewer.catalogue)

        return Renewer(
            source or self.source(),
            clock=self.asking_clock,
            log=self.log,
            jitter=lambda: 0.5,
            changed=changed,
        )

    def use(self, **changes: Any) -> None:
        """What a load of rules does; their table of tools is new."""
        self.tools = ToolTable({}, BUDGETS)
        self.catalogues.use([self.source(**changes)], self.tools)

    def effect(self, tool: str) -> Effect:
        head = Head("POST", "/retell", "", {}, [], b"h", "127.0.0.1")
        return self.tools.terms(Call(Kind.FUNCTION, head, tool=tool)).effect

    async def settled(self) -> None:
        """Everything that can go on has gone on, the disk included."""
        for _ in range(5):
            await asyncio.sleep(0)
        while self.catalogues._saving:
            await asyncio.wait(self.catalogues._saving)
            await asyncio.sleep(0)

    @property
    def events(self) -> list[str]:
        return [orjson.loads(line)["event"] for line in self._log.getvalue().splitlines()]

    def _crashed(self, name: str, error: BaseException) -> None:
        raise AssertionError(name) from error


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateDir]:
    held = StateDir.open(tmp_path / "state")
    yield held
    held.close()


# One arm.


async def test_a_server_is_asked_at_start_and_then_by_its_interval(state: StateDir) -> None:
    desk = Desk(state, catalogue("slots"))
    renewer = desk.renewer()

    for passes, asked in ((0.0, 1), (59.0, 1), (1.0, 2), (0.0, 2), (60.0, 3)):
        desk.clock.advance(passes)
        await renewer.look()
        assert desk.server.asked == asked

    assert renewer.catalogue == catalogue("slots")
    assert desk.changed == [catalogue("slots")]  # only the first was news
    assert desk.endpoint.sent[0].deadline == 1010.0


async def test_no_question_outlives_the_arms_own_timeout(state: StateDir) -> None:
    desk = Desk(state, catalogue("slots"))

    await desk.renewer(desk.source(timeout=2.0)).look()

    assert [(sent.deadline, sent.extra) for sent in desk.endpoint.sent] == [(1002.0, [])]


@pytest.mark.parametrize(
    ("failure", "why"),
    [
        (ProbeFailed("tools/list: status 401"), "tools/list: status 401"),
        (ProbeFailed(""), "it lists nothing"),
        (UpstreamFailed("connect", "refused", sent=False), "connect: refused"),
        (KeyError("tools"), "crashed: KeyError"),
    ],
)
async def test_what_was_heard_last_outlives_a_failure(
    state: StateDir, failure: Exception, why: str
) -> None:
    desk = Desk(state, catalogue("slots"))
    renewer = desk.renewer()
    await renewer.look()
    desk.server.lists = failure
    desk.clock.advance(60.0)

    await renewer.look()

    assert renewer.catalogue == catalogue("slots")
    assert renewer.fault == why
    assert desk.events.count("catalogue_not_renewed") == 1


async def test_a_server_that_says_nothing_is_given_up_on(
    state: StateDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("proxy.adapters.catalogues.GRACE", 0.0)
    desk = Desk(state)
    desk.server.held = asyncio.Event()
    renewer = desk.renewer(desk.source(timeout=0.001))

    await renewer.look()

    assert renewer.fault == "timeout: no answer in time"


async def test_the_longer_it_fails_the_less_it_is_asked(state: StateDir) -> None:
    desk = Desk(state, ProbeFailed("away"))
    renewer = desk.renewer()
    waits = []
    for _ in range(9):
        await renewer.look()
        before = desk.server.asked
        waited = 0.0
        while desk.server.asked == before:
            desk.clock.advance(0.25)
            waited += 0.25
            await renewer.look()
        waits.append(waited)

    assert waits == [0.75, 1.5, 3.0, 6.0, 12.0, 24.0, 45.0, 45.0, 45.0]
    assert desk.events == ["catalogue_not_renewed"]


async def test_its_return_is_told_once(state: StateDir) -> None:
    desk = Desk(state, ProbeFailed("away"))
    renewer = desk.renewer()
    await renewer.look()
    desk.server.lists = catalogue("slots")

    for _ in range(3):
        desk.clock.advance(60.0)
        await renewer.look()

    assert renewer.fault == ""
    assert desk.events == ["catalogue_not_renewed", "catalogue_renewed"]
    assert desk.changed == [catalogue("slots")]


async def test_a_full_pool_says_nothing_of_the_server(state: StateDir) -> None:
    desk = Desk(state, UpstreamFailed("full", "every connection is in use", sent=False))
    renewer = desk.renewer()

    await renewer.look()
    await renewer.look()
    assert (renewer.fault, desk.server.asked, desk.events) == ("", 1, [])

    desk.clock.advance(1.0)
    await renewer.look()
    assert desk.server.asked == 2


async def test_an_arm_whose_breaker_is_open_is_left_alone(state: StateDir) -> None:
    """Its probes tell when it is back; the question has no part in that."""
    desk = Desk(state, catalogue("slots"))
    renewer = desk.renewer()
    desk.breaker.force(State.FORCED_OPEN, desk.clock.now())

    await renewer.look()
    assert desk.server.asked == 0

    desk.breaker.reset(desk.clock.now())
    await renewer.look()
    assert desk.server.asked == 1
    assert desk.breaker.state is State.CLOSED


async def test_an_arm_that_comes_back_is_asked_at_once(state: StateDir) -> None:
    desk = Desk(state, ProbeFailed("away"))
    renewer = desk.renewer()
    for _ in range(6):
        await renewer.look()
        desk.clock.advance(60.0)
    await renewer.look()
    desk.server.lists = catalogue("slots")

    renewer.wake()
    await renewer.look()

    assert renewer.catalogue == catalogue("slots")
    asked = desk.server.asked
    renewer.wake()  # a breaker that changes says nothing of a server that has answered
    await renewer.look()
    assert desk.server.asked == asked


async def test_an_answer_to_older_rules_is_dropped(state: StateDir) -> None:
    desk = Desk(state, catalogue("old"))
    desk.server.held = asyncio.Event()
    renewer = desk.renewer()
    looking = desk.tasks.start(renewer.look(), "look")
    await desk.server.heard.wait()

    renewer.adopt(replace(desk.source(), every=5.0))
    desk.server.held.set()
    await looking

    assert renewer.catalogue is None
    desk.server.lists = catalogue("new")
    await renewer.look()
    assert renewer.catalogue == catalogue("new")


async def test_a_backend_that_keeps_nothing_teaches_nothing(state: StateDir) -> None:
    desk = Desk(state, None)
    renewer = desk.renewer()

    await renewer.look()

    assert (renewer.catalogue, renewer.fault, desk.changed) == (None, "", [])


# All arms.


async def test_what_a_server_lists_decides_at_once_and_stays_on_disk(state: StateDir) -> None:
    desk = Desk(state, catalogue("slots"))
    desk.use()
    await desk.server.heard.wait()
    await desk.settled()

    assert desk.catalogues.of("mcp") == catalogue("slots")
    assert desk.catalogues.of("webhook") is None
    assert desk.effect("slots") is Effect.READ
    assert desk.catalogues.status("mcp") == {
        "tools": 1,
        "heard_at": "2026-01-01T00:00:00.000Z",
        "fault": None,
    }
    assert desk.catalogues.status("webhook") is None
    assert "catalogue_changed" in desk.events
    await desk.catalogues.aclose()

    after = Desk(state, ProbeFailed("away"))
    after.use()
    assert after.catalogues.of("mcp") == catalogue("slots")
    assert after.effect("slots") is Effect.READ
    await after.server.heard.wait()
    await after.settled()
    assert after.catalogues.status("mcp") == {"tools": 1, "heard_at": None, "fault": "away"}
    await after.catalogues.aclose()


async def test_a_tool_that_is_no_longer_read_only_is_a_write_at_once(state: StateDir) -> None:
    desk = Desk(state, catalogue("slots"))
    desk.use()
    await desk.server.heard.wait()
    await desk.settled()

    desk.server.lists = catalogue("slots", read_only=False)
    desk.server.heard.clear()
    desk.use()
    assert desk.effect("slots") is Effect.READ  # what is known, until something else is heard
    await desk.server.heard.wait()
    await desk.settled()

    assert desk.effect("slots") is Effect.WRITE
    await desk.catalogues.aclose()


async def test_a_server_that_has_moved_is_another_server(state: StateDir) -> None:
    desk = Desk(state, catalogue("slots"))
    desk.use()
    await desk.server.heard.wait()
    await desk.settled()

    desk.server = Server(ProbeFailed("away"))
    desk.use(url="http://127.0.0.1:8001/mcp")

    assert desk.catalogues.of("mcp") is None
    assert desk.effect("slots") is Effect.WRITE
    await desk.catalogues.aclose()


async def test_an_arm_that_leaves_the_rules_is_asked_no_more(state: StateDir) -> None:
    desk = Desk(state, catalogue("slots"))
    desk.use()
    await desk.server.heard.wait()
    await desk.settled()

    desk.catalogues.use([], ToolTable({}, BUDGETS))
    await desk.settled()

    assert desk.catalogues.of("mcp") is None
    assert len(desk.tasks) == 0
    await desk.catalogues.aclose()


async def test_one_server_is_never_asked_twice_at_a_time(state: StateDir) -> None:
    desk = Desk(state, catalogue("slots"))
    desk.server.held = asyncio.Event()
    desk.use()
    await desk.server.heard.wait()

    for _ in range(5):
        desk.use()
        desk.catalogues.wake("mcp")
        await asyncio.sleep(0)
    desk.server.held.set()
    await desk.settled()

    assert desk.server.most == 1
    assert desk.effect("slots") is Effect.READ
    await desk.catalogues.aclose()


async def test_an_arm_left_alone_is_asked_when_its_breaker_closes(state: StateDir) -> None:
    desk = Desk(state, catalogue("slots"))
    desk.breaker.force(State.FORCED_OPEN, desk.clock.now())
    desk.use()
    await desk.settled()
    assert desk.server.asked == 0

    desk.breaker.reset(desk.clock.now())
    desk.catalogues.wake("mcp")
    desk.catalogues.wake("nobody")
    await desk.server.heard.wait()

    await desk.catalogues.aclose()


async def test_a_task_sleeps_until_it_is_time(state: StateDir) -> None:
    """On the loop's own clock: nobody wakes it."""
    desk = Desk(state, catalogue("slots"), clock=LoopClock())
    running = desk.tasks.start(desk.renewer(replace(desk.source(), every=0.001)).run(), "run")

    for _ in range(3):
        desk.server.heard.clear()
        await desk.server.heard.wait()

    running.cancel()
    await asyncio.wait([running])


async def test_closing_twice_is_closing_once(state: StateDir) -> None:
    desk = Desk(state, catalogue("slots"))
    await desk.catalogues.aclose()
    desk.use()
    await desk.catalogues.aclose()
    await desk.catalogues.aclose()

    assert len(desk.tasks) == 0
