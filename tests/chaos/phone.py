"""How Retell reaches the sidecar: kept connections, patience, another try where it broke off."""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from tests.functional.wire import Answer, Client, request

PATIENCE = 10.0
"""Seconds for an answer: what Retell gives an event or an inbound call."""

ALL_IN_ALL = 30.0
"""Seconds for an answer with every reconnect."""

KEPT = 3.0
"""Seconds that an idle connection is used again."""

PAUSE = 0.1


@dataclass
class Outages:
    """When the sidecar was sent away, and when it was back; only then may connections break."""

    since: float | None = None
    spans: list[tuple[float, float]] = field(default_factory=list)

    def begin(self, now: float) -> None:
        """It is told to go, or killed."""
        self.since = now

    def end(self, now: float) -> None:
        """It serves again."""
        assert self.since is not None
        self.spans.append((self.since, now))
        self.since = None

    def cover(self, began: float, ended: float) -> bool:
        """Whether an attempt fell into one, were it only in part."""
        if self.since is not None and ended >= self.since:
            return True
        return any(began <= end + PAUSE and ended >= start for start, end in self.spans)


class Phone:
    """Asks, and asks anew where a restart came between; keeps count of all that."""

    def __init__(self, port: int, outages: Outages) -> None:
        self.counts: Counter[str] = Counter()
        self.broken_off: list[str] = []  # outside of any outage: nobody may be treated so
        self._port = port
        self._outages = outages
        self._idle: list[tuple[float, Client]] = []

    async def ask(self, what: str, target: str, body: bytes) -> Answer | None:
        """The answer; None: there was none, whatever was tried.  `what` is for the report."""
        loop = asyncio.get_running_loop()
        gives_up, raw = loop.time() + ALL_IN_ALL, request("POST", target, body)
        while loop.time() < gives_up:
            began = loop.time()
            self.counts["attempts"] += 1
            try:
                return await self._once(raw)
            except TimeoutError:
                self.broken_off.append(f"{what}: no answer in {PATIENCE:.0f} s")
                return None
            except (OSError, asyncio.IncompleteReadError) as error:
                refused = isinstance(error, ConnectionRefusedError)
                self.counts["refused" if refused else "cut"] += 1
                if not self._outages.cover(began, loop.time()):
                    self.broken_off.append(f"{what}: {type(error).__name__}, with nobody away")
            await asyncio.sleep(PAUSE)
        self.broken_off.append(f"{what}: no answer over all reconnects")
        return None

    async def _once(self, raw: bytes) -> Answer:
        async with asyncio.timeout(PATIENCE):
            client = self._kept() or await Client.connect(self._port)
            try:
                answer = await client.ask(raw)
            except BaseException:
                client.abort()
                raise
        if client.usable:
            self._idle.append((asyncio.get_running_loop().time(), client))
        else:
            await client.close()
        return answer

    def _kept(self) -> Client | None:
        now = asyncio.get_running_loop().time()
        while self._idle:
            since, client = self._idle.pop()
            if now - since < KEPT:
                return client
            client.abort()
        return None

    def hang_up(self) -> None:
        """Close what is kept."""
        for _, client in self._idle:
            client.abort()
        self._idle.clear()
