from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec.structs import replace

from proxy.adapters import outbox as module
from proxy.adapters.logs import configure
from proxy.adapters.metrics import Metrics
from proxy.adapters.outbox import LEAST, EventOutbox, OutboxTerms
from proxy.adapters.outbox_watch import OutboxWatch
from proxy.adapters.tasks import Tasks
from proxy.core.outbox import Entry, State
from proxy.core.outbox_retry import Patience
from proxy.errors import StoreFailed
from tests.adapters.outbox_kit import FakeStore, call, event, settle
from tests.fakes import FakeClock

TERMS = OutboxTerms(True, Patience(2.0, 300.0, 86_400.0), most=3, most_bytes=100_000, parallel=2)
FULL = StoreFailed("database or disk is full")


class Boxed:
    def __init__(self) -> None:
        self.clock, self.store, self.stream = FakeClock(), FakeStore(), io.StringIO()
        self.metrics = Metrics("t")
        self.log = configure(self.clock.wall_ms, stream=self.stream)
        self.crashes: list[BaseException] = []
        self.tasks = Tasks(lambda _, error: self.crashes.append(error))
        self.box = EventOutbox(
            self.store,
            TERMS,
            clock=self.clock,
            watch=OutboxWatch(self.metrics.outbox, self.log, self.clock),
            start=self.tasks.start,
            jitter=lambda: 1.0,
        )
        self.box.replaced([])

    async def take(
        self, number: int = 1, call_id: str | None = "call_7", **more: Any
    ) -> int | None:
        until = self.clock.now() + 5.0
        reply = await self.box.take(call(number, call_id, **more), "webhook", until=until)
        return reply.status if reply is not None else None

    def refused(self, reason: str) -> float | None:
        return self.metrics.registry.get_sample_value("t_outbox_refused_total", {"reason": reason})

    @property
    def events(self) -> list[str]:
        return [json.loads(line)["event"] for line in self.stream.getvalue().splitlines()]

    def out(self) -> Entry:
        """The next one, taken out for delivery."""
        entry = self.box.lines.take(self.clock.now() + 10)
        assert entry is not None
        return entry


@pytest.fixture
async def one() -> AsyncIterator[Boxed]:
    boxed = Boxed()
    yield boxed
    await boxed.tasks.aclose()
    assert not boxed.crashes


async def test_an_event_is_answered_once_it_is_safe_and_not_before(one: Boxed) -> None:
    one.store.gate = asyncio.Event()
    taking = asyncio.ensure_future(one.take())
    await settle()
    assert not taking.done()
    assert one.box.has_queue("call_7"), "who comes now waits behind it"

    one.store.gate.set()

    assert await taking == 200
    assert [entry.id for entry in one.box.lines] == [1]
    assert one.store.kept[1][1].body == call(1).body


async def test_the_answer_is_plain_json(one: Boxed) -> None:
    reply = await one.box.take(call(), "webhook", until=0.0)

    assert reply is not None
    assert isinstance(reply.body, bytes)
    assert json.loads(reply.body) == {"success": True, "status": "queued"}
    assert reply.headers == [(b"content-type", b"application/json")]


async def test_the_first_of_a_call_waits_a_moment_and_who_joins_it_does_not(one: Boxed) -> None:
    """An arm has just failed it; of those behind it no arm has been asked."""
    await one.take(1)
    await one.take(2)
    first, second = one.box.lines

    assert first.next_ms - first.received_ms == 2000
    assert second.next_ms == second.received_ms
    assert one.box.lines.next_due() == one.clock.now() + 2.0


async def test_what_is_of_no_call_has_no_queue(one: Boxed) -> None:
    await one.take(1, None)

    assert not one.box.has_queue(None)


async def test_a_call_of_any_id_has_its_queue(one: Boxed) -> None:
    long = "x" * 100_000
    await one.take(1, long)

    assert one.box.has_queue(long)
    assert not one.box.has_queue("y" * 100_000)
    await one.take(2, long)
    assert len({entry.line for entry in one.box.lines}) == 1


async def test_a_full_outbox_refuses_and_counts(one: Boxed) -> None:
    for number in range(3):
        assert await one.take(number, f"call_{number}") == 200

    assert await one.take(4) is None
    assert one.refused("full") == 1
    assert len(one.store.kept) == 3


async def test_bytes_are_bounded_with_those_that_are_on_their_way_in(one: Boxed) -> None:
    one.store.gate = asyncio.Event()
    first = asyncio.ensure_future(one.take(1, size=60_000))
    await settle()

    assert await one.take(2, "call_8", size=60_000) is None

    one.store.gate.set()
    assert await first == 200
    assert one.refused("full") == 1


async def test_a_store_that_fails_refuses_and_leaves_no_trace(one: Boxed) -> None:
    one.store.fault = FULL
    assert await one.take() is None
    assert not one.box.has_queue("call_7")
    assert (len(one.box.lines), one.box.lines.size) == (0, 0)
    assert one.refused("store") == 1

    one.store.fault = None
    assert await one.take() == 200


async def test_a_store_that_is_too_slow_refuses_but_may_keep_it(
    one: Boxed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Retell would have hung up.  It tries again; the event may then be delivered twice."""
    monkeypatch.setattr(module, "LEAST", 0.01)
    one.store.gate = asyncio.Event()

    assert await one.box.take(call(), "webhook", until=one.clock.now() - 1) is None
    assert one.refused("store") == 1
    one.store.gate.set()
    await settle()

    assert one.box.lines.queued == 1
    assert LEAST < 1.0


async def test_a_caller_who_hangs_up_takes_nothing_back(one: Boxed) -> None:
    one.store.gate = asyncio.Event()
    taking = asyncio.ensure_future(one.take())
    await settle()
    taking.cancel()
    await asyncio.gather(taking, return_exceptions=True)

    one.store.gate.set()
    await settle()

    assert one.box.lines.queued == 1


async def test_what_is_cut_at_the_end_is_refused(one: Boxed) -> None:
    one.store.gate = asyncio.Event()
    taking = asyncio.ensure_future(one.take())
    await settle()

    await one.tasks.aclose()

    assert await taking is None
    assert not one.box.has_queue("call_7")


async def test_an_outbox_that_is_switched_off_takes_nothing_and_queues_nobody(one: Boxed) -> None:
    await one.take(1)
    one.box.terms = OutboxTerms(False, TERMS.patience, 3, 100_000, 2)

    assert await one.take(2) is None
    assert not one.box.has_queue("call_7")
    assert one.box.lines.queued == 1, "what waits is delivered all the same"
    assert one.refused("store") == 0


async def test_what_the_store_holds_is_due_when_it_was_but_not_later_than_ever(one: Boxed) -> None:
    """A wall clock that was set back by a day must not make events wait for one."""
    wall = one.clock.wall_ms()
    soon, late, past = (
        replace(event(n, f"call_{n}")[0], id=n, next_ms=wall + wait)
        for n, wait in ((1, 60_000), (2, 86_400_000), (3, -86_400_000))
    )
    one.box.replaced([soon, late, past])

    def due(seconds: float) -> list[int]:
        found = []
        while (entry := one.box.lines.take(one.clock.now() + seconds)) is not None:
            found.append(entry.id)
        return found

    assert [due(0.0), due(60.0), due(299.0), due(300.0)] == [[3], [1], [], [2]]


async def test_what_was_delivered_is_forgotten_before_the_next_of_its_call_goes_out(
    one: Boxed,
) -> None:
    await one.take(1)
    await one.take(2)
    entry = one.out()
    one.store.gate = asyncio.Event()
    becoming = asyncio.ensure_future(one.box.become(entry, None))
    await settle()
    assert one.box.lines.take(one.clock.now() + 99) is None

    one.store.gate.set()
    await becoming

    assert one.store.done == [("removed", 1)]
    assert one.out().id == 2


async def test_a_store_that_cannot_forget_does_not_hold_up_deliveries_and_is_told_again(
    one: Boxed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk cannot even note what may be deleted."""
    monkeypatch.setattr(module, "MEND_FIRST", 0.001)
    await one.take(1)
    await one.take(2, "call_8")
    one.store.fault = FULL
    first = one.out()
    await one.box.become(first, None)
    second = one.out()
    await one.box.become(second, replace(second, tries=1, next_ms=second.next_ms + 9000))
    assert not one.box.has_queue("call_7")

    one.box.replaced([entry for entry, _ in one.store.kept.values()])
    assert [(e.id, e.tries) for e in one.box.lines] == [(2, 1)], "what it says is out of date"

    one.store.fault = None
    async with asyncio.timeout(10):
        while one.store.kept.keys() != {2} or not one.store.kept[2][0].tries:
            await asyncio.sleep(0.001)
    assert "outbox_store_failed" in one.events


async def test_what_the_store_was_not_told_is_told_at_the_end(one: Boxed) -> None:
    await one.take(1)
    one.store.fault = FULL
    await one.box.become(one.out(), None)
    await one.box.tell_rest()
    assert one.store.kept

    one.store.fault = None
    await one.box.tell_rest()

    assert not one.store.kept


async def test_what_was_dropped_while_it_was_out_does_not_come_back(one: Boxed) -> None:
    await one.take(1)
    entry = one.out()
    await one.box.drop(1)

    await one.box.become(entry, replace(entry, tries=1))

    assert one.box.lines.find(1) is None
    assert one.store.kept == {}


async def test_a_dead_one_is_retried_with_all_its_time(one: Boxed) -> None:
    await one.take(1)
    entry = one.out()
    dead = replace(entry, state=State.DEAD, reason="webhook answered 422")
    await one.box.become(entry, dead)
    assert not one.box.has_queue("call_7")
    one.clock.advance(90_000.0)

    assert await one.box.retry(dead) is True

    (back,) = one.box.lines
    assert (back.state, back.since_ms) == (State.QUEUED, one.clock.wall_ms())
    assert one.store.kept[1][0] == back
    assert one.out() == back
    assert await one.box.retry(back) is False, "it is being delivered"


async def test_what_other_replicas_do_is_followed(one: Boxed) -> None:
    theirs = replace(event(1, "call_9")[0], id=1)
    one.box.changed(1, theirs)
    assert one.box.has_queue("call_9")

    one.box.changed(1, None)

    assert not one.box.has_queue("call_9")


async def test_news_may_come_before_the_answer_they_are_about(one: Boxed) -> None:
    """Another replica delivers so fast that we hear of its end before our own put returns."""
    one.store.gate = asyncio.Event()
    taking = asyncio.ensure_future(one.take())
    await settle()
    one.box.changed(1, None)
    one.store.gate.set()

    assert await taking == 200
    assert not one.box.has_queue("call_7")


async def test_news_of_ones_own_event_are_not_overtaken_by_its_answer(one: Boxed) -> None:
    one.store.gate = asyncio.Event()
    taking = asyncio.ensure_future(one.take())
    await settle()
    tried = replace(event()[0], id=1, tries=1)
    one.box.changed(1, tried)
    one.store.gate.set()
    await taking

    assert [*one.box.lines] == [tried]


async def test_whether_the_store_can_be_used_is_known(one: Boxed) -> None:
    one.box.failed("no space")
    assert (one.box.usable, one.box.why) == (False, "no space")

    one.box.replaced([])
    assert (one.box.usable, one.box.why) == (True, "")
    assert one.box.told.is_set()
