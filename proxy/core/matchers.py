"""Does a `when:` of the rules hold for this request?

A `when` maps field paths to tests, and every entry must hold:

    agent_id: agent_staging                    equal
    metadata.company_id: {in: [42, 43]}        exact, prefix, suffix, in, regex, exists, not
    any: [{tool: book}, {header.x-test: "1"}]  also all: [when, ...] and not: when

Text equals text and numbers equal numbers: 42 equals 42.0, never "42" and never true.
`prefix`, `suffix` and `regex` look at text only; `regex` must match the whole of it.  A field
that is null counts as absent; an absent field passes only `exists: false` and `not`.

A `when` about an answer may name any path in its JSON: `error.code`, `items.0.status`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

from proxy.core.patterns import MAX_SUBJECT, compile_pattern
from proxy.core.when import answer_faults, faults, field_paths, plain_path, uses_request_fields

__all__ = [
    "Fields",
    "Test",
    "answer_faults",
    "compile_answer_when",
    "compile_when",
    "faults",
    "field_paths",
    "uses_request_fields",
]


class Fields(Protocol):
    """The fields of one request, or of one answer, by path."""

    def get(self, path: str, /) -> object:
        """The value at `path` (header names in lower case); None if absent or null."""


Test: TypeAlias = Callable[[Fields], bool]


def compile_when(when: Mapping[str, Any]) -> Test:
    """The test of a `when` that has no `faults`."""
    return _compiled(when, plain_path)


def compile_answer_when(when: Mapping[str, Any]) -> Test:
    """The test of a `when` about an answer that has no `answer_faults`."""
    return _compiled(when, str)


def _compiled(when: Mapping[str, Any], plain: Callable[[str], str]) -> Test:
    return _all([_entry(key, value, plain) for key, value in when.items()])


def _entry(key: str, value: Any, plain: Callable[[str], str]) -> Test:
    if key == "all":
        return _all([_compiled(when, plain) for when in value])
    if key == "any":
        return _any([_compiled(when, plain) for when in value])
    if key == "not":
        return _not(_compiled(value, plain))
    return _field(plain(key), value)


def _field(path: str, value: Any) -> Test:
    if not isinstance(value, Mapping):
        return _equal(path, value)
    return _all([_COMPILERS[operator](path, operand) for operator, operand in value.items()])


def _all(tests: list[Test]) -> Test:
    if len(tests) == 1:
        return tests[0]
    fixed = tuple(tests)

    def every(fields: Fields) -> bool:
        for test in fixed:  # noqa: SIM110  (all() would make a generator per request.)
            if not test(fields):
                return False
        return True

    return every


def _any(tests: list[Test]) -> Test:
    if len(tests) == 1:
        return tests[0]
    fixed = tuple(tests)

    def some(fields: Fields) -> bool:
        for test in fixed:  # noqa: SIM110
            if test(fields):
                return True
        return False

    return some


def _not(test: Test) -> Test:
    return lambda fields: not test(fields)


def _equal(path: str, value: Any) -> Test:
    if isinstance(value, bool):
        return lambda fields: fields.get(path) is value
    if isinstance(value, str):
        return lambda fields: fields.get(path) == value

    def equals_number(fields: Fields) -> bool:
        found = fields.get(path)
        return found == value and not isinstance(found, bool)

    return equals_number


def _in(path: str, values: Sequence[Any]) -> Test:
    texts = frozenset(value for value in values if isinstance(value, str))
    truths = frozenset(value for value in values if isinstance(value, bool))
    numbers = frozenset(value for value in values if _is_number(value))

    def is_in(fields: Fields) -> bool:
        found = fields.get(path)
        if isinstance(found, str):
            return found in texts
        if isinstance(found, bool):
            return found in truths
        return isinstance(found, int | float) and found in numbers

    return is_in


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _prefix(path: str, prefix: str) -> Test:
    def starts(fields: Fields) -> bool:
        found = fields.get(path)
        return isinstance(found, str) and found.startswith(prefix)

    return starts


def _suffix(path: str, suffix: str) -> Test:
    def ends(fields: Fields) -> bool:
        found = fields.get(path)
        return isinstance(found, str) and found.endswith(suffix)

    return ends


def _regex(path: str, text: str) -> Test:
    fullmatch = compile_pattern(text).fullmatch

    def matches(fields: Fields) -> bool:
        found = fields.get(path)
        if not isinstance(found, str) or len(found) > MAX_SUBJECT:
            return False
        return fullmatch(found) is not None

    return matches


def _exists(path: str, wanted: bool) -> Test:
    return lambda fields: (fields.get(path) is not None) is wanted


_COMPILERS: Mapping[str, Callable[[str, Any], Test]] = {
    "exact": _equal,
    "in": _in,
    "prefix": _prefix,
    "suffix": _suffix,
    "regex": _regex,
    "exists": _exists,
    "not": lambda path, value: _not(_field(path, value)),
}
