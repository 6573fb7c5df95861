"""How is one part of a JSON body read, cheaply and whatever the rest looks like?

A body is scanned once and only the named fields are built, so a call's transcript costs next to
nothing.  A field of an unexpected type counts as absent; it never spoils the others.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import Any, Generic, TypeAlias, TypeVar, get_args

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

_MAX_ESCAPES = 10_000
_SURROGATE = re.compile(
    rb"(?<!\\)(\\(?:\\\\)*+)u(?:[dD][89abAB][0-9a-fA-F]{2}(\\u[dD][c-fC-F][0-9a-fA-F]{2})?"
    rb"|[dD][c-fC-F][0-9a-fA-F]{2})"
)

_skim = msgspec.json.Decoder(Raw).decode

T = TypeVar("T", bound=Struct)
_Reader: TypeAlias = Callable[[Raw], Any]
_Loose: TypeAlias = tuple[Callable[[bytes | Raw], Any], list[tuple[str, _Reader]]]


class Partial(Generic[T]):
    """Reads the fields of one struct, all of which must have defaults.

    Their types: `X | None` with X a text, an integer or a struct; `Raw | UnsetType`.
    """

    def __init__(self, kind: type[T]) -> None:
        self._kind = kind
        self._strictly = msgspec.json.Decoder(kind).decode
        _twin(kind)

    def read(self, body: bytes) -> tuple[T | None, bytes]:
        """The fields (None if `body` is JSON but no object), and the text that was read.

        That text is `body`, but `mended`.  Raises ValueError if it cannot be read as JSON.
        """
        try:
            return self._strictly(body), body
        except (ValueError, RecursionError):
            text = mended(body)
        try:
            part = _loosely(text, self._kind)
            if part is None:
                _skim(text)  # Nothing but its first byte was looked at.
        except RecursionError:
            raise ValueError("nested too deeply") from None
        return part, text


def mended(body: bytes) -> bytes:
    """`body` with U+FFFD for every half of a surrogate pair.

    JavaScript may cut an emoji in two and write the half as a lone escape.  That is JSON, but no
    text: our decoders refuse it, though the call goes on.
    """
    if b"\\ud" not in body and b"\\uD" not in body:
        return body
    return _SURROGATE.sub(_whole, body, count=_MAX_ESCAPES)


def _whole(match: re.Match[bytes]) -> bytes:
    return match[0] if match[2] else match[1] + b"ufffd"


def _loosely(text: bytes | Raw, kind: type[T]) -> T | None:
    """`text` as `kind`, without fields of the wrong type; None if it is no object."""
    decode, readers = _twin(kind)
    try:
        fields = decode(text)
    except msgspec.ValidationError:
        return None
    part = kind()
    for name, read in readers:
        raw = getattr(fields, name)
        if raw is not UNSET:
            setattr(part, name, read(raw))
    return part


@cache
def _twin(kind: type[Struct]) -> _Loose:
    """A decoder that takes every field as it stands, and what makes a field of it."""
    fields = msgspec.structs.fields(kind)
    loose = [(field.name, Raw | UnsetType, UNSET) for field in fields]
    names = {field.name: field.encode_name for field in fields}
    decoder = msgspec.json.Decoder(msgspec.defstruct(kind.__name__, loose, gc=False, rename=names))
    return decoder.decode, [(field.name, _reader(field.type)) for field in fields]


def _reader(wanted: Any) -> _Reader:
    first = get_args(wanted)[0]
    if first is Raw:
        return lambda raw: raw
    if issubclass(first, Struct):
        return lambda raw: _loosely(raw, first)
    decode = msgspec.json.Decoder(wanted).decode

    def read(raw: Raw) -> Any:
        try:
            return decode(raw)
        except msgspec.ValidationError:
            return None

    return read
