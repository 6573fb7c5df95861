"""The path of a request with every edge of it faked: arms that do as they are told."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from typing import Any, TypeAlias

import orjson

from backends.base import Send
from proxy.cached import Cached
from proxy.core.arm_breaker import ArmBreaker
from proxy.core.auth import AuthPolicy, Credentials
from proxy.core.breaker_values import BreakerConfig
from proxy.core.call_id import CallIds
from proxy.core.entry import Entry
from proxy.core.exchange import Exchange
from proxy.core.fields import fields
from proxy.core.model import TOOL_KINDS, Call, Headers, Kind, Outbound, Reply
from proxy.core.replay import ReplayGuard
from proxy.core.replay_events import EventGuard
from proxy.core.rescue import coverable
from proxy.core.rules import Fallback, ToolEntry
from proxy.core.splitter import Splitter
from proxy.core.tool_table import ToolTable
from proxy.edge import Edge, EdgeRules
from proxy.errors import UpstreamFailed
from proxy.handler import Handler
from proxy.line import Line
from proxy.once import Once
from proxy.ports import Arm
from proxy.sessions import Sessions
from tests.fakes import FakeClock, FakeIncoming, FakeWatch

BOOK = {"name": "book", "args": {"time": "10:00"}, "call": {"call_id": "call_7"}}
SLOTS = {"name": "slots", "args": {}, "call": {"call_id": "call_7"}}
EVENT = {"event": "call_ended", "call": {"call_id": "call_7"}}
INBOUND = {"event": "call_inbound", "call_inbound": {"from_number": "+1", "to_number": "+2"}}
GOOD = (200, b'{"ok":true}')
REFUSED = UpstreamFailed("connect", "refused", sent=False)
DIED = UpstreamFailed("reset", "cut", sent=True)
SLOW = UpstreamFailed("timeout", "late", sent=True)

Answer: TypeAlias = tuple[int, bytes] | Exception | Callable[[], Awaitable[tuple[int, bytes]]]


class Network:
    """An upstream that does as it is told; the last answer repeats."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers) or [GOOD]
        self.seen: list[tuple[Outbound, Headers, float, float]] = []
        self.closed = 0
        self.chunks: list[bytes | Exception] | None = None

    async def send(
        self,
        outbound: Outbound,
        extra: Headers,
        *,
        deadline: float,
        linger: float = 0.0,
        buffer: int | None = None,
        late: Callable[[], bool] | None = None,
    ) -> Reply:
        self.seen.append((outbound, extra, deadline, linger))
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        status, body = answer if isinstance(answer, tuple) else await answer()
        headers = [(b"content-type", b"application/json"), (b"X-Callsplit-Arm", b"liar")]
        if self.chunks is not None:
            return Reply(status, headers, Chunks(self))
        return Reply(status, headers, body)

    async def connect(self, *, deadline: float) -> None: ...

    async def aclose(self, grace: float) -> None: ...


class Chunks:
    def __init__(self, network: Network) -> None:
        self._network = network
        self._left = list(network.chunks or [])

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if not self._left:
            raise StopAsyncIteration
        chunk = self._left.pop(0)
        if isinstance(chunk, Exception):
            raise chunk
        return chunk

    async def aclose(self) -> None:
        self._network.closed += 1


class Forwarding:
    """A backend that sends the body on; `kinds` are what it takes."""

    def __init__(self, kinds: frozenset[Kind]) -> None:
        self.kinds = kinds

    async def handle(self, call: Call, send: Send) -> Reply:
        return await send(Outbound("POST", "/hook", call.head.end_to_end, call.body))


class Crashing(Forwarding):
    async def handle(self, call: Call, send: Send) -> Reply:
        raise KeyError("a bug in a user's backend")


class CrashingLate(Forwarding):
    async def handle(self, call: Call, send: Send) -> Reply:
        await super().handle(call, send)
        raise KeyError("a bug in a backend")


class FakeOutbox:
    """Keeps events if it is told to."""

    def __init__(self) -> None:
        self.works = False
        self.queued: set[str | None] = set()
        self.kept: list[tuple[Call, str]] = []

    def has_queue(self, call_id: str | None) -> bool:
        return call_id in self.queued

    async def take(self, call: Call, arm: str, *, until: float) -> Reply | None:
        if not self.works:
            return None
        self.kept.append((call, arm))
        self.queued.add(call.id)
        return Reply(202)


class World:
    """A handler between two told arms."""

    def __init__(
        self,
        *,
        percent: float = 100.0,
        mcp: Network | None = None,
        webhook: Network | None = None,
        tools: Mapping[str, dict[str, Any]] | None = None,
        fallback: Mapping[str, Any] | None = None,
        mcp_kinds: frozenset[Kind] = TOOL_KINDS,
        backend: type[Forwarding] = Forwarding,
        in_process: bool = False,
        kill: bool = False,
        **edge: Any,
    ) -> None:
        self.clock, self.watch = FakeClock(), FakeWatch()
        self._session_ids = itertools.count(1)
        self.mcp, self.webhook = mcp or Network(), webhook or Network()
        self.tasks: set[asyncio.Task[Any]] = set()
        rules = Fallback.model_validate(fallback or {})
        entries = tools or {"slots": {"effect": "read"}, "put": {"effect": "idempotent"}}
        config = BreakerConfig(failures=5, last_resort=rules.last_resort)
        self.arms = {
            "mcp": Arm("mcp", backend(mcp_kinds), self.mcp, ArmBreaker(config), 2.0,
                       in_process=in_process),
            "webhook": Arm("webhook", Forwarding(frozenset(Kind) - {Kind.LLM}), self.webhook,
                           ArmBreaker(config), 30.0),
        }  # fmt: skip
        entry = Entry("mcp", "webhook", percent, kill=kill)
        edge.setdefault("auth", AuthPolicy({}, Credentials()))
        self.line = Line(
            edge=Edge(EdgeRules(**edge), self.watch, load=lambda: (self.handler.inflight, 0.0)),
            ids=CallIds(),
            splitter=Splitter(entry, fields_of=fields),
            arms=self.arms,
            to="mcp",
            otherwise="webhook",
            tools=ToolTable(
                {k: ToolEntry.model_validate(v) for k, v in entries.items()}, rules.budget
            ),
            fallback=rules,
            health=lambda: Reply(200, [], b"{}"),
            covers={
                arm: coverable(
                    arm,
                    otherwise="webhook",
                    takes=self.arms[other].backend.kinds,
                    enabled=rules.enabled,
                    both_ways=rules.both_ways,
                )
                for arm, other in (("mcp", "webhook"), ("webhook", "mcp"))
            },
            passthrough="webhook" if edge.get("passthrough") else None,
        )
        self.outbox = FakeOutbox()
        self.cached = Cached(clock=self.clock, watch=self.watch)
        self.cached.use(self.line.tools, arms={"mcp": 1, "webhook": 2}, call_ids=())
        self.once = Once(ReplayGuard(), EventGuard(), clock=self.clock, watch=self.watch)
        self.sessions = Sessions(watch=self.watch, new_id=lambda: f"{next(self._session_ids):032x}")
        self.sessions.use([b"k" * 32])
        self.handler = Handler(
            self.line,
            once=self.once,
            cached=self.cached,
            sessions=self.sessions,
            outbox=self.outbox,
            clock=self.clock,
            watch=self.watch,
            new_id=lambda: "0" * 31 + "1",
            start=self.start,
        )

    def start(self, coroutine: Coroutine[Any, Any, Any], name: str) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self.tasks.add(task)
        return task

    async def ask(self, body: object, target: str = "/retell", **options: Any) -> Reply:
        raw = body if isinstance(body, bytes) else orjson.dumps(body)
        return await self.handler.handle(FakeIncoming(target=target, body=raw, **options))

    @property
    def exchange(self) -> Exchange:
        ended = [value for what, value in self.watch.told if what == "exchange"]
        assert len(ended) == 1, "every exchange is accounted for exactly once"
        assert isinstance(ended[0], Exchange)
        assert self.handler.inflight == 0
        return ended[0]

    @property
    def deliveries(self) -> tuple[int, int]:
        return len(self.mcp.seen), len(self.webhook.seen)


def header(reply: Reply, name: bytes) -> list[bytes]:
    return [value for key, value in reply.headers if key.lower() == name]


def said(reply: Reply) -> Any:
    assert isinstance(reply.body, bytes)
    return orjson.loads(reply.body)


async def read(reply: Reply) -> bytes:
    assert not isinstance(reply.body, bytes)
    return b"".join([chunk async for chunk in reply.body])


async def until(condition: Callable[[], object]) -> None:
    """Let the loop run until something holds."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)
