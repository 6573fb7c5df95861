"""When may the other arm be asked as well, before the first has failed?

Only for what reads, only once the first arm is slower than it nearly always is (the "tail at
scale" hedge of Dean and Barroso, 2013, deferred to the 95th percentile), and never so late that the
second could not answer in time.
"""

from __future__ import annotations

from proxy.core.quantile import Quantile
from proxy.core.tool_table import Terms

SAMPLES = 50
"""Answers of an arm before anything is said about its 95th percentile."""

LEAST = 0.02
"""Seconds.  Below that the second request costs more than it can save."""


class Pace:
    """How long an arm takes for tools."""

    __slots__ = ("_quantile",)

    def __init__(self) -> None:
        self._quantile = Quantile(0.95)

    def heard(self, seconds: float) -> None:
        """Count an attempt that answered, or that was cut because the hedge was faster.

        Without those that were cut the percentile would sink with every hedge that helps.
        """
        self._quantile.add(seconds)

    def late_after(self) -> float | None:
        """The seconds after which an attempt is late; None: too little is known."""
        if self._quantile.count < SAMPLES:
            return None
        return max(LEAST, self._quantile.value())


def hedge_after(
    pace: Pace, terms: Terms, *, other_passes: bool, left: float, min_attempt: float
) -> float | None:
    """The seconds after which a second attempt may begin at the other arm; None: it may not.

    The other arm must be one that may rescue this request, and its breaker let every attempt pass
    (`other_passes`): what is optional tries no arm that is being tried.  `left` is what is left of
    the budget, of which the second attempt must find `min_attempt`.
    """
    if not terms.hedge or not other_passes:
        return None
    after = pace.late_after()
    return after if after is not None and after + min_attempt <= left else None
