"""Whose address is this, and which networks is it in?

Envoy's rule: the client is the peer, unless the peer is a trusted proxy; then
X-Forwarded-For is read from the right, over trusted hops, and no further.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address

_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")
_MAX_HOPS = 32
_KEPT = 4096  # Answers remembered: callers are few, and an attacker's many push out each other.
_LONG = 128  # Bytes of X-Forwarded-For; longer ones are read but not remembered.


@dataclass(frozen=True, slots=True, eq=False)
class Networks:
    """A list of networks, made once per load of the rules; compared by identity."""

    v4: tuple[tuple[int, int], ...] = ()  # (network, mask)
    v6: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, networks: Iterable[Network | str]) -> Networks:
        """Raises ValueError for a text that is no CIDR."""
        v4: list[tuple[int, int]] = []
        v6: list[tuple[int, int]] = []
        for each in networks:
            network = _unmapped(ipaddress.ip_network(each))
            pair = int(network.network_address), int(network.netmask)
            (v4 if network.version == 4 else v6).append(pair)
        return cls(tuple(v4), tuple(v6))

    def __bool__(self) -> bool:
        return bool(self.v4 or self.v6)

    def __contains__(self, address: str) -> bool:
        """What is no address is in no network."""
        return _is_in(address, self)


NOWHERE = Networks()
"""No network at all."""


def parse(text: str) -> Address | None:
    """Read one address, without its zone; an IPv4 address in IPv6's clothes is IPv4."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if address.version == 6 and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


@lru_cache(maxsize=_KEPT)
def locate(peer: str, trusted: Networks) -> tuple[str, bool]:
    """A socket's peer in plain form (as it came if it is no address), and whether we trust it."""
    address = parse(peer)
    if address is None:
        return peer, False
    plain = str(address)
    return plain, plain in trusted


def client(peer: str, forwarded_for: bytes, trusted: Networks) -> str:
    """The client behind a *trusted* peer, by its X-Forwarded-For; the peer if that is garbage."""
    walk = _walk if len(forwarded_for) <= _LONG else _walk.__wrapped__
    return walk(peer, forwarded_for, trusted)


@lru_cache(maxsize=_KEPT)
def _walk(peer: str, forwarded_for: bytes, trusted: Networks) -> str:
    found = peer
    for hop in reversed(forwarded_for.rsplit(b",", _MAX_HOPS)):
        address = parse(_without_port(hop.decode("latin-1").strip(" \t")))
        if address is None:
            return peer
        found = str(address)
        if found not in trusted:
            break
    return found


def _without_port(hop: str) -> str:
    """Some balancers add the client's port: 192.0.2.1:4711, [2001:db8::1]:4711."""
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop


@lru_cache(maxsize=_KEPT)
def _is_in(text: str, networks: Networks) -> bool:
    address = parse(text)
    if address is None:
        return False
    number, pairs = int(address), networks.v4 if address.version == 4 else networks.v6
    return any(number & mask == network for network, mask in pairs)


def _unmapped(network: Network) -> Network:
    if network.version == 4 or not network.subnet_of(_MAPPED):
        return network
    base = int(network.network_address) & 0xFFFF_FFFF
    return ipaddress.IPv4Network((base, network.prefixlen - 96))
