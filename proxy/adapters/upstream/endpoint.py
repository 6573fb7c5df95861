"""Where an upstream lives, and what one pool of connections to it may use."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from proxy.core.rules.tls_ends import TlsEnd

_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One upstream: address, authority and limits.  Times are seconds, sizes bytes.

    `scheme` is http, https or unix; `path` is the socket of a unix endpoint.  `authority` is the
    Host header of every request.  `keepalive` must stay below the upstream's own idle time.
    """

    scheme: str
    host: str
    port: int
    authority: str
    path: str = ""
    connections: int = 256
    queue: int = 128  # exchanges that may wait for a connection
    queue_timeout: float = 0.1
    connect_timeout: float = 0.25
    keepalive: float = 4.0
    buffer: int = 262_144  # answers up to this size come whole
    stall: float = 300.0  # a streamed answer may be silent this long
    server_name: str | None = None  # SNI and certificate name; None means `host`
    tls: TlsEnd | None = None  # what TLS is made of, for https

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Endpoint:
        """Read `http://host:port`, `https://…` or `unix:/path`; raises `ValueError`.

        Path and query of an http(s) URL are the backend's business and ignored here.
        """
        if url.startswith("unix:"):
            path = url.removeprefix("unix:")
            if not path.startswith("/") or "\0" in path:
                raise ValueError("a unix upstream needs an absolute path")
            return cls("unix", "localhost", 0, "localhost", path=path, **options)
        parts = urlsplit(url)
        if parts.scheme not in _PORTS:
            raise ValueError("an upstream's url starts with http://, https:// or unix:")
        if "@" in parts.netloc:
            raise ValueError("an upstream's url carries no user and no password")
        host = _host(parts.hostname or "")
        port = parts.port if parts.port is not None else _PORTS[parts.scheme]
        if port == 0:
            raise ValueError("port 0 is no upstream")
        authority = f"[{host}]" if ":" in host else host
        if port != _PORTS[parts.scheme]:
            authority += f":{port}"
        return cls(parts.scheme, host, port, authority, **options)


def _host(host: str) -> str:
    """The host in ASCII; an IPv6 zone or anything odd is refused."""
    if not host:
        raise ValueError("an upstream's url needs a host")
    if "%" in host:
        raise ValueError("an upstream's host carries no zone")
    if ":" in host:
        return str(ipaddress.IPv6Address(host))
    encoded = host.encode("idna").decode("ascii")
    if not all(char.isalnum() or char in "-._" for char in encoded):
        raise ValueError("an upstream's host has odd characters")
    return encoded
