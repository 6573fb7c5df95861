"""How does the demo look on a terminal?  One screen, drawn anew from what was measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from backends.demo import Mood
from proxy.cli.demo_calls import Heard
from proxy.cli.demo_rules import OTHERWISE, TO, TRIALS
from proxy.cli.demo_story import ACTS, Story
from proxy.cli.demo_tally import Books, Row, Tally, percentile

STYLES = {TO: "cyan", OTHERWISE: "magenta", "none": "red"}
MOODS = {
    Mood.WELL: ("well", "green"),
    Mood.REFUSE: ("refuses", "bold red"),
    Mood.ERROR: ("fails", "bold red"),
    Mood.HANG: ("hangs", "bold red"),
}
BREAKERS = {"closed": "green", "half_open": "yellow"}
LABEL = 8
"""Columns of a line's first word."""


@dataclass(frozen=True, slots=True)
class Frame:
    """What one drawing is made of; `status` is the sidecar's own page."""

    status: dict[str, Any]
    story: Story
    tally: Tally
    books: Books
    heard: Heard
    moods: Mapping[str, Mood]
    url: str
    admin: str
    command: str  # how callsplit is called here


class Screen:
    """The whole screen; the list of calls takes the rows that are left."""

    def __init__(self, frame: Frame) -> None:
        self._frame = frame

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        frame, width, plain = self._frame, options.max_width, options.ascii_only
        top: list[RenderableType] = [
            headline(frame.story, width),
            acts_bar(frame.story, width, plain=plain),
            *_lines(Text(frame.story.act.words), console, width, 2),
            _rule("split"),
            *split_lines(frame, width, plain=plain),
            _rule("arms"),
            arms_table(frame, width, plain=plain),
            _rule("callers"),
            callers_table(frame, width),
            _rule("latest tool calls"),
        ]
        bottom = footer(frame)
        height = options.height or console.height
        used = sum(len(console.render_lines(part, options, pad=False)) for part in top)
        room = max(1, height - used - len(bottom))
        yield from top
        yield latest_table(frame.tally.rows, room, plain=plain)
        yield from bottom


def _rule(title: str) -> Rule:
    return Rule(Text(title, style="dim"), align="left", style="dim")


def _lines(text: Text, console: Console, width: int, count: int) -> list[Text]:
    """Exactly `count` lines: what stands below must not jump."""
    lines = list(text.wrap(console, width))[:count]
    return [*lines, *[Text("")] * (count - len(lines))]


def _both_ends(left: Text, right: Text, width: int) -> Text:
    left.truncate(max(0, width - right.cell_len - 1))
    gap = max(1, width - left.cell_len - right.cell_len)
    return Text.assemble(left, " " * gap, right, no_wrap=True)


def headline(story: Story, width: int) -> Text:
    """Which act, and how late it is."""
    left = Text.assemble(
        ("callsplit ", "bold"),
        (f" Act {story.number} of {len(ACTS)}: {story.act.title} ", "bold reverse"),
    )
    time = _clock(story.elapsed)
    time += f" / {_clock(story.seconds)}" if story.seconds else ", until Ctrl-C"
    return _both_ends(left, Text(time, style="dim"), width)


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}:{rest:02}"


def acts_bar(story: Story, width: int, *, plain: bool) -> Text:
    """All acts as one bar, each as long as it takes."""
    room, whole = width - len(ACTS) + 1, sum(act.weight for act in ACTS)
    bar, drawn, weight = Text(no_wrap=True), 0, 0.0
    for number, act in enumerate(ACTS, 1):
        weight += act.weight
        length = round(room * weight / whole) - drawn
        drawn += length
        done = 1.0 if number < story.number else 0.0
        done = story.progress if number == story.number else done
        style = "bold" if number == story.number else ""
        bar.append_text(_bar(done, length, style, plain=plain))
        bar.append(" " if number < len(ACTS) else "")
    return bar


def _bar(part: float, length: int, style: str, *, plain: bool) -> Text:
    full, empty = ("#", ".") if plain else ("━", "─")
    filled = round(min(1.0, max(0.0, part)) * length)
    return Text.assemble((full * filled, style), (empty * (length - filled), "dim"))


def split_lines(frame: Frame, width: int, *, plain: bool) -> list[Text]:
    """The share in force above the split as it came out."""
    split, since = frame.status["split"], frame.tally.since
    target, actual = split["in_force_percent"], since.actual
    came = "no call yet" if actual is None else f"of {since.calls} calls since the change"
    notes = [f"in force, to {split['to']}", came]
    room = width - LABEL - 8 - max(30, *(len(note) for note in notes))
    lines = []
    for name, value, note in zip(("target", "actual"), (target, actual), notes, strict=True):
        bar = _bar((value or 0) / 100, room, STYLES[TO], plain=plain)
        figure = "   - " if value is None else f"{value:3.0f} %"
        line = Text.assemble(
            (f"{name:{LABEL}}", ""), bar, " ", (figure, "bold"), "  ", (note, "dim")
        )
        lines.append(line)
    return lines


def arms_table(frame: Frame, width: int, *, plain: bool) -> Table:
    """Each arm: how it is, what its breaker does, how much it answered, how fast."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="dim", width=width)
    for title in ("arm", "is", "breaker", "live"):
        table.add_column(title, no_wrap=True, overflow="crop")
    table.add_column("tools answered", ratio=1, no_wrap=True, overflow="crop")
    table.add_column("p50", justify="right", no_wrap=True, overflow="crop", min_width=7)
    table.add_column("p95", justify="right", no_wrap=True, overflow="crop", min_width=7)
    answered = frame.tally.answered
    most = max(1, *(answered[arm] for arm in (TO, OTHERWISE)))
    for arm in (TO, OTHERWISE):
        state, (mood, style) = frame.status["arms"][arm], MOODS[frame.moods[arm]]
        bar = _bar(answered[arm] / most, max(4, width - 68), STYLES[arm], plain=plain)
        table.add_row(
            Text(arm, style=f"bold {STYLES[arm]}"),
            Text(f"{mood:7}", style=style),
            breaker_text(state["breaker"]),
            str(state["live_calls"]),
            Text.assemble(bar, f" {answered[arm]}"),
            *spread(frame.tally.arm_ms[arm]),
        )
    return table


def breaker_text(state: dict[str, Any]) -> Text:
    """A breaker in words, of a length that does not jump."""
    name = str(state["state"])
    words = name.replace("_", " ")
    if state["reopens_in"] is not None:
        words = f"open, {state['reopens_in']:.1f} s left"
    elif name == "half_open":
        words += f", {state['successes']} of {TRIALS}" if state["probed"] else ", probing"
    return Text(f"{words:18}", style=BREAKERS.get(name, "bold red"))


def spread(samples: Iterable[float]) -> tuple[str, str]:
    """The median and the 95th percentile of ms, as texts."""
    p50, p95 = (percentile(samples, percent) for percent in (50, 95))
    return _ms(p50), _ms(p95)


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} ms"


def callers_table(frame: Frame, width: int) -> Table:
    """What callers experienced, and what really ran."""
    heard, tally, books = frame.heard, frame.tally, frame.books
    table = Table.grid(padding=(0, 1, 0, 0))
    table.width = width
    for _ in range(3):
        table.add_column(style="dim", no_wrap=True, overflow="crop")
        table.add_column(ratio=1, no_wrap=True, overflow="crop")
    wait = ", ".join(spread(tally.waits)).replace(" ms, ", ", ")
    table.add_row("calls", _figure(f"{heard.calls}, {heard.live} live"), "rescued",
                  _notable(tally.rescues), "bookings", _figure(books.bookings))  # fmt: skip
    table.add_row("requests", _figure(heard.requests), "told to wait",
                  _notable(tally.pending), "booked twice", _never(books.twice))  # fmt: skip
    table.add_row("p50, p95", _figure(wait), "unanswered",
                  _never(heard.unanswered), "changed arm", _never(tally.moved))  # fmt: skip
    return table


def _figure(value: object) -> Text:
    return Text(str(value), style="bold")


def _notable(count: int) -> Text:
    return Text(str(count), style="bold yellow" if count else "bold")


def _never(count: int) -> Text:
    return Text(str(count), style="bold red reverse" if count else "bold green")


def latest_table(rows: Iterable[Row], room: int, *, plain: bool) -> Table:
    """The newest first, as many as fit."""
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for _ in range(5):
        table.add_column(no_wrap=True, overflow="crop")
    newest = list(rows)[-room:][::-1]
    for row in newest:
        table.add_row(*_cells(row, ".." if plain else "…"))
    for _ in range(room - len(newest)):
        table.add_row("")
    return table


def _cells(row: Row, more: str) -> list[RenderableType]:
    style = {"rescued": "yellow", "last_answer": "bold red"}.get(row.outcome, "dim")
    return [
        Text(f"{row.call_id[:13]}{more}", style="dim"),
        Text(row.tool),
        Text(row.arm if row.arm != "none" else "nobody", style=STYLES.get(row.arm, "")),
        Text(f"{'say_pending' if row.pending else row.reason:14}", style=style),
        Text(f"{row.ms:5.0f} ms"),
    ]


def footer(frame: Frame) -> list[Text]:
    """Where it listens, and what else can be asked meanwhile."""
    lines = (
        f"Retell {frame.url}  admin {frame.admin}  Ctrl-C ends",
        "Another shell: " + "  ".join(hints(frame.command, frame.admin)),
    )
    return [Text(line, style="dim", no_wrap=True, overflow="crop") for line in lines]


def hints(command: str, admin: str) -> list[str]:
    """Commands to try from another shell."""
    where = "" if admin.endswith(":9901") else f" --admin {admin}"
    return [f"{command} status{where}", f"curl {admin}/metrics", f"{command} breaker status{where}"]
