from __future__ import annotations

from typing import Any

import orjson
import pytest

from backends.demo import Run, Salon
from proxy.adapters.access import line, text
from proxy.cli.demo_tally import CALLS_KEPT, Books, Since, Tally, percentile
from proxy.core.exchange import Attempt, Exchange
from proxy.core.model import Counts, Kind, Ran, Reason, Verdict

GOOD = Verdict("success", Ran.YES, Counts.SUCCESS)
REFUSED = Verdict("not_sent", Ran.NO, Counts.FAILURE, why="connect")


def access_line(x: Exchange) -> dict[str, Any]:
    told: dict[str, Any] = orjson.loads(text([line(x, 0)]))
    return told


def started(call_id: str, arm: str) -> dict[str, Any]:
    """The access line of a call's first event, from the real writer of such lines."""
    x = Exchange("r1", 0.0, kind=Kind.EVENT, call_id=call_id, event="call_started")
    x.decided, x.arm, x.outcome = arm, "webhook", "ok"
    return access_line(x)


def tool(call_id: str, decided: str, **told: Any) -> dict[str, Any]:
    x = Exchange("r2", 0.0, kind=Kind.FUNCTION, call_id=call_id, tool="get_company_info")
    x.decided, x.arm, x.outcome, x.reason = decided, decided, "ok", Reason.RECORDED
    x.attempts, x.ended = [Attempt(decided, GOOD, 0.040, 200)], 0.042
    for name, value in told.items():
        setattr(x, name, value)
    return access_line(x)


def test_calls_count_by_decision_and_tool_calls_by_who_answered() -> None:
    tally = Tally()
    tally.take(started("a", "mcp"))
    tally.take(started("b", "webhook"))
    tally.take(tool("a", "mcp"))
    tally.take(tool("a", "mcp"))

    assert tally.exchanges == 4
    assert tally.decided == {"mcp": 1, "webhook": 1}
    assert tally.answered == {"mcp": 2}
    assert list(tally.waits) == [42.0, 42.0]
    assert list(tally.arm_ms["mcp"]) == [40.0, 40.0]
    assert [row.tool for row in tally.rows] == ["get_company_info"] * 2


def test_a_rescue_counts_for_the_arm_that_answered() -> None:
    """The attempt that failed says nothing about how fast an arm answers."""
    tally = Tally()
    attempts = [Attempt("mcp", REFUSED, 0.001), Attempt("webhook", GOOD, 0.1, 200)]
    tally.take(
        tool("a", "mcp", arm="webhook", outcome="rescued", reason=Reason.RESCUE_CONNECT,
             attempts=attempts)
    )  # fmt: skip

    assert tally.rescues == 1
    assert tally.rescued == {"rescue_connect": 1}
    assert tally.answered == {"webhook": 1}
    assert (list(tally.arm_ms["mcp"]), list(tally.arm_ms["webhook"])) == ([], [100.0])
    assert tally.moved == 0


def test_a_last_answer_that_asks_for_patience_is_told_apart() -> None:
    tally = Tally()
    last = {"arm": "none", "outcome": "last_answer", "reason": Reason.LAST_ANSWER, "attempts": []}
    tally.take(tool("a", "mcp", flags=["say"], **last))
    tally.take(tool("a", "mcp", flags=["say_pending"], **last))

    assert (tally.last_answers, tally.pending) == (2, 1)
    assert [row.pending for row in tally.rows] == [False, True]


def test_a_call_that_changed_its_arm_would_be_noticed() -> None:
    tally = Tally()
    tally.take(started("a", "mcp"))
    tally.take(tool("a", "webhook"))
    tally.take(tool("unknown", "webhook"))

    assert tally.moved == 1


def test_the_actual_share_is_counted_anew_after_each_change() -> None:
    tally = Tally()
    tally.share_is(10)
    tally.take(started("a", "webhook"))
    tally.share_is(10)
    assert tally.since.actual == 0

    tally.share_is(50)
    assert tally.since == Since(50)
    tally.take(started("b", "mcp"))
    tally.take(started("c", "webhook"))
    assert tally.since.actual == 50
    assert tally.decided.total() == 3


def test_without_calls_there_is_no_actual_share() -> None:
    assert Since(50).actual is None


def test_lines_without_a_call_only_count_as_exchanges() -> None:
    tally = Tally()
    tally.take(access_line(Exchange("r", 0.0)))
    tally.take(tool("", "webhook"))

    assert (tally.exchanges, len(tally.rows)) == (2, 0)


def test_calls_are_forgotten_in_the_end() -> None:
    tally, salon = Tally(), Salon()
    books = Books(salon)
    for number in range(CALLS_KEPT + 5):
        tally.take(started(f"c{number}", "mcp"))
        ran(salon, "mcp", f"c{number}")
        books.look()

    assert len(tally._arm_of) == len(books._of_call) == CALLS_KEPT


def ran(salon: Salon, arm: str, call_id: str | None, name: str = "book_appointment") -> None:
    salon.runs.append(Run(arm, name, call_id))
    salon.ran[arm, name] += 1


def test_a_booking_that_ran_on_both_arms_is_noticed_once() -> None:
    salon = Salon()
    ran(salon, "webhook", "before")
    books = Books(salon)
    for arm, call_id in (("mcp", "a"), ("mcp", "b"), ("webhook", "a"), ("webhook", "a")):
        ran(salon, arm, call_id)
        books.look()
    ran(salon, "mcp", "b", "get_available_slots")
    ran(salon, "webhook", "before")
    ran(salon, "webhook", None)
    books.look()

    assert books.twice == 1


def test_bookings_count_from_the_begin_of_the_demo() -> None:
    salon = Salon(bookings={("2026-01-02", "09:00"): {}})
    books = Books(salon)
    salon.bookings["2026-01-02", "10:00"] = {}
    books.look()

    assert books.bookings == 1


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [([], 50, None), ([3], 50, 3), ([3], 95, 3), ([4, 1, 3, 2], 50, 2), (range(1, 101), 95, 95),
     ([1, 2], 0, 1)],
)  # fmt: skip
def test_percentiles_are_values_that_occurred(
    values: list[float], percent: float, expected: float | None
) -> None:
    assert percentile(values, percent) == expected
