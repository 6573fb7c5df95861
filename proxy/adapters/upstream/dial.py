"""How a new connection comes about: the address, the socket, TLS."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Protocol, cast

from proxy.adapters.upstream.connection import Connection
from proxy.adapters.upstream.endpoint import Endpoint
from proxy.adapters.upstream.resolver import Address, Resolver
from proxy.errors import UpstreamFailed


class Tls(Protocol):
    """What an https upstream is met with."""

    @property
    def context(self) -> ssl.SSLContext:
        """For the next connection."""


class Dialer:
    """Opens connections to one endpoint; whatever fails here was not sent."""

    def __init__(self, endpoint: Endpoint, resolver: Resolver, tls: Tls | None = None) -> None:
        if (endpoint.scheme == "https") is not (tls is not None):
            raise ValueError("TLS is for https upstreams, and they need it")
        self._endpoint = endpoint
        self._resolver = resolver
        self._tls = tls

    async def open(self, make: Callable[[Address], Connection], patience: float) -> Connection:
        """Try the addresses in order; if none answers, those of a new lookup, once.

        Raises `UpstreamFailed` after `patience` seconds at the latest.
        """
        loop = asyncio.get_running_loop()
        ends = loop.time() + patience
        tried: set[Address] = set()
        failure = UpstreamFailed("connect", "no address answered in time", sent=False)
        for _ in range(2):
            known = await self._resolver.addresses(ends - loop.time())
            fresh = [address for address in known if address not in tried]
            for index, address in enumerate(fresh):
                # An address that swallows packets must not use up the others' time.
                share = (ends - loop.time()) / (len(fresh) - index)
                try:
                    async with asyncio.timeout(share):
                        return await self._connect(make(address), address)
                except OSError as error:
                    failure = UpstreamFailed("connect", _cause(error), sent=False)
                tried.add(address)
            self._resolver.distrust()
        raise failure

    async def _connect(self, connection: Connection, address: Address) -> Connection:
        loop = asyncio.get_running_loop()
        protocol = cast("asyncio.Protocol", connection)
        family, target = address
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            await loop.sock_connect(sock, target)
        except BaseException:
            sock.close()
            raise
        if family == socket.AF_UNIX:
            await loop.create_unix_connection(lambda: protocol, sock=sock)
        elif self._tls is None:
            await loop.create_connection(lambda: protocol, sock=sock)
        else:
            name = self._endpoint.server_name or self._endpoint.host
            await loop.create_connection(
                lambda: protocol, sock=sock, ssl=self._tls.context, server_hostname=name
            )
        return connection


def _cause(error: OSError) -> str:
    """What to tell of a failure, in a closed set of words."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate refused: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return "TLS handshake failed"
    if isinstance(error, TimeoutError):
        return "no connection in time"
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    return f"no connection: {error.strerror or type(error).__name__}"
