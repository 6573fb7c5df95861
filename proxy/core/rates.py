"""Do too many of the latest attempts fail, or take too long?"""

from __future__ import annotations

import math

from proxy.core.breaker_values import BreakerConfig, Figures, Why
from proxy.core.window import Window


class Rates:
    """The rules about rates of one breaker, and the window that they look at."""

    def __init__(self, config: BreakerConfig) -> None:
        self._config = config
        self._slow = math.inf if config.slow is None else config.slow
        self._window = Window(config.window)

    @classmethod
    def of(cls, config: BreakerConfig, before: Rates | None = None) -> Rates | None:
        """What these rules need: None if none asks; `before` if what it counts is still asked."""
        if not config.rated:
            return None
        if before is None or not before._counts_for(config):
            return cls(config)
        before._config = config
        return before

    def hear(self, now: float, seconds: float, failed: bool) -> Why | None:
        """Count an attempt; the rule that it breaks.  Only what is bad can break one."""
        slow = seconds > self._slow
        if not (failed or slow):
            self._window.count(now)
            return None
        self._window.count_bad(now, failed=failed, slow=slow)
        return self._broken(now, failed=failed, slow=slow)

    def clear(self) -> None:
        """Begin anew."""
        self._window = Window(self._config.window)

    def figures(self, now: float) -> Figures:
        """As it stands now."""
        config, totals = self._config, self._window.totals(now)
        share = 100 / totals.volume if totals.volume else 0.0
        return Figures(
            totals.volume,
            None if config.failure_rate is None else totals.failed * share,
            None if config.slow is None else totals.slow * share,
        )

    def _broken(self, now: float, *, failed: bool, slow: bool) -> Why | None:
        config, totals = self._config, self._window.totals(now)
        if totals.volume < config.min_volume:
            return None
        limit = config.failure_rate
        if failed and limit is not None and totals.failed * 100 >= limit * totals.volume:
            return "failure_rate"
        if slow and totals.slow * 100 >= config.slow_rate * totals.volume:
            return "slow_rate"
        return None

    def _counts_for(self, config: BreakerConfig) -> bool:
        return (config.window, config.slow) == (self._config.window, self._config.slow)
