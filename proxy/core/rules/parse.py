"""How single values are read: each parser names what it expected and never guesses."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from proxy.core.model import Kind
from proxy.core.origins import ANY, LOOPBACK
from proxy.core.origins import parse_origin as read_origin
from proxy.core.suggest import did_you_mean

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network

RULED_KINDS = tuple(kind for kind in Kind if kind not in (Kind.OTHER, Kind.PASSTHROUGH))
"""Kinds that the rules may name."""

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}", re.ASCII)
_LABEL = re.compile(r"[A-Za-z0-9_-]{1,63}", re.ASCII)  # of a host's name (RFC 1035, 2.3.4)
_UNSAFE = re.compile(r"[\x00-\x20\x7f-\U0010ffff\\]")


class HintedError(ValueError):
    """A value does not fit; `hint` is the way out."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class SecretError(HintedError):
    """What stands there may be a secret: it must not be shown."""


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
        raise SecretError("no user or password in a URL", "use bearer: env:NAME")
    if not _is_host(parts.hostname):
        raise ValueError("its host is no name and no address")
    if "#" in text:
        raise ValueError("a fragment (#...) never reaches a server")
    return text


def _is_host(text: str) -> bool:
    if ":" not in text:
        return len(text) <= 253 and all(map(_LABEL.fullmatch, text.removesuffix(".").split(".")))
    try:
        return "%" not in text and ipaddress.IPv6Address(text) is not None
    except ValueError:
        return False


def parse_origin(value: Any) -> str:
    """`loopback`, `*` or an origin as browsers write it, put alike; raises ValueError."""
    wanted = "an origin such as https://console.example, or loopback, or *"
    text = _text(value, wanted)
    if text in (ANY, LOOPBACK):
        return text
    origin = read_origin(text)
    if origin is None:
        raise ValueError(f"expected {wanted}: a scheme, a host, at most a port, and no path")
    return str(origin)


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
        raise ValueError("a name has 1 to 64 letters, digits or _ . -, no . or - first")
    return text


def parse_kind(value: Any) -> Kind:
    """A kind that rules may name; raises HintedError."""
    return Kind(parse_word(value, RULED_KINDS, "kind"))


def parse_word(value: Any, known: Iterable[str], what: str) -> str:
    """One word of a closed set; raises HintedError."""
    words = [str(word) for word in known]
    if isinstance(value, str) and value in words:
        return value
    hint = did_you_mean(value, words) if isinstance(value, str) else ""
    raise HintedError(f"{describe(value)} is no {what}", hint or f"one of {', '.join(words)}")


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
