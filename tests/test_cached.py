from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.adapters.clock import LoopClock
from proxy.cached import Cached, Fetch
from proxy.core.addresses import NOWHERE
from proxy.core.dialects.kept import Kept, keep
from proxy.core.head import read_head
from proxy.core.model import Call, Kind, Reply
from proxy.core.rules.fallback import Fallback
from proxy.core.rules.tools import ToolEntry
from proxy.core.tool_table import ToolTable
from tests.fakes import FakeClock, FakeWatch

JSON = (b"content-type", b"application/json")
ARMS: dict[str, object] = {"mcp": "http://a", "webhook": "http://b"}
TOOLS: dict[str, dict[str, Any]] = {
    "slots": {
        "effect": "read",
        "cache": "60s",
        "cache_key": ["args", "metadata.company_id"],
        "stale_if_error": "30s",
    },
    "customer": {"effect": "read", "cache": "60s"},
    "book": {"invalidates": ["slots", "ping"]},
    "ping": {"effect": "read"},
}


def call_of(
    tool: str | None = "slots",
    *,
    company: int | None = 42,
    date: str = "monday",
    call_id: str = "call_7",
    kind: Kind = Kind.FUNCTION,
    signed: bool = True,
) -> Call:
    head = read_head("POST", "/retell", ((b"Host", b"a"),), peer="", secure=False, trusted=NOWHERE)
    metadata = {} if company is None else {"company_id": company}
    body = orjson.dumps({"call": {"metadata": metadata}})
    args = orjson.dumps({"date": date})
    return Call(kind, head, body, call_id, tool, arguments=args, signed=signed)


def table(tools: dict[str, dict[str, Any]]) -> ToolTable:
    entries = {name: ToolEntry.model_validate(entry) for name, entry in tools.items()}
    return ToolTable(entries, Fallback().budget)


@dataclass(frozen=True)
class Asked:
    """A read, and all that its answer may depend on."""

    tool: str
    arm: str
    company: int
    date: str
    call_id: str
    signed: bool

    @property
    def whose(self) -> list[object]:
        whose = self.company if self.tool == "slots" else self.call_id
        return [self.tool, self.arm, whose, self.date, self.signed]


@dataclass(frozen=True)
class Wrote:
    """A booking of a company, or of one that it does not name."""

    company: int | None


class World:
    """A cache on a clock that moves when told to."""

    def __init__(self, tools: dict[str, dict[str, Any]] | None = None, **options: Any) -> None:
        self.clock, self.watch = FakeClock(), FakeWatch()
        self.cached = Cached(clock=self.clock, watch=self.watch, **options)
        self.use(tools or TOOLS)

    def use(self, tools: dict[str, dict[str, Any]], arms: dict[str, object] | None = None) -> None:
        self.cached.use(table(tools), arms=ARMS if arms is None else arms, call_ids=["call_id"])

    def look(self, call: Call, arm: str = "mcp") -> Reply | Fetch | None:
        return self.cached.look(call, arm, self.clock.now())

    def fetch(self, call: Call, arm: str = "mcp") -> Fetch:
        found = self.look(call, arm)
        assert isinstance(found, Fetch)
        return found

    def hit(self, call: Call, arm: str = "mcp") -> Reply:
        found = self.look(call, arm)
        assert isinstance(found, Reply)
        return found

    def answer(self, call: Call, body: bytes = b"[]", *, arm: str = "mcp", by: str = "") -> None:
        self.fetch(call, arm).keep(kept(call, body), by or arm)

    @property
    def counted(self) -> list[tuple[str, str]]:
        return [with_what for what, with_what in self.watch.told if what == "cache"]


def kept(call: Call, body: bytes = b"[]", status: int = 200) -> Kept:
    answer = keep(call, Reply(status, [JSON], body))
    assert answer is not None
    return answer


def test_what_was_asked_just_now_is_not_asked_again() -> None:
    world = World()
    world.answer(call_of(), b'{"slots":[]}')
    world.clock.advance(12.7)

    reply = world.hit(call_of(call_id="call_8"))

    assert (reply.status, reply.body) == (200, b'{"slots":[]}')
    assert reply.headers == [JSON, (b"x-callsplit-age", b"12")]
    assert world.counted == [("slots", "miss"), ("slots", "hit")]


@pytest.mark.parametrize("tool", ["book", "ping", "unheard-of", None])
def test_other_tools_pass_unnoticed(tool: str | None) -> None:
    world = World()

    assert world.look(call_of(tool)) is None
    assert world.counted == []


def test_a_request_that_can_share_with_nobody_is_counted() -> None:
    """So that ops see why a cache is never hit."""
    world = World()

    assert world.look(call_of(company=None)) is None
    assert world.counted == [("slots", "skipped")]


def test_each_caller_hears_it_in_its_own_language() -> None:
    world = World()
    ours = call_of("customer")
    world.answer(ours, b'{"name":"Ana"}')
    caller = call_of("customer", kind=Kind.MCP)
    caller.rpc_id, caller.rpc_method = b"9", "tools/call"

    reply = world.hit(caller)

    assert isinstance(reply.body, bytes)
    message = orjson.loads(reply.body)
    assert message["id"] == 9
    assert message["result"]["structuredContent"] == {"name": "Ana"}


def test_a_declared_schema_is_kept_to() -> None:
    schema = {"type": "object", "required": ["result"]}
    world = World({"customer": TOOLS["customer"] | {"output_schema": schema}})
    world.answer(call_of("customer"), b'{"name":"Ana"}')
    caller = call_of("customer", kind=Kind.MCP)
    caller.rpc_id = b"9"

    reply = world.hit(caller)

    assert isinstance(reply.body, bytes)
    assert orjson.loads(reply.body)["result"]["structuredContent"] == {"result": '{"name":"Ana"}'}


def test_a_rescue_is_kept_for_the_arm_that_gave_it() -> None:
    world = World()
    world.answer(call_of(), by="webhook")

    assert isinstance(world.look(call_of(), "mcp"), Fetch)
    world.hit(call_of(), "webhook")


@pytest.mark.parametrize("end", ["fail", "nothing to keep", "business no", "crash"])
def test_what_is_no_success_is_not_kept(end: str) -> None:
    world = World()
    fetch = world.fetch(call_of())

    if end == "fail":
        fetch.fail()
    elif end == "nothing to keep":
        fetch.keep(None, "mcp")
    elif end == "business no":
        fetch.keep(kept(call_of(), b'{"success":false}'), "mcp")
    else:
        with pytest.raises(ZeroDivisionError), fetch:
            1 / 0  # noqa: B018

    assert not world.fetch(call_of()).twin
    assert world.counted == [("slots", "miss")]


def test_a_fetch_ends_once() -> None:
    world = World()
    with world.fetch(call_of()) as fetch:
        fetch.keep(kept(call_of(), b"first"), "mcp")
        fetch.keep(kept(call_of(), b"second"), "mcp")

    assert world.hit(call_of()).body == b"first"
    assert world.counted == [("slots", "miss"), ("slots", "hit")]


async def turn() -> None:
    await asyncio.sleep(0)


async def joined(world: World, call: Call, patience: float = 30.0) -> asyncio.Task[Reply | None]:
    fetch = world.fetch(call)
    assert fetch.twin
    task = asyncio.create_task(world.cached.join(fetch, world.clock.now() + patience))
    await turn()
    return task


@pytest.mark.parametrize("body", [b"[1]", b'{"success":false}'])
async def test_twins_hear_what_the_first_hears(body: bytes) -> None:
    world = World()
    first = world.fetch(call_of())
    twins = [await joined(world, call_of(call_id=f"call_x{n}")) for n in range(3)]

    first.keep(kept(call_of(), body), "mcp")

    for twin in twins:
        reply = await twin
        assert reply is not None
        assert reply.body == body
        assert (b"x-callsplit-age", b"0") in reply.headers
    assert sorted(world.counted) == [("slots", "joined")] * 3 + [("slots", "miss")]


async def test_twins_hear_who_rescued_the_first() -> None:
    world = World()
    first = world.fetch(call_of())
    twin = world.fetch(call_of())
    task = asyncio.create_task(world.cached.join(twin, world.clock.now() + 30))
    await turn()

    first.keep(kept(call_of()), "webhook")

    assert await task is not None
    assert twin.arm == "webhook"


@pytest.mark.parametrize("end", ["fail", "stale", "too large", "asks for more", "private"])
async def test_if_nothing_comes_of_the_first_its_twins_ask_once_each(end: str) -> None:
    world = World()
    if end == "stale":
        world.answer(call_of())
        world.clock.advance(61)
    first = world.fetch(call_of())
    fetch = world.fetch(call_of())
    task = asyncio.create_task(world.cached.join(fetch, world.clock.now() + 30))
    await turn()

    match end:
        case "fail":
            first.fail()
        case "stale":
            assert world.cached.stale(first) is not None
        case "too large":
            first.keep(None, "mcp")
        case "asks for more":
            mcp = call_of(kind=Kind.MCP)
            first.keep(kept(mcp, b'{"jsonrpc":"2.0","id":1,"result":{}}'), "mcp")
        case "private":
            private = keep(call_of(), Reply(200, [], b"[]", private=True))
            first.keep(private, "mcp")

    assert await task is None
    assert not fetch.twin
    assert await world.cached.join(fetch, world.clock.now() + 30) is None
    fetch.keep(kept(call_of(), b"own"), "mcp")
    assert world.hit(call_of()).body == b"own"


async def test_a_twin_waits_no_longer_than_it_can() -> None:
    clock = LoopClock()
    world = World()
    cached = Cached(clock=clock, watch=world.watch)
    cached.use(table(TOOLS), arms=ARMS, call_ids=[])
    first = cached.look(call_of(), "mcp", clock.now())
    twin = cached.look(call_of(), "mcp", clock.now())
    assert isinstance(first, Fetch)
    assert isinstance(twin, Fetch)

    assert await cached.join(twin, clock.now() + 0.01) is None
    first.keep(kept(call_of(), b"late"), "mcp")
    twin.fail()

    again = cached.look(call_of(), "mcp", clock.now())
    assert isinstance(again, Reply)
    assert again.body == b"late"


async def test_who_comes_too_late_to_join_hears_what_was_kept() -> None:
    """Between the look and the joining there may be other things to wait for."""
    world = World()
    first, twin, loser = (world.fetch(call_of()) for _ in range(3))
    first.keep(kept(call_of(), b"[1]"), "mcp")

    reply = await world.cached.join(twin, world.clock.now() + 30)

    assert reply is not None
    assert reply.body == b"[1]"
    world.cached.wrote(call_of("book"))
    assert await world.cached.join(loser, world.clock.now() + 30) is None


async def test_a_twin_that_hangs_up_harms_nobody() -> None:
    world = World()
    first = world.fetch(call_of())
    one, other = await joined(world, call_of()), await joined(world, call_of())

    one.cancel()
    await asyncio.wait({one})
    first.keep(kept(call_of()), "mcp")

    assert await other is not None


async def test_nobody_joins_what_a_write_has_overtaken() -> None:
    """Who asked before the write may hear what was true then; who asks now may not."""
    world = World()
    first = world.fetch(call_of())
    before = await joined(world, call_of())

    world.cached.wrote(call_of("book"))
    after = world.fetch(call_of())

    assert not after.twin
    first.keep(kept(call_of(), b"before"), "mcp")
    assert await before is not None
    assert isinstance(world.look(call_of()), Fetch)
    after.keep(kept(call_of(), b"after"), "mcp")
    assert world.hit(call_of()).body == b"after"


def test_an_answer_past_its_time_is_better_than_the_last_answer() -> None:
    world = World()
    world.answer(call_of(), b"[1]")
    world.clock.advance(89)
    fetch = world.fetch(call_of())

    reply = world.cached.stale(fetch)
    fetch.fail()

    assert reply is not None
    assert reply.body == b"[1]"
    assert reply.headers == [JSON, (b"x-callsplit-age", b"89"), (b"x-callsplit-stale", b"true")]
    assert world.counted == [("slots", "miss"), ("slots", "stale")]


@pytest.mark.parametrize("how", ["too old", "dropped", "never there", "not wanted"])
def test_nothing_is_better_than_a_wrong_answer(how: str) -> None:
    world = World()
    tool = "customer" if how == "not wanted" else "slots"
    if how != "never there":
        world.answer(call_of(tool))
    world.clock.advance(90 if how == "too old" else 61)
    fetch = world.fetch(call_of(tool))
    if how == "dropped":
        world.cached.wrote(call_of("book"))

    assert world.cached.stale(fetch) is None
    fetch.fail()
    assert world.counted[-1] == (tool, "miss")


def test_a_booking_drops_the_slots_of_its_company_on_both_arms() -> None:
    world = World()
    for arm in ARMS:
        world.answer(call_of(company=42), arm=arm)
        world.answer(call_of(company=43), arm=arm)

    world.cached.wrote(call_of("book", company=42, date="friday"))

    for arm in ARMS:
        assert isinstance(world.look(call_of(company=42), arm), Fetch)
        world.hit(call_of(company=43), arm)


def test_a_booking_that_names_no_company_drops_all_slots() -> None:
    world = World()
    world.answer(call_of(company=42))
    world.answer(call_of(company=43))
    world.answer(call_of("customer"))

    world.cached.wrote(call_of("book", company=None))

    assert isinstance(world.look(call_of(company=42)), Fetch)
    assert isinstance(world.look(call_of(company=43)), Fetch)
    world.hit(call_of("customer"))


@pytest.mark.parametrize("tool", ["slots", "customer", "ping", "unheard-of", None])
def test_what_drops_nothing_drops_nothing(tool: str | None) -> None:
    world = World()
    world.answer(call_of())

    world.cached.wrote(call_of(tool))

    world.hit(call_of())


def test_a_default_may_say_what_unnamed_writes_drop() -> None:
    world = World({"default": {"invalidates": ["slots"]}, "slots": TOOLS["slots"]})
    world.answer(call_of())

    world.cached.wrote(call_of("slots"))
    world.hit(call_of())
    world.cached.wrote(call_of("unheard-of"))

    assert isinstance(world.look(call_of()), Fetch)


def test_an_unsigned_request_never_hears_what_a_signed_one_was_told() -> None:
    world = World()
    world.answer(call_of())

    assert isinstance(world.look(call_of(signed=False)), Fetch)


def test_a_reload_keeps_what_it_does_not_change() -> None:
    world = World()
    world.answer(call_of())
    world.answer(call_of("customer"))
    under_way = world.fetch(call_of(date="friday"))

    world.use(TOOLS | {"slots": TOOLS["slots"] | {"cache": "90s"}, "new": {}})

    assert isinstance(world.look(call_of()), Fetch)
    world.hit(call_of("customer"))
    under_way.keep(kept(call_of()), "mcp")
    assert isinstance(world.look(call_of(date="friday")), Fetch)
    assert set(world.cached.tools) == {"slots", "customer"}


def test_a_tool_that_is_no_longer_cached_is_forgotten() -> None:
    world = World()
    world.answer(call_of())

    world.use({"customer": TOOLS["customer"]})
    assert len(world.cached.cache) == 0
    assert world.look(call_of()) is None

    world.use(TOOLS)
    assert isinstance(world.look(call_of()), Fetch)


@pytest.mark.parametrize("arms", [{"webhook": "http://b"}, ARMS | {"mcp": "http://moved"}])
def test_what_an_arm_said_elsewhere_is_forgotten(arms: dict[str, object]) -> None:
    world = World()
    world.answer(call_of())
    world.answer(call_of(), arm="webhook")

    world.use(TOOLS, arms)

    assert isinstance(world.look(call_of()), Fetch)
    world.hit(call_of(), "webhook")


ASKED = st.builds(
    Asked,
    tool=st.sampled_from(["slots", "customer"]),
    arm=st.sampled_from(list(ARMS)),
    company=st.sampled_from([42, 43]),
    date=st.sampled_from(["monday", "friday"]),
    call_id=st.sampled_from(["call_7", "call_8"]),
    signed=st.booleans(),
)
STEPS = st.one_of(
    ASKED,
    st.builds(Wrote, company=st.sampled_from([42, 43, None])),
    st.sampled_from([1.0, 30.0, 59.0, 90.0]),
)


@given(steps=st.lists(STEPS, max_size=40))
def test_nobody_ever_hears_what_is_not_theirs(steps: list[Asked | Wrote | float]) -> None:
    """Not another customer's answer, the other arm's, or one that is too old or untrue by now.

    Every answer says for whom it was, and when; a plain dict remembers when it stopped being true.
    """
    world = World()
    untrue: dict[int | None, float] = {42: -1.0, 43: -1.0}
    for step in steps:
        world.clock.advance(0.001)  # No two things happen at once.
        now = world.clock.now()
        if isinstance(step, float):
            world.clock.advance(step)
        elif isinstance(step, Wrote):
            world.cached.wrote(call_of("book", company=step.company))
            for company in untrue if step.company is None else [step.company]:
                untrue[company] = now
        else:
            call = call_of(
                step.tool,
                company=step.company,
                date=step.date,
                call_id=step.call_id,
                signed=step.signed,
            )
            found = world.look(call, step.arm)
            if isinstance(found, Reply):
                assert isinstance(found.body, bytes)
                whose, asked = orjson.loads(found.body)
                assert whose == step.whose
                assert now - asked < 60.0
                assert step.tool != "slots" or asked > untrue[step.company]
            else:
                assert found is not None
                said = orjson.dumps([step.whose, now])
                found.keep(kept(call, said), step.arm)


def test_it_is_bounded() -> None:
    world = World(max_count=2)
    for date in ("monday", "tuesday", "friday"):
        world.answer(call_of(date=date))

    assert len(world.cached.cache) == 2
