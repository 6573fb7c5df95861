"""Every value of a rule set, with its path."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from proxy.core.rules.base import Section
from proxy.core.rules.model import Rules
from proxy.core.rules.secret import SecretRef, is_reference


def values(rules: Rules, *, written: bool = False) -> Iterator[tuple[str, Any]]:
    """All values by dotted path, a section's own path first; `written`: only those in the file."""
    yield from _below("", rules, written=written)


def secrets(rules: Rules) -> Iterator[tuple[str, SecretRef]]:
    """Every secret reference with the path where it stands."""
    for path, value in values(rules):
        if isinstance(value, SecretRef):
            yield path, value
        elif path == "state" and is_reference(value):
            yield path, SecretRef(value.removesuffix("?"), optional=value.endswith("?"))


def _below(path: str, value: Any, *, written: bool) -> Iterator[tuple[str, Any]]:
    if path:
        yield path, value
    for name, inner in _children(value, written=written):
        yield from _below(f"{path}.{name}" if path else str(name), inner, written=written)


def _children(value: Any, *, written: bool) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, Section):
        names = value.model_fields_set if written else type(value).model_fields
        yield from ((name, getattr(value, name)) for name in sorted(names))
    elif isinstance(value, dict):
        yield from value.items()
    elif isinstance(value, tuple | list):
        yield from enumerate(value)
