"""Which keys are read and checked, but do nothing yet?"""

from __future__ import annotations

from proxy.core.rules.model import Rules
from proxy.core.rules.walk import values

NOT_YET = frozenset(
    {
        "tools.*.description",
        "tools.*.input_schema",
        "tools.*.annotations",
        "rollout",
        "state",
        "metrics.enabled",
    }
)
"""Patterns; `*` stands for a name.  A feature that lands takes its line away."""

_HARMLESS = {"state": "memory"}
"""Values that already mean what they say."""


def not_in_force(rules: Rules) -> list[str]:
    """The keys that this file writes and that have no effect yet, by path, in order."""
    return sorted(
        path
        for path, value in values(rules, written=True)
        if _is_listed(path) and _HARMLESS.get(path, ...) != value
    )


def is_not_yet(path: str) -> bool:
    """Whether the key at this path, or the section around it, has no effect yet."""
    parts = path.split(".")
    return any(_is_listed(".".join(parts[:count])) for count in range(1, len(parts) + 1))


def _is_listed(path: str) -> bool:
    return any(_fits(path.split("."), pattern.split(".")) for pattern in NOT_YET)


def _fits(parts: list[str], pattern: list[str]) -> bool:
    """`*` stands for a name, which may hold dots: so both ends are compared."""
    if "*" not in pattern:
        return parts == pattern
    star = pattern.index("*")
    head, tail = pattern[:star], pattern[star + 1 :]
    long_enough = len(parts) >= len(pattern)
    return long_enough and parts[:star] == head and parts[-len(tail) :] == tail
