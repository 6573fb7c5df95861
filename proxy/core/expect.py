"""Does a health page say that the arm is well?

Many answer 200 whatever they find, and tell the truth in the body.  `expect` maps dotted paths in
its JSON to a value, a list of values any of which will do, or a matcher; all must fit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proxy.core.body_verdicts import Said, read
from proxy.core.matchers import Test, answer_faults, compile_answer_when
from proxy.core.when import GROUPS

LIMIT = 262_144
"""The most bytes of a health page that are read."""


def as_when(expect: Mapping[str, Any]) -> dict[str, Any]:
    """The same as a `when`, where a list is one of the matcher `in`."""
    return {
        path: {"in": wanted} if isinstance(wanted, list | tuple) and path not in GROUPS else wanted
        for path, wanted in expect.items()
    }


def expect_faults(expect: Mapping[str, Any]) -> list[tuple[str, str]]:
    """All that is wrong with an `expect`: (dotted path below it, message); [] if it compiles."""
    return answer_faults(as_when(expect))


class Expected:
    """An `expect` that has no faults."""

    def __init__(self, expect: Mapping[str, Any]) -> None:
        self._tests: list[tuple[str, Test]] = [
            (path, compile_answer_when({path: wanted})) for path, wanted in as_when(expect).items()
        ]

    def misfit(self, body: bytes) -> str:
        """What does not fit, by its path in the rules; "" if all does.  Never what was found."""
        value = read(body)
        if value is None:
            return "the answer is no JSON"
        said = Said(value)
        unfit = (path for path, fits in self._tests if not fits(said))
        return next((f"{path} is not as expected" for path in unfit), "")
