"""What may a `when:` of the rules say, and what is wrong with this one?

`proxy.core.matchers` says what it means.  A `when` is about requests, whose fields are known, or
about what an arm answered, which may hold any.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from proxy.core.patterns import compile_pattern
from proxy.core.suggest import did_you_mean

FIELDS = ("agent_id", "from_number", "to_number", "direction", "call_type", "tool")
"""Fields by their whole name; all are text."""

FAMILIES = ("metadata.", "dynamic_variables.", "header.")
"""Prefixes of fields that carry their own names; all but metadata are text (Retell)."""

OPERATORS = ("exact", "prefix", "suffix", "in", "regex", "exists", "not")
GROUPS = ("all", "any", "not")
_MAX_DEPTH = 16

Found: TypeAlias = Iterator[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class _About:
    """What a `when` looks at."""

    thing: str
    fault_of: Callable[[object], str]  # of a field's path; "" if there may be such a field
    is_text: Callable[[str], bool]  # the field at that path can hold nothing but text


def faults(when: object) -> list[tuple[str, str]]:
    """All that is wrong with a `when`: (dotted path below it, message); [] if it compiles.

    A path may hold field names, which have dots of their own: `any.0.metadata.tier.in`.
    """
    return list(_of_when(when, "", 0, _REQUESTS))


def answer_faults(when: object) -> list[tuple[str, str]]:
    """The same for a `when` about an arm's answer: any dotted path, any sort of value."""
    return list(_of_when(when, "", 0, _ANSWERS))


def field_paths(when: Mapping[str, Any]) -> frozenset[str]:
    """The fields that a faultless `when` looks at, header names in lower case."""
    found: set[str] = set()
    for key, value in when.items():
        if key not in GROUPS:
            found.add(plain_path(key))
            continue
        for inner in [value] if key == "not" else value:
            found |= field_paths(inner)
    return frozenset(found)


def uses_request_fields(when: Mapping[str, Any]) -> bool:
    """True if a faultless `when` looks at what differs between the requests of one call."""
    return any(of_request(path) for path in field_paths(when))


def of_request(path: str) -> bool:
    """True for a field that differs between the requests of one call."""
    return path == "tool" or path.startswith("header.")


def plain_path(path: str) -> str:
    """A field's path as `Fields` knows it: header names have no case, all others do."""
    return path.lower() if path.lower().startswith("header.") else path


def _of_when(when: object, at: str, depth: int, about: _About) -> Found:
    if not isinstance(when, Mapping):
        yield at, "must be a mapping of fields to values"
    elif not when:
        yield at, f"names no field, so it would match every {about.thing}"
    elif depth > _MAX_DEPTH:
        yield at, "is nested too deeply"
    else:
        for key, value in when.items():
            yield from _of_entry(key, value, _below(at, key), depth, about)


def _of_entry(key: object, value: object, at: str, depth: int, about: _About) -> Found:
    if key == "not":
        yield from _of_when(value, at, depth + 1, about)
    elif key in GROUPS:
        if not isinstance(value, list | tuple) or not value:
            yield at, "must be a list with at least one `when`"
            return
        for index, inner in enumerate(value):
            yield from _of_when(inner, _below(at, index), depth + 1, about)
    elif fault := about.fault_of(key):
        yield at, fault
    else:
        yield from _of_test(value, at, depth, text=about.is_text(str(key)))


def _fault_of_field(key: object) -> str:
    if not isinstance(key, str):
        return "a field's name must be text"
    if key in FIELDS or (plain_path(key).startswith(FAMILIES) and all(key.split("."))):
        return ""
    return _unknown(key, (*FIELDS, *GROUPS, *FAMILIES), "field")


def _fault_of_path(key: object) -> str:
    if not isinstance(key, str):
        return "a field's name must be text"
    return "" if all(key.split(".")) else "is no path: a part of it is empty"


def _of_test(value: object, at: str, depth: int, *, text: bool) -> Found:
    if not isinstance(value, Mapping):
        yield from _of_scalar(value, at, text=text)
    elif not value:
        yield at, "must be a value or a mapping of tests"
    elif depth > _MAX_DEPTH:
        yield at, "is nested too deeply"
    else:
        for operator, operand in value.items():
            yield from _of_operand(operator, operand, _below(at, operator), depth, text=text)


def _of_operand(operator: object, operand: object, at: str, depth: int, *, text: bool) -> Found:
    match operator:
        case "not":
            yield from _of_test(operand, at, depth + 1, text=text)
        case "in":
            yield from _of_list(operand, at, text=text)
        case "exact":
            yield from _of_scalar(operand, at, text=text)
        case "exists":
            if not isinstance(operand, bool):
                yield at, "must be true or false"
        case "prefix" | "suffix" | "regex":
            yield from _of_text(operand, at, pattern=operator == "regex")
        case _:
            yield at, _unknown(str(operator), OPERATORS, "test")


def _of_list(value: object, at: str, *, text: bool) -> Found:
    if not isinstance(value, list | tuple) or not value:
        yield at, "must be a list with at least one value"
        return
    for index, item in enumerate(value):
        yield from _of_scalar(item, _below(at, index), text=text)


def _of_scalar(value: object, at: str, *, text: bool) -> Found:
    if value is None:
        yield at, "nothing equals null; write {exists: false}"
    elif not isinstance(value, str | int | float):
        yield at, "must be text, a number, true or false"
    elif isinstance(value, float) and not math.isfinite(value):
        yield at, "must be a finite number"
    elif text and not isinstance(value, str):
        yield at, "this field is text, which equals no number, true or false; add quotes"


def _of_text(value: object, at: str, *, pattern: bool) -> Found:
    if not isinstance(value, str) or not value:
        yield at, "must be text, not empty"
    elif pattern:
        try:
            compile_pattern(value)
        except ValueError as error:
            yield at, str(error)


def _unknown(name: str, known: tuple[str, ...], what: str) -> str:
    hint = did_you_mean(name, known)
    return f"is no {what}; {hint or 'known are ' + ', '.join(known)}"


def _below(at: str, key: object) -> str:
    return f"{at}.{key}" if at else str(key)


_REQUESTS: Final = _About("call", _fault_of_field, lambda path: not path.startswith("metadata."))
_ANSWERS: Final = _About("answer", _fault_of_path, lambda path: False)
