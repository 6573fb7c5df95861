"""Which keys are read and checked, but do nothing yet?"""

from __future__ import annotations

from proxy.core.rules.model import Rules
from proxy.core.rules.walk import values

NOT_YET = frozenset(
    {
        "rollout",
        "state",
        "metrics.enabled",
    }
)
"""Paths of keys or of whole sections.  A feature that lands takes its line away."""

_HARMLESS = {"state": "memory"}
"""Values that already mean what they say."""


def not_in_force(rules: Rules) -> list[str]:
    """The keys that this file writes and that have no effect yet, by path, in order."""
    return sorted(
        path
        for path, value in values(rules, written=True)
        if path in NOT_YET and _HARMLESS.get(path, ...) != value
    )


def is_not_yet(path: str) -> bool:
    """Whether the key at this path, or the section around it, has no effect yet."""
    parts = path.split(".")
    return any(".".join(parts[:count]) in NOT_YET for count in range(1, len(parts) + 1))
