"""Who does the harm: kills, freezes, sicknesses and restarts, by lot, from one seed."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable

from tests.chaos.children import BackendChild, SidecarChild
from tests.chaos.phone import Outages

PAUSES = 0.3, 2.0
"""Seconds between the end of one harm and the next, from and to."""

Say = Callable[[str], None]


class Monkey:
    """`kills`: the sidecar is killed with -9 instead of being restarted as it should."""

    def __init__(
        self,
        backends: tuple[BackendChild, BackendChild],
        sidecar: SidecarChild,
        outages: Outages,
        pick: random.Random,
        say: Say,
        *,
        kills: bool,
    ) -> None:
        self.done: Counter[str] = Counter()
        self.killed_at: list[float] = []  # the sidecar, on the monotonic clock
        self._backends, self._sidecar, self._outages = backends, sidecar, outages
        self._pick, self._say, self._kills = pick, say, kills

    async def rage(self, seconds: float, spare_sidecar_after: float) -> None:
        """Do harm for so long; the sidecar lives through the last part, that leaks may show."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        while (spent := loop.time() - began) < seconds:
            await self._harm(may_restart=spent < spare_sidecar_after)
            await asyncio.sleep(self._pick.uniform(*PAUSES))

    async def _harm(self, *, may_restart: bool) -> None:
        if self._pick.random() < 0.2 and may_restart:
            await (self._kill_sidecar() if self._kills else self._restart_sidecar())
            return
        both = self._pick.random() < 0.2
        chosen = list(self._backends) if both else [self._pick.choice(self._backends)]
        harm = self._pick.choice((self._kill, self._freeze, self._sicken, self._restart))
        lasts = self._pick.choice((0.2, 0.8, 1.5, 4.0))
        names = " and ".join(one.name for one in chosen)
        self._say(f"{harm.__name__.strip('_')} {names} for {lasts} s")
        await asyncio.gather(*[harm(one, lasts) for one in chosen])

    async def _kill(self, backend: BackendChild, lasts: float) -> None:
        self.done["backend killed"] += 1
        await backend.kill()
        await asyncio.sleep(lasts)
        await backend.start()
        await backend.up()

    async def _freeze(self, backend: BackendChild, lasts: float) -> None:
        self.done["backend frozen"] += 1
        backend.freeze()
        await asyncio.sleep(lasts)
        backend.thaw()

    async def _sicken(self, backend: BackendChild, lasts: float) -> None:
        self.done["backend sick"] += 1
        backend.fall_sick()
        await asyncio.sleep(lasts)

    async def _restart(self, backend: BackendChild, _: float) -> None:
        self.done["backend restarted"] += 1
        await backend.stop()
        await backend.start()
        await backend.up()

    async def _restart_sidecar(self) -> None:
        self.done["sidecar restarted"] += 1
        self._say("restart the sidecar")
        self._outages.begin(asyncio.get_running_loop().time())
        await self._sidecar.stop()
        self._sidecar.exits.append(await self._sidecar.ended())
        await self._sidecar_returns()

    async def _kill_sidecar(self) -> None:
        self.done["sidecar killed"] += 1
        self._say("kill -9 the sidecar")
        now = asyncio.get_running_loop().time()
        self._outages.begin(now)
        self.killed_at.append(now)
        await self._sidecar.kill()
        await self._sidecar_returns()

    async def _sidecar_returns(self) -> None:
        await self._sidecar.start()
        await self._sidecar.up()
        self._outages.end(asyncio.get_running_loop().time())
