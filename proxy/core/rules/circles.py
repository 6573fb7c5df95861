"""Which backends lead back to this sidecar?  Their every request would ask itself."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from urllib.parse import urlsplit

from proxy.core.rules.model import Rules
from proxy.core.rules.parse import Address

_PORTS = {"http": 80, "https": 443}


def circles(rules: Rules) -> Iterator[str]:
    """Each backend whose url is one of our own listeners, as far as addresses can tell.

    A name that leads here some other way is found when its requests come back (`core.hops`).
    """
    listeners = {
        "listen.address": rules.listen.address,
        "listen.observe": rules.listen.observe,
        "admin.address": rules.admin.address,
    }
    for name, backend in rules.backends.items():
        for key, address in listeners.items():
            if address is not None and backend.url and _leads_to(backend.url, address):
                yield f"backends.{name}.url: {backend.url} is this sidecar's own {key}"


def _leads_to(url: str, address: Address) -> bool:
    parts = urlsplit(url)
    port = parts.port or _PORTS[parts.scheme]
    return port == address.port and _reaches(parts.hostname or "", address.host)


def _reaches(host: str, listening: str) -> bool:
    """Whether connecting to `host` arrives where somebody listens on `listening`."""
    if host == listening:
        return True
    ours, theirs = _ip(listening), _ip(host)
    if theirs is None:
        return False
    if ours is not None and ours.is_unspecified:  # Every address of this machine; one is known.
        return theirs.is_loopback or theirs.is_unspecified
    return theirs == ours or (listening == "localhost" and theirs.is_loopback)


def _ip(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that stands there; that of `localhost` is known without a name server."""
    try:
        return ipaddress.ip_address("127.0.0.1" if host.rstrip(".") == "localhost" else host)
    except ValueError:
        return None
