"""What do the rules read in an answer: that the arm failed, or that the business said no?

Some arms say so in their own words, `{"status": "error"}` with a 200.  `body_verdicts` of a backend
lists conditions on the JSON of its answers; the first that holds decides, before anything that
callsplit itself knows to read there.

Of a tool's MCP result the JSON is its structured content, or else its text if that is an object;
the result's own `isError` and `text` can be asked for beside it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from proxy.core.dotted import below
from proxy.core.matchers import Test, compile_answer_when
from proxy.core.model import Verdict


class Said:
    """An answer's JSON, as conditions see it."""

    __slots__ = ("_value",)

    def __init__(self, value: object) -> None:
        self._value = value

    def get(self, path: str, /) -> object:
        """The value at `path`; None if absent or null."""
        return below(self._value, path)


class BodyVerdicts:
    """The conditions of one backend, in their order, each with the verdict that it brings."""

    def __init__(self, conditions: Iterable[tuple[Mapping[str, Any], Verdict]]) -> None:
        self._tests: tuple[tuple[Test, Verdict], ...] = tuple(
            (compile_answer_when(when), verdict) for when, verdict in conditions
        )

    def of_body(self, body: bytes) -> Verdict | None:
        """The verdict on a whole body; None: these rules do not say."""
        value = read(body)
        return None if value is None else self._of(value)

    def of_result(self, text: str, structured: bytes, *, is_error: bool) -> Verdict | None:
        """The verdict on what a tool said over MCP; None: these rules do not say."""
        value = read(structured) if structured else read(text.encode("utf-8", "replace"))
        own: dict[str, Any] = value if isinstance(value, dict) else {}
        return self._of({"isError": is_error, "text": text, **own})

    def _of(self, value: object) -> Verdict | None:
        said = Said(value)
        return next((verdict for holds, verdict in self._tests if holds(said)), None)


def read(body: bytes) -> object:
    """What JSON says; None for null, and for what is no JSON."""
    try:
        return orjson.loads(body)
    except ValueError:
        return None
