"""Which certificates are in force, for how long, and when do new ones take their place?

The files are looked at twice a second; a pair that cannot be used leaves the old one in force, and
everybody can see it.  Connections that stand are not touched.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from structlog.typing import FilteringBoundLogger

from proxy.adapters.listener import OUTCOMES
from proxy.adapters.logs import stamp
from proxy.adapters.tallies import Labels
from proxy.adapters.tls_files import Material, load, signs
from proxy.core.rules import Rules
from proxy.core.rules.fault_text import described
from proxy.core.rules.tls_ends import LISTENER, TlsEnd, tls_ends
from proxy.errors import Fault, RulesError
from proxy.ports import Clock

LOOK_EVERY: Final = 0.5
"""Seconds.  A change is acted on once two looks in a row have seen the same."""

PATIENCE: Final = 120
"""Looks between two tries of files that cannot be used, at the most; the first is the next look."""

SOON: Final = 14
"""Days before its end from which a certificate is warned of."""

_DAY: Final = 86_400


class Side:
    """One end of TLS: what its next connection is made with."""

    __slots__ = ("_acted_on", "_patience", "_seen", "_wait", "end", "fault", "material", "taken_ms")

    def __init__(self, end: TlsEnd, taken_ms: int) -> None:
        self.end = end
        self.fault: str | None = None  # why the newest files are not in force
        self.taken_ms = taken_ms
        self._patience = self._wait = 1  # looks, while there is a fault
        self._acted_on = self._seen = signs(end)  # before they are read: a change shows later
        self.material: Material = load(end)

    @property
    def context(self) -> ssl.SSLContext:
        """The one in force."""
        return self.material.context

    @property
    def ends(self) -> int | None:
        """When the first of our own chain expires, in seconds since 1970; None: we show none."""
        return min((each.ends for each in self.material.chain), default=None)

    def has_changed(self, now: tuple[object, ...]) -> bool:
        """Whether its files are others than those that were acted on, and stand still.

        After a fault the same ones count again after a while: it need not be theirs.
        """
        stands, self._seen = now == self._seen, now
        if not stands:
            return False
        if now == self._acted_on:
            return self.fault is not None and self._tries_again()
        self._acted_on = now
        self._patience = self._wait = 1
        return True

    def _tries_again(self) -> bool:
        self._wait -= 1
        if self._wait > 0:
            return False
        self._patience = self._wait = min(2 * self._patience, PATIENCE)
        return True

    def warning(self, now_ms: int) -> str:
        """What an operator should do something about; "" for nothing."""
        now, place = now_ms // 1000, f"{self.end.place}.cert_file: {self.end.cert_file}"
        begins = max((each.begins for each in self.material.chain), default=0)
        if begins > now:
            return f"{place} is not valid before {_day(begins)}"
        if self.ends is None or self.ends - now > SOON * _DAY:
            return ""
        days = (self.ends - now) // _DAY
        if self.ends <= now:
            return f"{place} expired on {_day(self.ends)}, {-days} days ago: callers refuse it"
        return f"{place} expires on {_day(self.ends)}, in {days} days"


class Certificates:
    """The sides of all ends by their place in the rules.

    `renewed` hears of each end whose files have changed, by its place.
    """

    def __init__(self, *, clock: Clock, log: FilteringBoundLogger) -> None:
        self.renewed: Callable[[str], None] = lambda _: None
        self._clock = clock
        self._log = log
        self._sides: Mapping[str, Side] = {}
        self._handshakes = dict.fromkeys(OUTCOMES, 0)
        self._told: dict[str, str] = {}

    def prepare(self, rules: Rules) -> Mapping[str, Side]:
        """What these rules need; changes nothing.  Raises `RulesError`.

        What is in force already stays, whatever has become of its files: the share must not
        depend on them.
        """
        sides: dict[str, Side] = {}
        faults = []
        for end in tls_ends(rules):
            known = self._sides.get(end.place)
            if known is not None and known.end == end:
                sides[end.place] = known
                continue
            try:
                sides[end.place] = Side(end, self._clock.wall_ms())
            except RulesError as error:
                faults += error.faults
        if faults:
            raise RulesError(faults)
        return sides

    def commit(self, sides: Mapping[str, Side]) -> None:
        """Put them into force."""
        before, self._sides = self._sides, sides
        for place, side in sides.items():
            if before.get(place) is not side:
                self._tell_of(side)
        self._remind()

    @property
    def of_callers(self) -> ssl.SSLContext | None:
        """What the next caller is met with; None: no TLS."""
        side = self._sides.get(LISTENER)
        return side.context if side is not None else None

    def shaken(self, outcome: str) -> None:
        """A handshake with a caller has ended."""
        self._handshakes[outcome] += 1

    async def watch(self) -> None:
        """Keep in step with the files; runs until it is cancelled."""
        told = ""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            try:
                await self.look()
                told = ""
            except Exception as error:  # Nothing may end the watch.
                if told != repr(error):
                    self._log.error("certificates_not_watched", exc_info=error)
                told = repr(error)

    async def look(self) -> None:
        """Look at the files once, and take those that have changed and stand still."""
        sides = list(self._sides.values())
        if not sides:
            return
        now = await asyncio.to_thread(lambda: [signs(side.end) for side in sides])
        for side, found in zip(sides, now, strict=True):
            if side.has_changed(found):
                await self._renew(side)
        self._remind()

    async def _renew(self, side: Side) -> None:
        try:
            material = await asyncio.to_thread(load, side.end)
        except Exception as error:  # Also a bug: it shows where the files' own faults do.
            faults, before = _reasons(error), side.fault
            side.fault = "; ".join(faults)
            if side.fault != before:
                self._log.error("certificate_refused", key=side.end.place, faults=faults)
            return
        same = material.digest == side.material.digest
        if same and side.fault is None:
            return  # Touched, or written anew as it was.
        side.fault, side.taken_ms = None, self._clock.wall_ms()
        if not same:
            side.material = material
            if self._sides.get(side.end.place) is side:
                self.renewed(side.end.place)
        self._tell_of(side)

    # -- What is shown.

    def warnings(self) -> list[str]:
        """What is about to expire, or has."""
        return [warning for _, warning in self._warnings()]

    def page(self) -> list[dict[str, Any]]:
        """Each end on one line."""
        return [self._line(side) for side in self._sides.values()]

    def expiries(self) -> Mapping[Labels, float]:
        """By place, seconds since 1970."""
        return {
            (place,): float(side.ends)
            for place, side in self._sides.items()
            if side.ends is not None
        }

    def successes(self) -> Mapping[Labels, float]:
        """By place, whether the newest files are in force."""
        return {(place,): float(side.fault is None) for place, side in self._sides.items()}

    def handshakes(self) -> Mapping[Labels, float]:
        """With callers, by how they ended."""
        return {(outcome,): float(count) for outcome, count in self._handshakes.items()}

    def _line(self, side: Side) -> dict[str, Any]:
        chain, ends = side.material.chain, side.ends
        left = None if ends is None else (ends - self._clock.wall_ms() // 1000) // _DAY
        return {
            "key": side.end.place,
            "files": list(side.end.files),
            "taken_at": stamp(side.taken_ms),
            "expires_at": stamp(ends * 1000) if ends is not None else None,
            "days_left": left,
            "fingerprint": chain[0].fingerprint if chain else None,
            "fault": side.fault,
        }

    def _warnings(self) -> Iterator[tuple[str, str]]:
        now_ms = self._clock.wall_ms()
        for place, side in self._sides.items():
            if warning := side.warning(now_ms):
                yield place, warning

    def _remind(self) -> None:
        """Say so once a day: the words change with the days that are left."""
        told = dict(self._warnings())
        for place, warning in told.items():
            if self._told.get(place) != warning:
                self._log.warning("certificate_expires_soon", key=place, message=warning)
        self._told = told

    def _tell_of(self, side: Side) -> None:
        line = self._line(side)
        shown = {name: line[name] for name in ("key", "expires_at", "fingerprint")}
        self._log.info("certificate_taken", **shown)


def examine(rules: Rules, now_ms: int) -> tuple[list[Fault], list[str]]:
    """All that is wrong with the files that rules name, and what is worth a look."""
    faults, warnings = [], []
    for end in tls_ends(rules):
        try:
            side = Side(end, now_ms)
        except RulesError as error:
            faults += error.faults
        else:
            warnings.append(side.warning(now_ms))
    return faults, [warning for warning in warnings if warning]


def _reasons(error: Exception) -> list[str]:
    if isinstance(error, RulesError):
        return [described(fault) for fault in error.faults]
    return [f"{type(error).__name__}: {error}"]


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()
