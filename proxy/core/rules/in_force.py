"""Which keys are read and checked, but do nothing yet?"""

from __future__ import annotations

from proxy.core.rules.model import Rules
from proxy.core.rules.walk import values

NOT_YET = frozenset(
    {
        "backends.*.breaker.open_max",
        "backends.*.breaker.window",
        "backends.*.breaker.min_volume",
        "backends.*.breaker.failure_rate",
        "backends.*.breaker.slow",
        "backends.*.breaker.slow_rate",
        "tools.*.say_done",
        "tools.*.cache",
        "tools.*.cache_key",
        "tools.*.replay_for",
        "tools.*.invalidates",
        "tools.*.description",
        "tools.*.input_schema",
        "tools.*.annotations",
        "rollout.*",
        "state",
        "state_dir",
        "metrics.enabled",
    }
)
"""Patterns; `*` stands for one part of a path.  A feature that lands takes its line away."""

_HARMLESS = {"state": "memory"}
"""Values that already mean what they say."""


def not_in_force(rules: Rules) -> list[str]:
    """The keys that this file writes and that have no effect yet, by path, in order."""
    found = {
        path: value
        for path, value in values(rules, written=True)
        if _is_not_yet(path) and _HARMLESS.get(path, ...) != value
    }
    return sorted(found)


def _is_not_yet(path: str) -> bool:
    return any(_fits(path, pattern) for pattern in NOT_YET)


def _fits(path: str, pattern: str) -> bool:
    parts, wanted = path.split("."), pattern.split(".")
    # Names may hold dots, so parts of a path are counted from both ends.
    if "*" not in wanted:
        return parts == wanted
    star = wanted.index("*")
    tail = wanted[star + 1 :]
    if len(parts) < len(wanted) or parts[:star] != wanted[:star]:
        return False
    if not tail:
        return len(parts) == len(wanted)
    return parts[-len(tail) :] == tail
