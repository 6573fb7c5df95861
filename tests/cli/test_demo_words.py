from __future__ import annotations

from backends.demo import Run, Salon
from proxy.cli.demo_calls import Heard
from proxy.cli.demo_tally import Books
from proxy.cli.demo_view import Frame
from proxy.cli.demo_words import Ending, act_line, opening, tick_line
from tests.cli.demo_kit import breaker, frame


def ending(shown: Frame | None = None) -> Ending:
    shown = shown or frame()
    return Ending(45.2, shown.tally, shown.books, shown.heard)


def test_the_opening_names_both_arms_and_every_address() -> None:
    text = "\n".join(opening(frame()))

    for fact in ("mcp", "webhook", "127.0.0.1:8080/retell", "127.0.0.1:9901", "breaker status"):
        assert fact in text


def test_an_act_says_its_number_and_what_happens() -> None:
    line = act_line(frame().story)

    assert line.startswith("Act 1 of 6: 10 % of the calls go to MCP. Each call ID is hashed")


def test_a_line_a_second_tells_how_it_stands() -> None:
    shown = frame()
    shown.status["arms"]["mcp"]["breaker"] = breaker("open", reopens_in=1.0)
    line = tick_line(shown)

    for fact in ("share 50 %", "actual 48 %", "mcp 123", "webhook 456", "open, 1.0 s left"):
        assert fact in line
    shown.tally.share_is(10)
    assert "actual -" in tick_line(shown)


def test_the_summary_tells_every_figure() -> None:
    shown = frame(heard=Heard(calls=201, requests=1234, booked=30, confirmed=2))
    shown.tally.rescued.update(rescue_connect=3, rescue_open=20)
    shown.tally.last_answers, shown.tally.pending = 4, 2
    text = "\n".join(ending(shown).lines("callsplit"))

    for fact in (
        "In 45 s: 201 calls, 1234 requests", "mcp", "webhook", "40 ms", "50 ms",
        "connect 3, open 20", '"let me check": 2', "30 confirmed at once, 2 on looking again",
        "Everybody was answered, and nothing ran twice.", "README.md", "rules/rules.yaml",
        "callsplit serve",
    ):  # fmt: skip
        assert fact in text
    assert max(len(line) for line in text.splitlines()) <= 80


def test_a_summary_without_rescues_stays_readable() -> None:
    assert "by webhook: -" in "\n".join(ending().lines("callsplit"))


def test_what_must_never_happen_is_said_aloud() -> None:
    shown = frame(heard=Heard(requests=10, unanswered=2))
    shown.tally.moved = 3
    salon = Salon()
    books = Books(salon)
    for arm in ("mcp", "webhook"):
        salon.runs.append(Run(arm, "book_appointment", "call_1"))
        salon.ran[arm, "book_appointment"] += 1
    books.look()
    end = Ending(8, shown.tally, books, shown.heard)

    assert end.faults == [
        "2 requests were not answered",
        "1 bookings ran twice for one call",
        "3 tool calls went to another arm than their call",
    ]
    text = "\n".join(end.lines("callsplit"))
    assert "NOT AS IT SHOULD BE: 2 requests were not answered; 1 bookings" in text
    assert "Everybody was answered" not in text
