from __future__ import annotations

import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from proxy.core.entry import Entry, Ruling
from proxy.core.model import Decision, Reason
from proxy.core.records import KEEP_MS, LIVE_MS, MAX_ID, TICK_MS, Records

NOW = 1_767_225_600_000
ENTRY = Entry("mcp", "webhook")
TO, OTHERWISE = (Ruling(ENTRY, Decision(arm, Reason.SHARE)) for arm in ("mcp", "webhook"))


def add(records: Records, call_id: str, wall_ms: int = NOW, ruling: Ruling = TO) -> None:
    records.add(call_id, ruling, start_ms=wall_ms, frozen=(), wall_ms=wall_ms)


def test_a_recorded_call_is_found_with_what_was_decided() -> None:
    records = Records()
    records.add("call_1", TO, start_ms=NOW - 5, frozen=("a",), wall_ms=NOW)
    record = records.find("call_1", NOW + 1)

    assert record is not None
    assert (record.ruling, record.start_ms, record.frozen) == (TO, NOW - 5, ("a",))
    assert records.find("call_2", NOW) is None


def test_a_call_not_seen_for_three_hours_is_forgotten() -> None:
    records = Records()
    add(records, "call_1")
    assert records.find("call_1", NOW + KEEP_MS) is not None
    assert records.find("call_1", NOW + 2 * KEEP_MS) is not None  # seen in between
    assert records.peek("call_1", NOW + 3 * KEEP_MS + TICK_MS) is None
    assert records.find("call_1", NOW + 3 * KEEP_MS + TICK_MS) is None
    assert len(records) == 0


def test_peeking_does_not_count_as_seeing() -> None:
    records = Records()
    add(records, "call_1")

    assert records.peek("call_1", NOW + KEEP_MS) is not None
    assert records.find("call_1", NOW + KEEP_MS + TICK_MS) is None


def test_expired_records_make_room_as_new_ones_come() -> None:
    records = Records()
    for number in range(10):
        add(records, f"old_{number}")
    for number in range(10):
        add(records, f"new_{number}", NOW + KEEP_MS + TICK_MS)

    assert len(records) == 10


def test_a_dropped_call_is_gone_and_may_come_back() -> None:
    records = Records()
    add(records, "call_1")
    records.drop("call_1")
    records.drop("call_1")
    assert records.find("call_1", NOW) is None

    add(records, "call_1", ruling=OTHERWISE)
    found = records.find("call_1", NOW)
    assert found is not None
    assert found.ruling is OTHERWISE
    assert (records.live("mcp", NOW), records.live("webhook", NOW)) == (0, 1)


def test_when_full_the_calls_seen_since_stay() -> None:
    records = Records(most=100)
    for number in range(100):
        add(records, f"call_{number}")
    for number in range(50):
        records.find(f"call_{number}", NOW)
    for number in range(100, 150):
        add(records, f"call_{number}")

    assert len(records) == 100
    assert all(records.peek(f"call_{number}", NOW) for number in range(50))
    assert not any(records.peek(f"call_{number}", NOW) for number in range(50, 100))
    assert all(records.peek(f"call_{number}", NOW) for number in range(100, 150))


@pytest.mark.row("L12")
def test_when_all_were_seen_since_the_search_for_room_is_bounded() -> None:
    records = Records(most=1000)
    for number in range(1000):
        add(records, f"call_{number}")
        records.find(f"call_{number}", NOW)
    add(records, "call_new")

    assert len(records) == 1000
    assert records.peek("call_new", NOW) is not None
    assert records.peek("call_0", NOW) is not None  # it went once round
    assert sum(records.peek(f"call_{number}", NOW) is None for number in range(100)) == 1


def test_a_full_house_of_dropped_calls_is_no_obstacle() -> None:
    records = Records(most=3)
    for number in range(1000):
        add(records, f"call_{number}")
        if number % 3:
            records.drop(f"call_{number}")

    assert len(records) <= 3


def test_calls_that_come_and_go_leave_nothing_behind() -> None:
    """The ring lets go of dropped records although a long call sits at its front."""
    records = Records()
    add(records, "call_long")
    sizes = []
    for number in range(5_000):
        add(records, f"call_{number}")
        records.drop(f"call_{number}")
        sizes.append(len(records._ring))

    assert records.peek("call_long", NOW) is not None
    assert max(sizes) < 20


def test_an_id_of_unusual_length_is_not_recorded() -> None:
    records = Records()
    add(records, "x" * MAX_ID)
    add(records, "x" * (MAX_ID + 1))

    assert len(records) == 1


def test_a_call_is_live_while_seen_in_ten_minutes_and_not_ended() -> None:
    records = Records()
    for call_id in ("call_1", "call_2", "call_3"):
        add(records, call_id)
    add(records, "call_4", ruling=OTHERWISE)
    records.end("call_1")
    records.end("call_1")
    records.end("call_unknown")
    records.find("call_2", NOW + LIVE_MS)

    assert (records.live("mcp", NOW), records.live("webhook", NOW)) == (2, 1)
    assert records.live("mcp", NOW + LIVE_MS + TICK_MS) == 1
    assert records.live("webhook", NOW + LIVE_MS + TICK_MS) == 0
    assert records.live("mcp", NOW + 3 * LIVE_MS) == 0
    assert records.live("nobody", NOW) == 0


def test_live_calls_are_counted_by_another_thread_while_calls_come(
    request: pytest.FixtureRequest,
) -> None:
    """As a scrape does, which must not stumble over a table that changes under its feet."""
    request.addfinalizer(partial(sys.setswitchinterval, sys.getswitchinterval()))
    sys.setswitchinterval(1e-6)
    records = Records()
    stop: list[bool] = []

    def scrape() -> bool:
        while not stop:
            records.live("mcp", NOW)
        return True

    with ThreadPoolExecutor() as pool:
        scraped = pool.submit(scrape)
        for number in range(5000):
            add(records, f"call_{number}", NOW + number * TICK_MS)
        stop.append(True)
        assert scraped.result()


def test_a_revised_call_is_live_on_its_other_arm() -> None:
    records = Records()
    add(records, "call_1")
    record = records.find("call_1", NOW)
    assert record is not None
    records.revise(record, OTHERWISE, ("x",))

    assert (records.live("mcp", NOW), records.live("webhook", NOW)) == (0, 1)
    assert record.frozen == ("x",)


def test_when_it_was_seen_is_known_to_ten_seconds() -> None:
    records = Records()
    add(records, "call_1", NOW + 12_345)
    record = records.peek("call_1", NOW)

    assert record is not None
    assert record.seen_ms == NOW + 10_000


def test_a_record_takes_less_than_400_bytes_with_its_id() -> None:
    """100,000 live calls must fit into 60 MB; counted here, not timed."""
    records, count = Records(), 20_000
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(count):
            add(records, f"call_{number:027x}", NOW + number)
        used = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()

    assert used / count < 400


IDS = st.sampled_from([f"call_{number}" for number in range(8)])


class RecordsAgainstAModel(RuleBasedStateMachine):
    """Against a plain dict of (arm, last seen, ended), with time going on."""

    def __init__(self) -> None:
        super().__init__()
        self.records = Records(most=100, keep_ms=20 * LIVE_MS)
        self.now = NOW
        self.model: dict[str, tuple[str, int, bool]] = {}

    def known(self, call_id: str) -> bool:
        if call_id not in self.model:
            return False
        return self.now // TICK_MS - self.model[call_id][1] // TICK_MS <= 20 * LIVE_MS // TICK_MS

    @rule(seconds=st.integers(-30, 4_000))
    def time_goes_on(self, seconds: int) -> None:
        self.now += seconds * 1000

    @rule(call_id=IDS, to=st.booleans())
    def ask(self, call_id: str, to: bool) -> None:
        record = self.records.find(call_id, self.now)
        assert (record is not None) is self.known(call_id)
        if record is None:
            add(self.records, call_id, self.now, TO if to else OTHERWISE)
            self.model[call_id] = ("mcp" if to else "webhook", self.now, False)
        else:
            arm, _, ended = self.model[call_id]
            assert record.ruling.decision.arm == arm
            self.model[call_id] = (arm, self.now, ended)

    @rule(call_id=IDS)
    def end(self, call_id: str) -> None:
        self.records.end(call_id)
        if call_id in self.model:
            arm, seen, _ = self.model[call_id]
            self.model[call_id] = (arm, seen, True)

    @rule(call_id=IDS)
    def drop(self, call_id: str) -> None:
        self.records.drop(call_id)
        self.model.pop(call_id, None)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def revise(self, data: st.DataObject) -> None:
        call_id = data.draw(st.sampled_from(sorted(self.model)))
        record = self.records.peek(call_id, self.now)
        if record is not None:
            self.records.revise(record, OTHERWISE, ())
            _, seen, ended = self.model[call_id]
            self.model[call_id] = ("webhook", seen, ended)

    @invariant()
    def the_live_are_counted_right(self) -> None:
        oldest = (self.now - LIVE_MS) // TICK_MS
        for arm in ("mcp", "webhook"):
            live = [
                call_id
                for call_id, (where, seen, ended) in self.model.items()
                if where == arm and not ended and seen // TICK_MS >= oldest
            ]
            assert self.records.live(arm, self.now) == len(live)


TestRecordsAgainstAModel = RecordsAgainstAModel.TestCase
