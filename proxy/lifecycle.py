"""How does the process live?  It starts, heeds signals, lets another follow, drains and ends.

SIGTERM and SIGINT drain, a second one is in a hurry.  SIGHUP reloads.  SIGUSR2 starts a process
that follows this one; if that fails, this one serves on and says why.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping, Sequence

from structlog.typing import FilteringBoundLogger

from proxy.adapters.spawn import Spawned
from proxy.adapters.supervisor import Supervisor
from proxy.app import App
from proxy.core.rules import Address
from proxy.handover import Refusal
from proxy.inherited import PREDECESSOR

ENDS = (signal.SIGTERM, signal.SIGINT)


class Lifecycle:
    """One `App` from its start to its end, on a running loop.

    `command` and `environment` start another process like this one.
    """

    def __init__(
        self,
        app: App,
        supervisor: Supervisor,
        log: FilteringBoundLogger,
        *,
        command: Sequence[str],
        environment: Mapping[str, str],
    ) -> None:
        self._app = app
        self._supervisor = supervisor
        self._log = log
        self._command = command
        self._environment = environment
        self._stop = asyncio.Event()
        self._told_to_end = False
        self._serving = False
        self._restarting = asyncio.Lock()
        self._spawned: Spawned | None = None  # it gets ready to follow

    async def start(self) -> None:
        """Serve; raises what `App.start` does."""
        loop, start = asyncio.get_running_loop(), self._app.tasks.start
        for number in ENDS:
            loop.add_signal_handler(number, self._end)
        loop.add_signal_handler(signal.SIGHUP, lambda: start(self._reload(), "rules reload"))
        loop.add_signal_handler(signal.SIGUSR2, lambda: start(self.restart(), "restart"))
        await self._app.start()
        self._serving = True
        self._supervisor.ready(self._status())

    async def end(self) -> None:
        """Wait until it is time to end, and drain."""
        start = self._app.tasks.start
        followed = start(self._app.handover.followed.wait(), "until another follows")
        told = start(self._stop.wait(), "until the end")
        await asyncio.wait({followed, told}, return_when=asyncio.FIRST_COMPLETED)
        if followed.done():
            async with self._restarting:
                pass  # The supervisor has yet to hear of it.
        else:
            self._supervisor.stopping("draining")
            if self._spawned is not None:  # Who ends this one did not mean that another begins.
                await asyncio.to_thread(self._spawned.end)
        followed.cancel()
        told.cancel()
        await self._app.drain()

    async def restart(self) -> bool:
        """Start a process that follows this one; whether it does."""
        if not self._serving or self._restarting.locked() or self._stop.is_set():
            self._log.warning("restart_refused", why="it starts, restarts or ends already")
            return False
        if os.getpid() == 1:
            self._log.error(
                "restart_refused",
                why="process 1 takes its container with it: replace the container",
            )
            return False
        async with self._restarting:
            return await self._restart()

    async def _restart(self) -> bool:
        self._log.info("restart_began")
        try:
            spawned = await asyncio.to_thread(
                Spawned.start, self._command, self._environment, variable=PREDECESSOR
            )
        except OSError as error:
            return self._failed(error.strerror or str(error))
        self._spawned = spawned
        try:
            pid = await self._app.handover.offer(spawned.line, own=True)
        except Refusal as refusal:
            code = await asyncio.to_thread(spawned.end)
            return self._failed(str(refusal), pid=spawned.pid, exit_code=code)
        finally:
            self._spawned = None
        spawned.let_go()
        self._supervisor.followed_by(pid, self._status())
        return True

    def _failed(self, why: str, **more: object) -> bool:
        self._app.condition.restart_failed = why
        self._app.metrics.restarts_failed[()] += 1
        self._log.error("restart_failed", why=why, **more)
        return False

    async def _reload(self) -> None:
        if not self._serving:
            return  # It has just read them, and is not ready.
        self._supervisor.reloading()
        await self._app.reload()
        fault = self._app.condition.fault
        self._supervisor.ready(f"old rules in force: {fault}" if fault else self._status())

    def _end(self) -> None:
        """Whoever asks twice is in a hurry; that another process has followed is no asking."""
        if self._told_to_end:
            self._app.hurry()
        self._told_to_end = True
        self._app.handover.call_off()
        self._stop.set()

    def _status(self) -> str:
        return f"serving on {Address(*self._app.listener.address)}"
