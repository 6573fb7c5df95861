"""The types of single values: how each is written, checked and shown."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias, TypeVar
from urllib.parse import urlsplit

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
from proxy.core.suggest import did_you_mean

T = TypeVar("T")
Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

RULED_KINDS = tuple(kind for kind in Kind if kind not in (Kind.OTHER, Kind.PASSTHROUGH))
"""Kinds that the rules may name."""

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)
_UNSAFE = re.compile(r"[\x00-\x20\x7f-\U0010ffff\\]")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a listener stands: an IP literal or `localhost`, and a port (0: any free one)."""

    host: str
    port: int

    @property
    def loopback(self) -> bool:
        """Reachable from this machine only."""
        return self.host == "localhost" or ipaddress.ip_address(self.host).is_loopback

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(value: Any) -> Address:
    """`127.0.0.1:8080`, `[::1]:8080`, `localhost:8080`; raises ValueError."""
    if isinstance(value, Address):
        return value
    host, colon, port = _text(value, "host:port").rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    host = host[1:-1] if bracketed else host
    if not colon or not re.fullmatch(r"[0-9]{1,5}", port, re.ASCII) or int(port) > 65535:
        raise ValueError("expected host:port such as 127.0.0.1:8080 or [::1]:8080")
    if host != "localhost" and not _is_ip(host, bracketed=bracketed):
        raise ValueError("the host must be an IP address ([...] around IPv6) or localhost")
    return Address(host, int(port))


def parse_network(value: Any) -> Network:
    """A CIDR or a single address; raises ValueError."""
    if isinstance(value, ipaddress.IPv4Network | ipaddress.IPv6Network):
        return value
    text = _text(value, "a CIDR such as 10.0.0.0/8")
    try:
        return ipaddress.ip_network(text)
    except ValueError as fault:
        if "host bits" in str(fault):
            wider = ipaddress.ip_network(text, strict=False)
            raise ValueError(f"has host bits set: {wider}, or {text.split('/')[0]}") from None
        raise ValueError("expected a CIDR such as 10.0.0.0/8 or 2001:db8::/32") from None


def parse_url(value: Any) -> str:
    """An absolute http(s) URL without user, password or fragment; raises ValueError."""
    text = _text(value, "a URL such as http://127.0.0.1:8000/mcp")
    if _UNSAFE.search(text):
        raise ValueError("holds a space, a control or non-ASCII character: percent-encode it")
    try:
        parts = urlsplit(text)
        port_is_sane = parts.port != 0
    except ValueError:
        raise ValueError("host or port cannot be read") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or not port_is_sane:
        raise ValueError("expected an absolute URL such as http://127.0.0.1:8000/mcp")
    if "@" in parts.netloc:
        raise ValueError("no user or password in a URL; use bearer: env:NAME")
    if "#" in text:
        raise ValueError("a fragment (#...) never reaches a server")
    return text


def parse_path(value: Any) -> str:
    """An absolute path for a request line; raises ValueError."""
    text = _text(value, "a path such as /api/health")
    if not text.startswith("/") or text.startswith("//") or "#" in text or _UNSAFE.search(text):
        raise ValueError("expected a path such as /api/health, percent-encoded where needed")
    return text


def parse_header(value: Any) -> str:
    """A header's name, in lower case; raises ValueError."""
    text = _text(value, "a header name such as x-call-id")
    if not _TOKEN.fullmatch(text):
        raise ValueError("expected a header name such as x-call-id")
    return text.lower()


def parse_name(value: Any) -> str:
    """The name of a backend or tool: letters, digits, `_ . -`, at most 64; raises ValueError."""
    text = _text(value, "a name")
    if not _NAME.fullmatch(text):
        raise ValueError("a name has 1 to 64 letters, digits or _ . -, a letter or digit first")
    return text


def parse_kind(value: Any) -> Kind:
    """A kind that rules may name; raises ValueError."""
    if value in RULED_KINDS:
        return Kind(value)
    known = [str(kind) for kind in RULED_KINDS]
    hint = did_you_mean(value, known) if isinstance(value, str) else ""
    raise ValueError(f"unknown kind; {hint or 'one of ' + ', '.join(known)}")


def _text(value: Any, wanted: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected {wanted}, got {describe(value)}")
    return value


def _is_ip(host: str, *, bracketed: bool) -> bool:
    try:
        return (ipaddress.ip_address(host).version == 6) == bracketed and "%" not in host
    except ValueError:
        return False


def describe(value: object) -> str:
    """What somebody wrote, in words, short, for a message."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    if isinstance(value, str):
        return f"the text '{value[:40]}'"
    return f"the number {value}"


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
_TEXT_SCHEMA = {"type": "string"}

DurationOrZero = Annotated[
    float,
    PlainValidator(_measure(units.duration, "a duration such as 250ms, 30s or 5m")),
    PlainSerializer(units.say_duration),
    WithJsonSchema(_DURATION_SCHEMA),
]
Duration = Annotated[DurationOrZero, AfterValidator(_positive)]
Size = Annotated[
    int,
    PlainValidator(_measure(units.size, "a size such as 256kB or 10MB")),
    AfterValidator(_positive),
    PlainSerializer(units.say_size),
    WithJsonSchema(_SIZE_SCHEMA),
]
Percent = Annotated[float, PlainValidator(_percent), WithJsonSchema(_PERCENT_SCHEMA)]
Count = Annotated[int, Field(ge=1)]
ListenAddress = Annotated[
    Address,
    PlainValidator(parse_address),
    PlainSerializer(str),
    WithJsonSchema(_TEXT_SCHEMA | {"examples": ["127.0.0.1:8080", "0.0.0.0:8080", "[::1]:8080"]}),
]
Cidr = Annotated[
    Network, PlainValidator(parse_network), PlainSerializer(str), WithJsonSchema(_TEXT_SCHEMA)
]
Url = Annotated[str, PlainValidator(parse_url), WithJsonSchema(_TEXT_SCHEMA)]
UrlPath = Annotated[str, PlainValidator(parse_path), WithJsonSchema(_TEXT_SCHEMA)]
HeaderName = Annotated[str, PlainValidator(parse_header), WithJsonSchema(_TEXT_SCHEMA)]
Name = Annotated[str, PlainValidator(parse_name), WithJsonSchema(_TEXT_SCHEMA)]
RuledKind = Annotated[
    Kind,
    PlainValidator(parse_kind),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "enum": [str(kind) for kind in RULED_KINDS]}),
]
AsTuple = BeforeValidator(_list)
"""Makes a YAML list a tuple: sections are frozen through and through."""
