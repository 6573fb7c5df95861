"""How does a whole demo run, from the first call to the summary, on a terminal or without one?"""

from __future__ import annotations

import asyncio
import signal
from dataclasses import dataclass

from rich.console import Console
from rich.live import Live

from backends.demo import Mood
from proxy.adapters.tasks import Tasks
from proxy.cli.demo_calls import Callers
from proxy.cli.demo_stage import Stage, open_stage
from proxy.cli.demo_story import ACTS, CYCLE, Story
from proxy.cli.demo_view import Frame, Screen
from proxy.cli.demo_words import Ending, act_line, opening, tick_line

DRAW_EVERY = 0.2
SAY_EVERY = 1.0
"""Seconds between two drawings of the screen, or two plain lines."""

STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Plan:
    """What was asked for.  `seconds` 0: until Ctrl-C; ports as for `open_stage`."""

    seconds: float
    rate: float
    command: str = "callsplit"  # how it is called here
    listen: int | None = None
    admin: int | None = None

    @property
    def haste(self) -> float:
        """1 for the usual length; less for a short run, whose pauses must be shorter."""
        return min(1.0, (self.seconds or CYCLE) / CYCLE)


async def show(plan: Plan, console: Console) -> Ending:
    """Play the whole demo; raises `OSError` if the sidecar cannot listen."""
    async with open_stage(
        percent=ACTS[0].share or 0,
        open_for=3 * plan.haste,
        listen=plan.listen,
        admin=plan.admin,
    ) as stage:
        evening = Evening(plan, stage, console)
        await evening.run()
    return evening.ending


class Evening:
    """One performance: callers, story and picture, until the end or a signal."""

    def __init__(self, plan: Plan, stage: Stage, console: Console) -> None:
        clock = stage.app.clock
        self._plan = plan
        self._stage = stage
        self._console = console
        self._tasks = Tasks(self._crashed)
        self._callers = Callers(
            stage.url,
            stage.key,
            rate=plan.rate,
            pause=max(0.2, 0.9 * plan.haste),
            tasks=self._tasks,
            clock=clock,
        )
        self._story = Story(stage, self._callers, seconds=plan.seconds, now=clock.now)
        self._over = asyncio.Event()
        self._crash: BaseException | None = None
        self._elapsed = 0.0

    @property
    def ending(self) -> Ending:
        """What it came to."""
        return Ending(self._elapsed, self._stage.tally, self._stage.books, self._callers.heard)

    async def run(self) -> None:
        """Until the last act is over, or a signal comes, or nobody reads any more."""
        loop = asyncio.get_running_loop()
        for number in STOPS:
            loop.add_signal_handler(number, self._signalled)
        self._callers.start()
        try:
            self._tasks.start(self._play(), "demo story")
            self._tasks.start(self._picture(), "demo picture")
            await self._over.wait()
        finally:
            self._elapsed = self._story.elapsed
            self._stage.set_mood(Mood.WELL)  # whoever waits for a hung arm is answered now
            await self._callers.stop()
            await self._tasks.aclose()
        if self._crash is not None:
            raise self._crash

    async def _play(self) -> None:
        await self._story.play()
        self._over.set()

    def _crashed(self, _: str, error: BaseException) -> None:
        self._crash = self._crash or error
        self._over.set()

    def _signalled(self) -> None:
        """The first time: hang up and go home.  The second time: at once."""
        if self._over.is_set():
            self._callers.hurry()
            self._stage.app.hurry()
        self._over.set()

    async def _picture(self) -> None:
        """Draw on a terminal; elsewhere print plain lines."""
        if self._console.file.isatty() and not self._console.is_dumb_terminal:
            await self._draw()
        else:
            await self._say()

    async def _draw(self) -> None:
        with Live(console=self._console, screen=True, auto_refresh=False) as live:
            while True:
                live.update(Screen(self._frame()), refresh=True)
                await asyncio.sleep(DRAW_EVERY)

    async def _say(self) -> None:
        self._print(*opening(self._frame()))
        act, due = None, 0.0
        while True:
            if self._story.act is not act:
                act = self._story.act
                self._print(act_line(self._story))
            if self._story.elapsed >= due:
                due += SAY_EVERY
                self._print(tick_line(self._frame()))
            await asyncio.sleep(0.1)

    def _print(self, *lines: str) -> None:
        """Past rich, which would end the process if nobody reads."""
        self._console.file.writelines(f"{line}\n" for line in lines)
        self._console.file.flush()

    def _frame(self) -> Frame:
        stage = self._stage
        return Frame(
            status=stage.look(),
            story=self._story,
            tally=stage.tally,
            books=stage.books,
            heard=self._callers.heard,
            moods=stage.moods,
            url=stage.url,
            admin=stage.admin,
            command=self._plan.command,
        )
