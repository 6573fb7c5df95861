"""What does a rule see of a request, by dotted path?

    agent_id  from_number  to_number  direction  call_type  call_id  tool  event
    metadata.<key>  dynamic_variables.<key>  args.<key>  header.<name>

A path may go deeper (`metadata.clinic.city`), or stop early (`args`).  Nothing is decoded before it
is asked for, and nothing twice.
"""

from __future__ import annotations

from collections.abc import Callable

import orjson
from msgspec import UNSET, Raw, Struct, UnsetType

from proxy.core.dotted import below
from proxy.core.model import Call, Kind
from proxy.core.partial import Partial

MAX_VALUE = 65_536
"""Bytes of one value; a larger one counts as absent, for it would be built as a whole."""


class _Subject(Struct, gc=False):
    """The call or chat that a body is about."""

    agent_id: Raw | UnsetType = UNSET
    from_number: Raw | UnsetType = UNSET
    to_number: Raw | UnsetType = UNSET
    direction: Raw | UnsetType = UNSET
    call_type: Raw | UnsetType = UNSET
    metadata: Raw | UnsetType = UNSET
    retell_llm_dynamic_variables: Raw | UnsetType = UNSET


class _Body(Struct, gc=False):
    call: _Subject | None = None
    chat: _Subject | None = None
    call_inbound: _Subject | None = None
    chat_inbound: _Subject | None = None


_WITH_SUBJECT = frozenset({Kind.EVENT, Kind.INBOUND, Kind.FUNCTION})
_read = Partial(_Body).read
_OF_SUBJECT = {name: name for name in _Subject.__struct_fields__}
_OF_SUBJECT["dynamic_variables"] = _OF_SUBJECT.pop("retell_llm_dynamic_variables")
_OF_CALL: dict[str, Callable[[Call], str | None]] = {
    "call_id": lambda call: call.id,
    "tool": lambda call: call.tool,
    "event": lambda call: call.event,
}


class Fields:
    """One request's fields, each decoded at most once."""

    __slots__ = ("_call", "_found", "_roots", "_subject")

    def __init__(self, call: Call) -> None:
        self._call = call
        self._found: dict[str, object] = {}
        self._roots: dict[str, object] = {}
        self._subject: _Subject | None = None

    def get(self, path: str, /) -> object:
        """The value at `path` (header names in any case); None if absent or null."""
        if path in self._found:
            return self._found[path]
        value = self._found[path] = self._find(path)
        return value

    def _find(self, path: str) -> object:
        root, _, rest = path.partition(".")
        if root == "header":
            return self._header(rest)
        if (of_call := _OF_CALL.get(root)) is not None:
            return None if rest else of_call(self._call)
        if root not in self._roots:
            self._roots[root] = self._root(root)
        return below(self._roots[root], rest)

    def _header(self, name: str) -> str | None:
        """A header that stands twice says nothing."""
        head, key = self._call.head, name.lower().encode()
        value = None if key in head.repeated else head.named.get(key)
        return None if value is None else value.decode("utf-8", "replace")

    def _root(self, root: str) -> object:
        if root == "args":
            return _value(self._call.arguments)
        name = _OF_SUBJECT.get(root)
        if name is None:
            return None
        if self._subject is None:
            self._subject = _subject_of(self._call)
        return _value(getattr(self._subject, name))


def fields(call: Call) -> Fields:
    """The fields of one request; keep them as long as the request."""
    return Fields(call)


def _subject_of(call: Call) -> _Subject:
    if call.kind not in _WITH_SUBJECT:
        return _Subject()
    try:
        body, _ = _read(call.body)
    except ValueError:
        return _Subject()
    if body is None:
        return _Subject()
    if call.kind is Kind.INBOUND:
        return body.call_inbound or body.chat_inbound or _Subject()
    return body.call or body.chat or _Subject()


def _value(raw: Raw | UnsetType | bytes | None) -> object:
    if raw is None or raw is UNSET:
        return None
    text = bytes(raw)
    if len(text) > MAX_VALUE:
        return None
    try:
        return orjson.loads(text)
    except ValueError:
        return None
