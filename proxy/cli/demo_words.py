"""What does the demo say in plain lines: while it runs without a terminal, and at its end?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from proxy.cli.demo_calls import Heard
from proxy.cli.demo_rules import OTHERWISE, TO
from proxy.cli.demo_story import ACTS, Story
from proxy.cli.demo_tally import Books, Tally
from proxy.cli.demo_view import Frame, breaker_text, hints, spread


def opening(frame: Frame) -> Iterator[str]:
    """Where it listens, and what else can be asked meanwhile."""
    yield f"callsplit demo: arms {TO} and {OTHERWISE}, both in this process, one shared salon"
    yield f"  Retell calls    {frame.url}"
    yield f"  operators ask   {frame.admin}"
    for command in hints(frame.command, frame.admin):
        yield f"  another shell   {command}"


def act_line(story: Story) -> str:
    """A new act."""
    return f"Act {story.number} of {len(ACTS)}: {story.act.title}. {story.act.words}"


def tick_line(frame: Frame) -> str:
    """How it stands now."""
    tally, actual = frame.tally, frame.tally.since.actual
    came = "-" if actual is None else f"{actual:.0f} %"
    answered = ", ".join(f"{arm} {tally.answered[arm]}" for arm in (TO, OTHERWISE))
    breaker = breaker_text(frame.status["arms"][TO]["breaker"]).plain.strip()
    return (
        f"{frame.story.elapsed:5.0f} s  share {frame.status['split']['in_force_percent']:g} %, "
        f"actual {came} | answered: {answered} | breaker of {TO}: {breaker} | "
        f"rescued {tally.rescues}, told to wait {tally.pending} | "
        f"bookings {frame.books.bookings}, twice {frame.books.twice} | "
        f"unanswered {frame.heard.unanswered}"
    )


@dataclass(frozen=True, slots=True)
class Ending:
    """What the run came to."""

    seconds: float
    tally: Tally
    books: Books
    heard: Heard

    @property
    def faults(self) -> list[str]:
        """What must never happen, and did."""
        counts = {
            "requests were not answered": self.heard.unanswered,
            "bookings ran twice for one call": self.books.twice,
            "tool calls went to another arm than their call": self.tally.moved,
        }
        return [f"{count} {what}" for what, count in counts.items() if count]

    def lines(self, command: str) -> Iterator[str]:
        """The closing summary."""
        heard = self.heard
        yield ""
        yield (
            f"In {self.seconds:.0f} s: {heard.calls} calls, {heard.requests} requests over HTTP, "
            "each signed and verified."
        )
        yield ""
        yield from self._table()
        yield ""
        for label, count, note in self._counts():
            yield f"  {label:<18}{count:>6}   {note}"
        yield ""
        if faults := self.faults:
            yield f"NOT AS IT SHOULD BE: {'; '.join(faults)}."
        else:
            yield "Everybody was answered, and nothing ran twice."
        yield ""
        yield "What next:"
        steps = next_steps(command)
        width = max(len(step) for step, _ in steps)
        yield from (f"  {step:<{width}}   {what}" for step, what in steps)

    def _table(self) -> Iterator[str]:
        """Arm by arm, then as the callers saw it."""
        tally = self.tally
        yield f"  {'':<10}{'calls':>8}{'tool calls answered':>22}{'p50':>10}{'p95':>10}"
        rows = [
            (arm, tally.decided[arm], tally.answered[arm], tally.arm_ms[arm])
            for arm in (TO, OTHERWISE)
        ]
        for name, calls, answered, samples in [
            *rows,
            ("callers", self.heard.calls, tally.answered.total(), tally.waits),
        ]:
            p50, p95 = spread(samples)
            yield f"  {name:<10}{calls:>8}{answered:>22}{p50:>10}{p95:>10}"

    def _counts(self) -> Iterator[tuple[str, int, str]]:
        tally, heard, books = self.tally, self.heard, self.books
        reasons = ", ".join(f"{why[7:]} {count}" for why, count in sorted(tally.rescued.items()))
        yield "rescued", tally.rescues, f"by {OTHERWISE}: {reasons or '-'}"
        yield "last answers", tally.last_answers, f'of them "let me check": {tally.pending}'
        yield (
            "bookings",
            books.bookings,
            (f"{heard.booked} confirmed at once, {heard.confirmed} on looking again"),
        )
        yield "double bookings", books.twice, "one call's booking that ran twice, on any arm"
        yield "changed arm", tally.moved, "tool calls on another arm than their call"
        yield "unanswered", heard.unanswered, f"of {heard.requests} requests"


def next_steps(command: str) -> list[tuple[str, str]]:
    """Where to go from here."""
    return [
        ("README.md", "how it works, and how to point Retell at it"),
        ("rules/rules.yaml", "your own arms and share"),
        (f"{command} rules check", "every fault of that file, with its place"),
        (f"{command} serve", "the real thing"),
    ]
