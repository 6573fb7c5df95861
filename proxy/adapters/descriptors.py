"""How many files and sockets may this process have open?"""

from __future__ import annotations

import resource

PLENTY = 2**20
"""What an unlimited process is taken to have: nobody needs more."""


def descriptors() -> int:
    """The limit in force."""
    return _count(resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def raise_descriptors() -> int:
    """Lift the limit as far as this process may by itself, and return it.

    The low default (1024) is for programs that call select(2), which cannot take more.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _count(hard)
    if _count(soft) < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):
            pass  # Some systems promise more than they give.
    return descriptors()


def _count(limit: int) -> int:
    return PLENTY if limit == resource.RLIM_INFINITY else min(limit, PLENTY)
