from __future__ import annotations

import asyncio
import io
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from proxy.cli.demo_calls import Callers
from proxy.cli.demo_show import Plan, show
from proxy.cli.demo_words import Ending


class Terminal(io.StringIO):
    """A terminal as far as anybody asks."""

    def isatty(self) -> bool:
        return True


class Gone(io.StringIO):
    """A pipe whose reader goes away after a few lines."""

    def writelines(self, lines: object) -> None:
        super().writelines(lines)  # type: ignore[arg-type]
        if "Act 1" in self.getvalue():
            raise BrokenPipeError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders are made: it must be empty afterwards."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def plan(seconds: float, rate: float = 6) -> Plan:
    return Plan(seconds, rate, listen=0, admin=0)


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not holds():
            await asyncio.sleep(0.01)


async def interrupted(console: Console, out: io.StringIO, times: int = 1) -> Ending:
    """Play without an end until somebody presses Ctrl-C, `times` times."""
    playing = asyncio.ensure_future(show(plan(0), console))
    await until(lambda: "Act 1" in out.getvalue())
    for _ in range(times):
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(0.05)
    async with asyncio.timeout(20):
        return await playing


async def test_an_interrupt_ends_it_in_good_order(folder: Path) -> None:
    out = io.StringIO()
    ending = await interrupted(Console(file=out), out)

    assert ending.faults == []
    assert ending.heard.calls > 0
    assert ending.heard.live == 0
    assert list(folder.iterdir()) == []


async def test_who_interrupts_twice_is_in_a_hurry(folder: Path) -> None:
    out = io.StringIO()
    ending = await interrupted(Console(file=out), out, times=2)

    assert ending.heard.live == 0
    assert list(folder.iterdir()) == []


async def test_a_terminal_gets_a_screen_of_its_own_and_its_old_one_back() -> None:
    out = Terminal()
    console = Console(
        file=out, force_terminal=True, width=80, height=24, _environ={"TERM": "xterm"}
    )
    await interrupted(console, out)

    screen = out.getvalue()
    assert screen.count("\x1b[?1049h") == screen.count("\x1b[?1049l") == 1
    assert screen.rindex("\x1b[?25h") > screen.rindex("\x1b[?25l")


async def test_a_dumb_terminal_gets_plain_lines() -> None:
    out = Terminal()
    await interrupted(Console(file=out, _environ={"TERM": "dumb"}), out)

    assert "\x1b" not in out.getvalue()


async def test_it_ends_when_nobody_reads_any_more(folder: Path) -> None:
    with pytest.raises(BrokenPipeError):
        await show(plan(0), Console(file=Gone()))

    assert list(folder.iterdir()) == []


async def test_a_bug_in_a_call_is_not_swallowed(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(self: Callers, number: int) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Callers, "_call", broken)
    with pytest.raises(ZeroDivisionError):
        await show(plan(0), Console(file=io.StringIO()))

    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(("seconds", "haste"), [(0, 1), (45, 1), (900, 1), (9, 0.2)])
def test_a_short_run_is_played_faster(seconds: float, haste: float) -> None:
    assert plan(seconds).haste == haste
