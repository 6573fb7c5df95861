"""How old are the secrets in force?  Told on a page, as a figure, and once a day in the log."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any

from structlog.typing import FilteringBoundLogger

from proxy.core.rules import Rules
from proxy.core.rules.secret_care import Dated, Length, age_warnings, dated, length_warnings
from proxy.ports import Clock

DAY = 86_400.0


class Ageing:
    """Looks at the rules in force; `length` tells how long a secret is."""

    def __init__(self, *, clock: Clock, log: FilteringBoundLogger, length: Length) -> None:
        self._clock = clock
        self._log = log
        self._length = length
        self._rules: Rules | None = None
        self._dated: list[Dated] = []
        self._short: list[str] = []

    def use(self, rules: Rules) -> list[str]:
        """These are in force now; what an operator should look at."""
        self._rules, self._dated = rules, dated(rules)
        self._short = length_warnings(rules, self._length)
        return self.warnings()

    def warnings(self) -> list[str]:
        """What an operator should look at today."""
        old = age_warnings(self._rules, self._today()) if self._rules is not None else []
        return [*old, *self._short]

    def page(self) -> list[dict[str, Any]]:
        """Every secret whose age is known."""
        today = self._today()
        return [
            {
                "key": secret.path,
                "ref": secret.ref,
                "since": str(secret.since),
                "age_days": secret.days(today),
            }
            for secret in self._dated
        ]

    def since(self) -> Mapping[tuple[str, ...], float]:
        """By key, when each came into use, in seconds since 1970."""
        return {(secret.path,): _midnight(secret.since) for secret in self._dated}

    async def remind(self, every: float = DAY) -> None:
        """Say so again once a day; runs until cancelled."""
        while True:
            await asyncio.sleep(every)
            for warning in self.warnings():
                self._log.warning("rules_warned", message=warning)

    def _today(self) -> date:
        return datetime.fromtimestamp(self._clock.wall_ms() / 1000, UTC).date()


def _midnight(day: date) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()
