"""What do the arms' MCP servers list?  One task per arm asks, at start and from time to time.

What was heard last stays, whatever becomes of the arm: through reloads, and in the state directory
through restarts.  Asking has no part in whether the arm counts as well; an arm whose breaker is
open is left alone, and asked as soon as it comes back.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from structlog.typing import FilteringBoundLogger

from backends.base import Send
from proxy.adapters.asking import GRACE, outcome
from proxy.adapters.catalogue_file import CatalogueFiles
from proxy.adapters.logs import stamp
from proxy.adapters.per_arm import Alarm, PerArm
from proxy.adapters.tasks import Tasks
from proxy.core.dialects.catalogue import Catalogue
from proxy.core.mcp.saved_catalogue import place_of
from proxy.core.model import Effect, Outbound, Reply
from proxy.core.tool_table import ToolTable
from proxy.ports import Arm, Clock

PATIENCE: Final = 10.0
"""Seconds in which a server must have listed everything, if its arm's timeout allows as many."""

FIRST_RETRY: Final = 1.0
"""Seconds; each further failure doubles them, up to the usual interval."""


@dataclass(frozen=True, slots=True)
class Source:
    """An arm whose backend can renew its catalogue, and does so every so many seconds."""

    arm: Arm
    refresh: Callable[[Send], Awaitable[None]]
    url: str
    every: float


class Renewer:
    """Keeps one arm's catalogue, and asks for it anew, never twice at a time.

    `changed` hears of every catalogue that is not the one before.
    """

    def __init__(
        self,
        source: Source,
        *,
        clock: Clock,
        log: FilteringBoundLogger,
        jitter: Callable[[], float],
        changed: Callable[[Renewer], Awaitable[None]],
    ) -> None:
        self.source = source
        self.catalogue: Catalogue | None = None
        self.heard_ms: int | None = None  # when this process heard it last
        self.fault = ""  # why the last try failed
        self._clock = clock
        self._log = log
        self._jitter = jitter
        self._changed = changed
        self._alarm = Alarm()
        self._failures = 0
        self._due = clock.now()

    def adopt(self, source: Source) -> None:
        """Go on under changed rules, and ask at once: a new backend knows nothing yet."""
        self.source = source
        self._due = self._clock.now()
        self._alarm.ring()

    def wake(self) -> None:
        """Look again whether the arm may be asked: its breaker has changed."""
        if self.fault:
            self._due = self._clock.now()
        self._alarm.ring()

    async def run(self) -> None:
        """Sleep, ask, keep; for ever."""
        while True:
            await self._rest()
            await self.look()

    async def look(self) -> None:
        """Ask, if it is time and the arm is asked at all."""
        source = self.source
        if self._clock.now() < self._due or not source.arm.breaker.is_asked:
            return
        why = await self._ask(source)
        if source is not self.source:
            return  # The rules have changed meanwhile: whom they name now is asked next.
        if why is None:
            self._due = self._clock.now() + FIRST_RETRY
        elif why:
            self._failed(why)
        else:
            await self._heard(source)

    async def _rest(self) -> None:
        """Until it is time or `wake`; while the arm is left alone, until `wake`."""
        asked = self.source.arm.breaker.is_asked
        await self._alarm.sleep(self._due - self._clock.now() if asked else None)

    async def _ask(self, source: Source) -> str | None:
        """Why it failed, "" if it did not; None: the question never got there."""
        arm = source.arm
        patience = min(arm.timeout, PATIENCE)
        deadline = self._clock.now() + patience

        async def send(outbound: Outbound, *, dispatches: bool = True) -> Reply:
            return await arm.upstream.send(outbound, [], deadline=deadline)

        def crashed(bug: Exception) -> None:
            self._log.error("catalogue_crashed", arm=arm.name, exc_info=bug)

        return await outcome(
            source.refresh(send),
            asyncio.timeout(patience + GRACE),
            crashed=crashed,
            otherwise="it lists nothing",
        )

    def _failed(self, why: str) -> None:
        """What was heard last stays.  Told once, not with every try."""
        if not self.fault:
            self._log.warning("catalogue_not_renewed", arm=self.source.arm.name, why=why)
        self.fault = why
        wait = min(self.source.every, FIRST_RETRY * 2.0 ** min(self._failures, 20))
        self._failures += 1
        self._due = self._clock.now() + wait * (0.5 + self._jitter() / 2)

    async def _heard(self, source: Source) -> None:
        if self.fault:
            self._log.info("catalogue_renewed", arm=source.arm.name)
        self.fault, self._failures = "", 0
        self.heard_ms = self._clock.wall_ms()
        self._due = self._clock.now() + source.every * (0.9 + self._jitter() / 5)
        heard: Catalogue | None = getattr(source.arm.backend, "catalogue", None)
        if heard is not None and heard != self.catalogue:
            self.catalogue = heard
            await self._changed(self)


class Catalogues:
    """The catalogues of all arms that speak MCP; a reload keeps those whose server stays."""

    def __init__(
        self,
        *,
        clock: Clock,
        log: FilteringBoundLogger,
        tasks: Tasks,
        files: CatalogueFiles,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._clock = clock
        self._log = log
        self._files = files
        self._jitter = jitter
        self._tools: ToolTable | None = None
        self._renewers: PerArm[Renewer] = PerArm(tasks, "catalogue")
        self._saving: set[asyncio.Future[None]] = set()

    def of(self, arm: str) -> Catalogue | None:
        """What the server of `arm` listed last; None if nothing is known of it."""
        renewer = self._renewers.get(arm)
        return renewer.catalogue if renewer is not None else None

    def use(self, sources: Iterable[Source], tools: ToolTable) -> None:
        """Ask these arms, and no others; `tools` hears what is known, and what comes."""
        self._tools = tools
        wanted = {source.arm.name: source for source in sources}
        for name, renewer in self._renewers:
            if name not in wanted or wanted[name].url != renewer.source.url:
                self._renewers.end(name)
        for name, source in wanted.items():
            known = self._renewers.get(name)
            if known is not None:
                known.adopt(source)
            self._learn(known or self._begin(source))

    def wake(self, arm: str) -> None:
        """Call it whenever the breaker of `arm` has changed."""
        self._renewers.wake(arm)

    def status(self, arm: str) -> dict[str, Any] | None:
        """What an operator may want to know of it; None: this arm lists nothing."""
        renewer = self._renewers.get(arm)
        if renewer is None:
            return None
        known = renewer.catalogue
        return {
            "tools": len(known.tools) if known is not None else None,
            "heard_at": stamp(renewer.heard_ms) if renewer.heard_ms is not None else None,
            "fault": renewer.fault or None,
        }

    async def aclose(self) -> None:
        """Stop asking; harmless a second time."""
        await self._renewers.aclose()
        if self._saving:
            await asyncio.wait(self._saving)

    def _begin(self, source: Source) -> Renewer:
        name = source.arm.name
        renewer = Renewer(
            source, clock=self._clock, log=self._log, jitter=self._jitter, changed=self._take
        )
        renewer.catalogue = self._files.load(name, place_of(source.url))
        self._renewers.begin(name, renewer)
        return renewer

    async def _take(self, renewer: Renewer) -> None:
        """A catalogue has come: from now on it decides, and it is kept for the next process."""
        self._learn(renewer)
        arm, known = renewer.source.arm.name, renewer.catalogue
        assert known is not None
        effects = [*known.effects.values()]
        self._log.info(
            "catalogue_changed", arm=arm, tools=len(effects), read_only=effects.count(Effect.READ)
        )
        saving = asyncio.get_running_loop().run_in_executor(
            None, self._files.save, arm, place_of(renewer.source.url), known
        )
        self._saving.add(saving)
        saving.add_done_callback(self._saving.discard)
        await asyncio.shield(saving)

    def _learn(self, renewer: Renewer) -> None:
        if self._tools is not None and renewer.catalogue is not None:
            self._tools.learn(renewer.source.arm.name, renewer.catalogue.effects)
