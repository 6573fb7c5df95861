"""From which web pages may an MCP caller's browser ask?

A page that a browser shows may ask whatever that browser can reach: so a name that leads to this
machine (DNS rebinding) would let any page ask us.  Browsers say whose page it is: RFC 6454.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from typing import NamedTuple

ANY = "*"
LOOPBACK = "loopback"
"""Stands for pages of this machine, whatever their scheme and port."""

_LOOPBACK_HOSTS = frozenset({"localhost", "127.0.0.1", "[::1]"})
_PORTS = {"http": 80, "https": 443, "ws": 80, "wss": 443}
_ORIGIN = re.compile(
    r"([A-Za-z][A-Za-z0-9+.-]{0,31})://([A-Za-z0-9._~-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{1,5}))?",
    re.ASCII,
).fullmatch


class Origin(NamedTuple):
    """Scheme and host in lower case; port -1: that of a scheme which has none of its own."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        port = "" if self.port in (-1, _PORTS.get(self.scheme)) else f":{self.port}"
        return f"{self.scheme}://{self.host}{port}"


def parse_origin(text: str) -> Origin | None:
    """One origin as RFC 6454, 6.2 writes it; None for `null` and for everything else."""
    match = _ORIGIN(text)
    if match is None:
        return None
    scheme, host = match[1].lower(), match[2].lower()
    if host[0] == "[":
        try:
            host = f"[{ipaddress.IPv6Address(host[1:-1]).compressed}]"
        except ValueError:
            return None
    port = int(match[3]) if match[3] else _PORTS.get(scheme, -1)
    return Origin(scheme, host, port) if port <= 65535 else None


class Origins:
    """Those that may ask: `loopback`, `*` (any), or single ones such as `https://a.example`."""

    __slots__ = ("_any", "_listed", "_loopback")

    def __init__(self, listed: Iterable[str] = (LOOPBACK,)) -> None:
        words = frozenset(listed)
        self._any = ANY in words
        self._loopback = LOOPBACK in words
        self._listed = frozenset(map(parse_origin, words - {ANY, LOOPBACK})) - {None}

    def allow(self, value: bytes) -> bool:
        """Judge an Origin header; what is none (`null`, a list, a path) is never allowed."""
        origin = parse_origin(value.strip(b" \t").decode("latin-1"))
        if origin is None:
            return False
        if self._any or origin in self._listed:
            return True
        return self._loopback and origin.host in _LOOPBACK_HOSTS


LOOPBACK_PAGES = Origins()
"""Where the rules say nothing."""
