from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.entry import Entry, Scope
from proxy.core.history import KEEP_ENTRIES, KEEP_MS, SETTLE_MS, SKEW_MS, History, usable_start
from tests.interpreter import interpreted_only

NOW = 1_767_225_600_000
HOUR = 3_600_000


def entry(percent: float, at_ms: int, *, kill: bool = False, **terms: Any) -> Entry:
    return Entry("mcp", "webhook", percent=percent, at_ms=at_ms, kill=kill, **terms)


def history(*later: Entry) -> History:
    made = History(entry(0, NOW - HOUR))
    for each in later:
        made.commit(each)
    return made


def test_a_call_is_judged_by_the_entry_of_its_own_start() -> None:
    made = history(entry(10, NOW), entry(25, NOW + HOUR))
    wall = NOW + 2 * HOUR

    assert made.in_force(NOW - 1, wall).percent == 0
    assert made.in_force(NOW + HOUR - 1, wall).percent == 10
    assert made.in_force(wall, wall).percent == 25


def test_a_change_for_new_calls_settles_first() -> None:
    """Every replica must hold it before the first call is judged by it."""
    made = history(entry(10, NOW))

    assert made.in_force(NOW + SETTLE_MS - 1, NOW + HOUR).percent == 0
    assert made.in_force(NOW + SETTLE_MS, NOW + HOUR).percent == 10
    assert made.in_force(None, NOW).percent == 0
    assert made.latest.percent == 10


@interpreted_only
@pytest.mark.parametrize("start", [None, NOW + SKEW_MS + 1, "1767225600000", True, 1.7e12])
def test_an_unusable_start_gets_the_present_entry(start: Any) -> None:
    made = history(entry(10, NOW - HOUR // 2))

    assert usable_start(start, NOW) is None
    assert made.in_force(start, NOW).percent == 10


def test_a_start_slightly_ahead_is_a_start() -> None:
    assert usable_start(NOW + SKEW_MS, NOW) == NOW + SKEW_MS
    made = history(entry(10, NOW))
    assert made.in_force(NOW + SKEW_MS, NOW).percent == 10


@pytest.mark.parametrize("start", [0, -5, NOW - 48 * HOUR])
def test_a_call_older_than_the_history_gets_its_oldest_entry(start: int) -> None:
    made = history(entry(10, NOW))

    assert made.in_force(start, NOW + HOUR).percent == 0


def test_turning_the_kill_switch_on_reaches_all_calls_at_once() -> None:
    made = history(entry(50, NOW), entry(50, NOW + HOUR, kill=True))
    wall = NOW + HOUR

    assert made.latest.scope is Scope.ALL_CALLS
    for start in (0, NOW, NOW + HOUR, None, wall + SKEW_MS):
        assert made.in_force(start, wall).kill


@pytest.mark.parametrize(
    ("start", "stands"),
    [(NOW - 1, False), (NOW, False), (NOW + 1, True), (NOW + HOUR + SKEW_MS + 1, False)],
)
def test_what_was_decided_before_an_entry_for_all_calls_no_longer_stands(
    start: int, stands: bool
) -> None:
    """Nor what claims to be of the future: it may be older in truth."""
    killed = history(entry(50, NOW, kill=True), entry(50, NOW + 1))

    assert killed.still_stands(start, NOW + HOUR) is stands
    assert history(entry(50, NOW)).still_stands(start, NOW + HOUR)


def test_a_history_that_begins_with_the_switch_on_is_for_all_calls() -> None:
    """MCP sessions outlive a process, and its rules may say at its start that nobody goes there."""
    made = History(entry(50, NOW, kill=True))
    made.commit(entry(50, NOW + 1))

    assert not made.still_stands(NOW - HOUR, NOW + HOUR)
    assert made.in_force(NOW - HOUR, NOW + HOUR).kill
    assert made.in_force(NOW + HOUR, NOW + HOUR).kill is False


def test_turning_it_off_brings_no_call_back() -> None:
    made = history(entry(50, NOW, kill=True), entry(50, NOW + HOUR))
    wall = NOW + 2 * HOUR

    assert made.latest.scope is Scope.NEW_CALLS
    assert made.in_force(NOW - 1, wall).kill
    assert made.in_force(NOW + HOUR + SETTLE_MS - 1, wall).kill
    assert not made.in_force(NOW + HOUR + SETTLE_MS, wall).kill


def test_a_change_that_still_settles_cannot_undo_the_kill_switch() -> None:
    made = history(entry(50, NOW), entry(50, NOW + 100, kill=True))

    assert made.in_force(None, NOW + 100).kill
    assert made.in_force(NOW + SETTLE_MS + 1, NOW + HOUR).kill


def test_a_clock_that_goes_back_does_not_hide_later_changes() -> None:
    made = history(entry(50, NOW + HOUR, kill=True), entry(10, NOW))

    assert made.in_force(None, NOW + SETTLE_MS).percent == 10
    assert not made.in_force(None, NOW + SETTLE_MS).kill
    assert made.in_force(NOW - 1, NOW + SETTLE_MS).kill  # began before, was killed


def test_the_kill_switch_counts_even_if_it_was_committed_by_a_fast_clock() -> None:
    made = history(entry(50, NOW + 2_000, kill=True))

    assert made.in_force(None, NOW).kill
    assert made.in_force(NOW - HOUR, NOW).kill


def test_what_is_no_change_leaves_no_entry() -> None:
    made = history(entry(10, NOW))

    assert made.commit(entry(10, NOW + 5, who="somebody", why="again")) is None
    assert len(made.entries) == 2


def test_epochs_grow_and_who_and_why_are_kept() -> None:
    made = history()
    first = made.commit(entry(10, NOW, who="ops", why="start"))
    second = made.commit(entry(20, NOW + 1, who="ops", why="more"))

    assert first is not None
    assert second is not None
    assert (first.epoch, second.epoch) == (1, 2)
    assert [(each.who, each.why) for each in made.entries[1:]] == [
        ("ops", "start"),
        ("ops", "more"),
    ]


def test_what_was_in_force_during_the_last_day_is_kept() -> None:
    made = history()
    for step in range(100):
        made.commit(entry(step % 99 + 1, NOW + step * HOUR))
    wall = NOW + 99 * HOUR

    oldest = wall - KEEP_MS
    assert made.in_force(oldest, wall).percent == 75  # 24 h ago, not yet settled: the one before
    assert 24 <= len(made.entries) <= 27


def test_the_newest_few_are_kept_however_old() -> None:
    made = history()
    for step in range(30):
        made.commit(entry(step + 1, NOW + step * 30 * HOUR))

    assert len(made.entries) == KEEP_ENTRIES


changes = st.lists(
    st.tuples(
        st.integers(0, 2_000),  # ms since the change before
        st.integers(0, 100),
        st.booleans(),
    ),
    max_size=12,
)


@given(changes, st.integers(-500, 30_000))
def test_at_every_moment_the_entry_agrees_with_a_plain_reading(
    steps: list[tuple[int, int, bool]], start_after: int
) -> None:
    """The last one whose effect is due, where the kill switch overtakes what still settles."""
    made, at = history(), NOW
    model: list[tuple[int, Entry]] = [(0, made.latest)]
    for gap, percent, kill in steps:
        at += gap
        put = made.commit(entry(percent, at, kill=kill))
        if put is None:
            continue
        at_once = put.scope is Scope.ALL_CALLS
        if at_once:
            model = [(min(effect, at), each) for effect, each in model]
        model.append((at if at_once else at + SETTLE_MS, put))
    start = NOW + start_after
    swept = max((each.at_ms for _, each in model if each.scope is Scope.ALL_CALLS), default=0)
    due = [each for effect, each in model if effect <= max(start, swept)]

    assert made.in_force(start, NOW + HOUR) is due[-1]
