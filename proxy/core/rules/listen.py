"""Where callsplit listens, and how patient it is with callers."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from proxy.core.origins import LOOPBACK
from proxy.core.rules.base import Section
from proxy.core.rules.parse import Address
from proxy.core.rules.secret import Secret
from proxy.core.rules.tls import ListenTls
from proxy.core.rules.values import AsTuple, Cidr, Count, Duration, ListenAddress, PageOrigin, Size


class Listen(Section):
    """The listener that Retell calls."""

    address: ListenAddress = Field(
        Address("127.0.0.1", 8080), description="Where calls come in; 0.0.0.0:8080 for everybody."
    )
    observe: ListenAddress | None = Field(
        None, description="A read-only listener for /live, /ready and /metrics; null for none."
    )
    tls: ListenTls | None = Field(
        None, description="TLS on `address`; null: plain HTTP, what ends TLS stands in front."
    )
    trusted_proxies: Annotated[tuple[Cidr, ...], AsTuple] = Field(
        (), description="Whose X-Forwarded-For is believed; CIDRs."
    )
    origins: Annotated[tuple[PageOrigin, ...], AsTuple] = Field(
        (LOOPBACK,),
        description="Web pages (their Origin) that may speak MCP here; loopback: those of this "
        "machine, *: any.",
    )
    body_limit: Size = Field(10 * 2**20, description="Largest request body; above it 413.")
    expose_headers: bool = Field(
        True, description="Add x-callsplit-arm, x-callsplit-reason and x-request-id to answers."
    )
    access_log: bool = Field(True, description="Write one log line per exchange.")
    session_keys: Annotated[tuple[Secret, ...], AsTuple] = Field(
        (),
        description="What MCP sessions are signed with, the same at every replica: the first "
        "signs, all are taken. Empty: each replica has a key of its own.",
    )
    header_timeout: Duration = Field(10.0, description="Time for a request's head.")
    body_timeout: Duration = Field(30.0, description="Time for a request's whole body.")
    idle_timeout: Duration = Field(
        75.0, description="How long a kept-alive connection may stand idle."
    )
    write_timeout: Duration = Field(
        30.0,
        description="Time in which a caller takes 1 kB of an answer per second, or all that waits.",
    )
    connections: Count = Field(
        10_000,
        description="Connections at a time; then those make room that send nothing, and without "
        "such one more hears 503.",
    )
    connections_per_address: Count | None = Field(
        None, description="Of those, one address's that is no trusted proxy; null: no limit."
    )
    drain_grace: Duration = Field(
        30.0, description="How long exchanges in flight may go on after SIGTERM."
    )


class Admin(Section):
    """The second listener, for operators."""

    address: ListenAddress = Field(
        Address("127.0.0.1", 9901), description="Where operators ask; keep it on loopback."
    )
    token: Secret | None = Field(
        None, description="Bearer token of the admin API; required off loopback."
    )
