from __future__ import annotations

import io
import re
from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from backends.demo import Mood
from proxy.cli.demo_calls import Heard
from proxy.cli.demo_story import ACTS
from proxy.cli.demo_view import Frame, Screen, breaker_text, hints, spread
from tests.cli.demo_kit import breaker, frame, row


def drawn(shown: Frame, width: int = 80, height: int = 24, **options: Any) -> list[str]:
    file = io.StringIO()
    console = Console(file=file, width=width, height=height, **options)
    console.print(Screen(shown), end="")
    return file.getvalue().removesuffix("\n").split("\n")


@pytest.mark.parametrize(("width", "height"), [(80, 24), (100, 30), (140, 50)])
@pytest.mark.parametrize("calls", [0, 3, 60])
def test_the_screen_is_filled_exactly(width: int, height: int, calls: int) -> None:
    shown = frame()
    shown.tally.rows.extend(row(number) for number in range(calls))
    lines = drawn(shown, width, height)

    assert len(lines) == height
    assert max(map(len, lines)) <= width
    assert "Ctrl-C ends" in lines[-2]
    assert "callsplit status" in lines[-1]


@pytest.mark.parametrize(("width", "height"), [(20, 5), (1, 1), (40, 200)])
def test_a_screen_of_any_size_can_be_drawn(width: int, height: int) -> None:
    assert drawn(frame(), width, height)


def test_the_screen_tells_everything_that_matters() -> None:
    shown = frame(heard=Heard(calls=201, live=16, requests=1234, unanswered=7))
    shown.tally.rescued["rescue_connect"] = 23
    text = "\n".join(drawn(shown, 100, 30))

    for fact in (
        "Act 1 of 6: 10 % of the calls go to MCP", "0:00 / 0:45", "50 %  in force, to mcp",
        "48 %  of 40 calls since the change", "mcp", "webhook", "123", "456", "40 ms", "50 ms",
        "201, 16 live", "1234", "100, 800 ms",
    ):  # fmt: skip
        assert fact in text
    assert re.search(r"rescued +23", text)
    assert re.search(r"unanswered +7", text)
    assert re.search(r"booked twice +0", text)
    assert re.search(r"changed arm +0", text)


def test_before_the_first_call_there_is_no_actual_share() -> None:
    shown = frame()
    shown.tally.share_is(75)

    assert "no call yet" in "\n".join(drawn(shown))


def test_without_an_end_no_end_is_shown() -> None:
    shown = frame()
    shown.story.seconds = 0

    assert drawn(shown)[0].endswith("until Ctrl-C")


def test_the_list_begins_with_the_newest_call() -> None:
    shown = frame()
    shown.tally.rows.extend([row(1), row(2, arm="webhook", reason="rescue_open")])
    shown.tally.rows.append(row(3, arm="none", outcome="last_answer", pending=True))
    lines = [line for line in drawn(shown) if line.startswith("call_")]

    assert [re.split(r" {2,}", line)[2:4] for line in lines] == [
        ["nobody", "say_pending"], ["webhook", "rescue_open"], ["mcp", "recorded"]
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (breaker(), "closed"),
        (breaker("open", reopens_in=2.14), "open, 2.1 s left"),
        (breaker("half_open"), "half open, probing"),
        (breaker("half_open", probed=True, successes=2), "half open, 2 of 3"),
        (breaker("forced_open"), "forced open"),
    ],
)
def test_breakers_speak_in_words(state: dict[str, Any], words: str) -> None:
    assert breaker_text(state).plain.strip() == words


@pytest.mark.parametrize("mood", list(Mood))
def test_a_broken_arm_is_named_so(mood: Mood) -> None:
    shown = frame(moods={"mcp": mood, "webhook": Mood.WELL})
    arm = next(line for line in drawn(shown) if line.startswith("mcp"))

    assert ("well" in arm) is (mood is Mood.WELL)


def test_the_acts_bar_grows_with_the_story() -> None:
    shown = frame()
    lengths = []
    for number, progress in ((1, 0.0), (1, 0.5), (3, 0.0), (6, 1.0)):
        shown.story.number, shown.story.act = number, ACTS[number - 1]
        shown.story.began, shown.story.ends = 100 - progress, 101 - progress
        lengths.append(drawn(shown)[1].count("━"))

    assert lengths == sorted(set(lengths))
    assert lengths[0] == 0
    assert lengths[-1] == 80 - (len(ACTS) - 1)


def test_without_colour_the_words_remain() -> None:
    options: dict[str, Any] = {"force_terminal": True, "color_system": "truecolor"}
    colours = re.compile(r"\x1b\[[0-9;]*3[0-9]")

    assert colours.search("".join(drawn(frame(), **options)))
    assert not colours.search("".join(drawn(frame(), no_color=True, **options)))


def test_a_terminal_that_knows_ascii_only_gets_nothing_else() -> None:
    shown = frame()
    shown.tally.rows.append(row())
    file = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    console = Console(file=file, width=80, height=24)
    console.print(Screen(shown))

    console.print(Screen(replace(shown, command="x" * 200)))


def test_hints_name_the_admin_only_where_it_is_not_the_usual_one() -> None:
    assert hints("callsplit", "http://127.0.0.1:9901")[0] == "callsplit status"
    assert (
        hints("callsplit", "http://127.0.0.1:4711")[0]
        == "callsplit status --admin http://127.0.0.1:4711"
    )


def test_without_samples_a_spread_is_a_dash() -> None:
    assert spread([]) == ("-", "-")
    assert spread([1.4, 2.6]) == ("1 ms", "3 ms")
