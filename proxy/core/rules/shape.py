"""Which keys do the rules have?  Read off the model, for hints, the reference and the examples."""

from __future__ import annotations

import types
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from proxy.core.rules.base import Section
from proxy.core.rules.finding import Path
from proxy.core.rules.model import Rules
from proxy.core.rules.values import Word

_PLAIN_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "whole number",
    float: "number",
    str: "text",
    Any: "anything",
}


@dataclass(frozen=True, slots=True)
class Key:
    """One key of the rules file; `<...>` in its path stands for a name of the writer's choice."""

    path: str
    field: FieldInfo
    word: str  # its type, as ops would say it
    section: type[Section] | None  # what stands below it
    home: type[Section]  # the section that it stands in


def keys(section: type[Section] = Rules, prefix: str = "") -> Iterator[Key]:
    """Every key, in the order of the model, sections before what stands in them."""
    for name, field in section.model_fields.items():
        inner, below = _inside(field.annotation)
        path = f"{prefix}{name}"
        yield Key(path, field, word_of(field.annotation, field.metadata), inner, section)
        if inner is not None:
            yield from keys(inner, f"{path}{below}.")


def section_at(path: Path) -> type[Section] | None:
    """The section that stands at a path of a document; None if none does."""
    section: type[Section] | None = Rules
    parts = list(path)
    while parts and section is not None:
        field = section.model_fields.get(str(parts.pop(0)))
        if field is None:
            return None
        section, below = _inside(field.annotation)
        if below and parts:
            parts.pop(0)
        elif below:
            return None
    return section


def word_of(annotation: Any, metadata: list[Any] | tuple[Any, ...] = ()) -> str:
    """The type of a value in words: `duration`, `list of CIDR`, `text or null`."""
    for mark in metadata:
        if isinstance(mark, Word):
            return mark.text
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return word_of(arguments[0], arguments[1:])
    if origin in (Union, types.UnionType):
        parts = [word_of(part) for part in arguments if part is not type(None)]
        return " or ".join([*parts, "null"])
    if origin is Literal:
        return " or ".join(str(value) for value in arguments)
    if origin is dict:
        return f"mapping of {word_of(arguments[0])} to {word_of(arguments[1])}"
    if origin is tuple:
        return f"list of {word_of(arguments[0])}"
    return _PLAIN_WORDS.get(annotation, "section")


def _inside(annotation: Any) -> tuple[type[Section] | None, str]:
    """The section that a field holds, and what stands between: "", `.<name>` or `[]`."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return annotation, ""
    if origin in (Union, types.UnionType):
        return next((found for part in arguments if (found := _inside(part))[0]), (None, ""))
    if origin is dict and _inside(arguments[1])[0]:
        return _inside(arguments[1])[0], ".<name>"
    if origin is tuple and _inside(arguments[0])[0]:
        return _inside(arguments[0])[0], "[]"
    return None, ""
