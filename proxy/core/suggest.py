"""Which known name did the writer mean?"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_ALIKE = 0.6  # difflib's own default: one or two slips in a word of usual length


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name most like `name`, whatever its case; None if none is like it."""
    by_fold = {candidate.casefold(): candidate for candidate in known}
    found = difflib.get_close_matches(name.casefold()[:80], by_fold, n=1, cutoff=_ALIKE)
    return by_fold[found[0]] if found else None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A hint for an unknown name; "" if nothing is like it."""
    guess = nearest(name, known)
    return f"did you mean '{guess}'?" if guess else ""
