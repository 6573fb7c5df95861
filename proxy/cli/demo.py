"""`callsplit demo`: split live demo calls, break an arm, watch the rescue; nothing to set up."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from proxy.cli.output import FINE, PROBLEM, fail

if TYPE_CHECKING:
    from proxy.cli.demo_show import Plan
    from proxy.cli.demo_words import Ending

SHORTEST = 8.0
"""Seconds that the acts need at least."""


def demo(
    seconds: Annotated[
        float, typer.Option(min=0, help="How long, 8 at least; 0: until Ctrl-C.")
    ] = 45.0,
    rate: Annotated[
        float, typer.Option(min=0.5, max=50, help="Calls that begin per second.")
    ] = 4.0,
) -> None:
    """Split live demo calls, break an arm, watch the rescue.

    Runs a sidecar on two demo arms and calls it as Retell does.  Exit 1 if a caller was not
    answered or a booking ran twice.
    """
    if 0 < seconds < SHORTEST:
        raise typer.BadParameter(f"the acts need {SHORTEST:g} s at least", param_hint="--seconds")
    from proxy.cli.demo_show import Plan

    try:
        code = play(Plan(seconds, rate, command=called_as(sys.argv[0])))
    except BrokenPipeError:  # nobody reads any more, as behind `| head`
        _mute()
        code = PROBLEM
    raise typer.Exit(code)


def play(plan: Plan) -> int:
    """Play it and print the summary; the exit code."""
    import asyncio

    import uvloop
    from rich.console import Console

    from proxy.cli.demo_show import show

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            ending = runner.run(show(plan, Console()))
    except BrokenPipeError:
        raise
    except OSError as error:
        fail(f"the demo cannot run here: {error.strerror or error}")
    return conclude(ending, plan.command)


def conclude(ending: Ending, command: str) -> int:
    """Print the summary; the exit code."""
    for line in ending.lines(command):
        typer.echo(line)
    return PROBLEM if ending.faults else FINE


def called_as(program: str) -> str:
    """How callsplit is called here, for hints that can be pasted."""
    import shutil
    from pathlib import Path

    path = Path(program)
    if path.name == "__main__.py":
        return "python -m proxy"
    found = shutil.which(path.name)
    return path.name if found and Path(found).resolve() == path.resolve() else program


def _mute() -> None:
    """Let the interpreter's last flush go nowhere."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
