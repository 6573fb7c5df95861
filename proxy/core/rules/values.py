"""The types of single values: how each is written, checked and shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    PlainValidator,
    WithJsonSchema,
)

from proxy.core import units
from proxy.core.model import Kind
from proxy.core.rules.parse import (
    RULED_KINDS,
    Address,
    Network,
    describe,
    parse_address,
    parse_header,
    parse_kind,
    parse_name,
    parse_network,
    parse_origin,
    parse_path,
    parse_url,
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Word:
    """What ops call a type: for the reference table."""

    text: str


def _measure(parse: Callable[[str], T], wanted: str) -> Callable[[Any], T]:
    def read(value: Any) -> T:
        if isinstance(value, bool | None | dict | list):
            raise ValueError(f"expected {wanted}, got {describe(value)}")
        return parse(value if isinstance(value, str) else str(value))

    return read


def _percent(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError(f"expected a number from 0 to 100, got {describe(value)}")
    if isinstance(value, str) and not value.endswith("%"):
        raise ValueError(f"expected a number from 0 to 100, got {describe(value)}")
    return units.percent(value)


def _positive(value: float) -> float:
    if value <= 0:
        raise ValueError("must be more than 0")
    return value


def _list(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


_DURATION_SCHEMA = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)? ?(ms|s|m|h)$|\$\{"}
_SIZE_SCHEMA = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)? ?([kKMG]i?)?B$|\$\{"}
_PERCENT_SCHEMA = {
    "anyOf": [
        {"type": "number", "minimum": 0, "maximum": 100},
        {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)? ?%$|\$\{"},
    ]
}
_TEXT = WithJsonSchema({"type": "string"})

DurationOrZero = Annotated[
    float,
    Word("duration"),
    PlainValidator(_measure(units.duration, "a duration such as 250ms, 30s or 5m")),
    PlainSerializer(units.say_duration),
    WithJsonSchema(_DURATION_SCHEMA),
]
Duration = Annotated[DurationOrZero, AfterValidator(_positive)]
Size = Annotated[
    int,
    Word("size"),
    PlainValidator(_measure(units.size, "a size such as 256kB or 10MB")),
    AfterValidator(_positive),
    PlainSerializer(units.say_size),
    WithJsonSchema(_SIZE_SCHEMA),
]
Percent = Annotated[
    float, Word("percentage"), PlainValidator(_percent), WithJsonSchema(_PERCENT_SCHEMA)
]
Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]
ListenAddress = Annotated[
    Address,
    Word("host:port"),
    PlainValidator(parse_address),
    PlainSerializer(str),
    _TEXT,
]
Cidr = Annotated[
    Network,
    Word("CIDR"),
    PlainValidator(parse_network),
    PlainSerializer(str),
    _TEXT,
]
Url = Annotated[str, Word("URL"), PlainValidator(parse_url), _TEXT]
PageOrigin = Annotated[str, Word("origin"), PlainValidator(parse_origin), _TEXT]
UrlPath = Annotated[str, Word("path"), PlainValidator(parse_path), _TEXT]
HeaderName = Annotated[str, Word("header"), PlainValidator(parse_header), _TEXT]
Name = Annotated[str, Word("name"), PlainValidator(parse_name), _TEXT]
RuledKind = Annotated[
    Kind,
    Word("kind"),
    PlainValidator(parse_kind),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "enum": [str(kind) for kind in RULED_KINDS]}),
]
AsTuple = BeforeValidator(_list)
"""Makes a YAML list a tuple: sections are frozen through and through."""
