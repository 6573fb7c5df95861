"""The order of an outbox, case by case and against a model in words of lists."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec.structs import replace

from proxy.core.outbox import Entry, State
from proxy.core.outbox_lines import Lines

DEAD = State.DEAD


def entry(id: int, call_id: str | None = "a", size: int = 10) -> Entry:
    return Entry("event", call_id, "call_ended", "webhook", size, 1000 + id, 0, 0, id=id)


def lines(*entries: Entry, due: float = 0.0) -> Lines:
    held = Lines()
    for each in entries:
        held.put(each, due)
    return held


def taken(held: Lines, now: float = 0.0) -> list[int]:
    found = []
    while (each := held.take(now)) is not None:
        found.append(each.id)
    return found


def test_of_one_call_only_the_first_is_taken() -> None:
    held = lines(entry(1), entry(2), entry(3, "b"))

    assert taken(held) == [1, 3]
    held.drop(1)
    assert taken(held) == [2]


def test_what_is_of_no_call_waits_for_nobody() -> None:
    assert taken(lines(entry(1, None), entry(2, None), entry(3, None))) == [1, 2, 3]


def test_a_head_that_waits_holds_up_its_own_call_only() -> None:
    held = lines(entry(1), entry(2), entry(3, "b"))
    held.put(entry(1), 60.0)

    assert taken(held, 59.0) == [3]
    assert taken(held, 60.0) == [1]


def test_who_is_due_first_goes_first() -> None:
    held = Lines()
    for each, due in ((entry(1, "a"), 3.0), (entry(2, "b"), 1.0), (entry(3, "c"), 2.0)):
        held.put(each, due)

    assert held.next_due() == 1.0
    assert taken(held, 5.0) == [2, 3, 1]
    assert held.next_due() is None


def test_a_dead_head_lets_the_next_one_pass() -> None:
    held = lines(entry(1), entry(2))
    first = held.take(0.0)
    assert first is not None

    held.put(replace(first, state=DEAD), 0.0)

    assert taken(held) == [2]
    assert (held.queued, held.dead) == (1, 1)


def test_a_dead_one_that_comes_back_is_first_again_but_waits_for_who_is_out() -> None:
    held = lines(replace(entry(1), state=DEAD), entry(2))
    assert taken(held) == [2]

    held.put(entry(1), 0.0)
    assert taken(held) == []

    held.drop(2)
    assert taken(held) == [1]


def test_it_is_known_who_is_out() -> None:
    held = lines(entry(1), entry(2))
    assert taken(held) == [1]

    assert held.out == 1
    assert held.is_out(1)
    assert not held.is_out(2)


def test_when_the_arm_is_well_again_nobody_waits_for_his_time() -> None:
    held = lines(entry(1), entry(2), entry(3, "b"), due=600.0)
    assert taken(held, 5.0) == []

    held.hasten(5.0)

    assert taken(held, 5.0) == [1, 3]


def test_hastening_does_not_send_what_is_out() -> None:
    held = lines(entry(1), entry(2), due=0.0)
    assert taken(held) == [1]

    held.hasten(5.0)

    assert taken(held, 5.0) == []


def test_a_call_has_a_queue_from_the_moment_that_something_is_on_its_way_in() -> None:
    held, coming = Lines(), entry(0)
    held.expect(coming)
    held.expect(coming)
    assert held.has("a")
    assert len(held) == 2
    assert held.size == 20

    held.came(coming)
    assert held.has("a")
    held.came(coming)
    held.put(entry(1), 0.0)
    assert held.has("a")
    assert (len(held), held.size, held.queued) == (1, 10, 1)

    held.drop(1)
    assert not held.has("a")
    assert (len(held), held.size) == (0, 0)


def test_what_is_of_no_call_can_fail_too() -> None:
    held = Lines()
    held.expect(entry(0, None))
    held.came(entry(0, None))

    assert (len(held), held.size) == (0, 0)


def test_dead_ones_are_no_queue() -> None:
    held = lines(replace(entry(1), state=DEAD))

    assert not held.has("a")
    assert held.oldest_ms is None
    assert held.drop(1) is not None
    assert held.drop(1) is None


def test_the_oldest_is_known() -> None:
    held = lines(entry(1), entry(2, "b"), entry(3, "c"))
    assert held.oldest_ms == 1001

    held.drop(1)
    held.put(replace(entry(2, "b"), state=DEAD), 0.0)

    assert held.oldest_ms == 1003


def test_a_store_that_begins_anew_replaces_everything() -> None:
    held = lines(entry(1), entry(2, "b"))
    held.replace_all([(entry(7, "c"), 4.0)])

    assert [each.id for each in held] == [7]
    assert not held.has("a")
    assert held.next_due() == 4.0
    assert held.find(7) is not None
    assert held.find(1) is None


def test_what_others_say_does_not_send_it_out_twice() -> None:
    """Another replica's news, or a store that was read anew, in the middle of a delivery."""
    held = lines(entry(1), entry(2))
    assert taken(held) == [1]

    held.hear(replace(entry(1), tries=3), 0.0)
    held.replace_all([(entry(1), 0.0), (entry(2), 0.0), (entry(3, "b"), 0.0)])

    assert taken(held) == [3]
    assert held.is_out(1)
    held.drop(1)
    assert taken(held) == [2]


def test_what_others_found_dead_is_no_longer_out() -> None:
    held = lines(entry(1), entry(2))
    assert taken(held) == [1]

    held.hear(replace(entry(1), state=DEAD), 0.0)

    assert taken(held) == [2]
    held.replace_all([(replace(entry(2), state=DEAD), 0.0), (entry(4), 0.0)])
    assert taken(held) == [4]


def test_news_of_what_is_not_out_are_taken_in() -> None:
    held = lines(entry(1), due=9.0)

    held.hear(entry(1), 0.0)

    assert taken(held) == [1]


@dataclass
class Model:
    """What must hold, without a heap."""

    entries: dict[int, Entry] = field(default_factory=dict)
    due: dict[int, float] = field(default_factory=dict)
    out: set[int] = field(default_factory=set)

    def candidates(self, now: float) -> set[int]:
        queued = [e for e in self.entries.values() if e.state is State.QUEUED]
        busy = {self.entries[id].line for id in self.out}
        heads: dict[str | int, Entry] = {}
        for each in sorted(queued, key=lambda e: e.id):
            heads.setdefault(each.line, each)
        free = [e.id for e in heads.values() if e.line not in busy and self.due[e.id] <= now]
        soonest = min((self.due[id] for id in free), default=0.0)
        return {id for id in free if self.due[id] == soonest}


class LinesMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.lines, self.model, self.count, self.now = Lines(), Model(), 0, 0.0

    @rule(call=st.sampled_from(["a", "b", None]), wait=st.integers(0, 3))
    def arrives(self, call: str | None, wait: int) -> None:
        self.count += 1
        new = entry(self.count, call)
        self.lines.expect(new)
        self.lines.came(new)
        self.lines.put(new, self.now + wait)
        self.model.entries[new.id], self.model.due[new.id] = new, self.now + wait

    @rule(seconds=st.integers(1, 3))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def takes(self) -> None:
        may = self.model.candidates(self.now)
        got = self.lines.take(self.now)
        assert (got is None) == (not may)
        if got is not None:
            assert got.id in may
            self.model.out.add(got.id)

    @precondition(lambda self: self.model.out)
    @rule(data=st.data(), how=st.sampled_from(["delivered", "again", "dead"]))
    def comes_back(self, data: st.DataObject, how: str) -> None:
        id = data.draw(st.sampled_from(sorted(self.model.out)))
        self.model.out.discard(id)
        mine = self.model.entries[id]
        if how == "delivered":
            self.lines.drop(id)
            del self.model.entries[id]
        else:
            fresh = replace(mine, state=DEAD) if how == "dead" else mine
            self.lines.put(fresh, self.now + 2)
            self.model.entries[id], self.model.due[id] = fresh, self.now + 2

    @precondition(lambda self: any(e.state is DEAD for e in self.model.entries.values()))
    @rule(data=st.data())
    def is_retried(self, data: st.DataObject) -> None:
        dead = sorted(e.id for e in self.model.entries.values() if e.state is DEAD)
        id = data.draw(st.sampled_from(dead))
        fresh = replace(self.model.entries[id], state=State.QUEUED)
        self.lines.put(fresh, self.now)
        self.model.entries[id], self.model.due[id] = fresh, self.now

    @precondition(lambda self: self.model.entries)
    @rule(data=st.data())
    def is_dropped(self, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from(sorted(self.model.entries)))
        self.lines.drop(id)
        del self.model.entries[id]
        self.model.out.discard(id)

    @rule()
    def is_hastened(self) -> None:
        self.lines.hasten(self.now)
        for id, due in self.model.due.items():
            self.model.due[id] = min(due, self.now)

    @invariant()
    def the_figures_are_right(self) -> None:
        every = list(self.model.entries.values())
        queued = [e for e in every if e.state is State.QUEUED]
        assert (self.lines.queued, self.lines.dead) == (len(queued), len(every) - len(queued))
        assert self.lines.size == sum(e.size for e in every)
        assert self.lines.oldest_ms == min((e.received_ms for e in queued), default=None)
        assert self.lines.out == len(self.model.out)
        for call in ("a", "b"):
            assert self.lines.has(call) == any(e.call_id == call for e in queued)


TestLines = LinesMachine.TestCase
TestLines.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
