"""What did a call look like when it was decided?

Later requests of a call may carry other fields, or none.  Where a live call is judged again, it
is judged by the fields of its first decision.
"""

from __future__ import annotations

from proxy.core.matchers import Fields
from proxy.core.patterns import MAX_SUBJECT

SOMETHING: tuple[object, ...] = ()
"""Stands for a value too large to keep: it exists, and equals nothing."""


class NoFields:
    """A request that nobody looks into."""

    def get(self, _path: str, /) -> object:
        """None: absent."""
        return None


NO_FIELDS = NoFields()


class Thawed:
    """Frozen fields first; what the first request did not carry, from the one at hand."""

    def __init__(self, paths: tuple[str, ...], frozen: tuple[object, ...], fields: Fields) -> None:
        self._frozen = dict(zip(paths, frozen, strict=True))
        self._fields = fields

    def get(self, path: str, /) -> object:
        """The value at `path`; None if absent."""
        value = self._frozen.get(path)
        return self._fields.get(path) if value is None else value


def freeze(paths: tuple[str, ...], fields: Fields) -> tuple[object, ...]:
    """The values at `paths`, to be kept with the call's record."""
    return tuple([_kept(fields.get(path)) for path in paths]) if paths else ()


def _kept(value: object) -> object:
    if value is None or isinstance(value, int | float):
        return value
    return value if isinstance(value, str) and len(value) <= MAX_SUBJECT else SOMETHING
