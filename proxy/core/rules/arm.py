"""What is known of one backend: where it stands, how patient we are, when it counts as broken."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PlainSerializer, PlainValidator, WithJsonSchema

from proxy.core.rules.base import Section
from proxy.core.rules.options import Options
from proxy.core.rules.parse import describe
from proxy.core.rules.secret import Secret
from proxy.core.rules.tls import Tls
from proxy.core.rules.values import (
    AsTuple,
    Count,
    CountOrZero,
    Duration,
    Percent,
    RuledKind,
    Url,
    UrlPath,
    Word,
)


def parse_statuses(value: Any) -> frozenset[int]:
    """A list of error statuses; raises ValueError."""
    if not isinstance(value, list | tuple | frozenset):
        raise ValueError(f"expected a list such as [429, 503], got {describe(value)}")
    for status in value:
        if type(status) is not int or not 400 <= status <= 599:
            raise ValueError("expected statuses from 400 to 599")
    return frozenset(value)


def above_zero(value: float) -> float:
    """A rate that any attempt would reach is none; raises ValueError."""
    if value <= 0:
        raise ValueError("must be more than 0")
    return value


def _handler(value: str) -> str:
    parts = value.split(":")
    named = all(part.replace("-", "_").isidentifier() for part in parts[0].split("."))
    if not named or len(parts) > 2 or not all(part.isidentifier() for part in parts[1:]):
        raise ValueError("expected a handler's name such as webhook, or module:name")
    return value


Statuses = Annotated[
    frozenset[int],
    Word("list of statuses"),
    PlainValidator(parse_statuses),
    PlainSerializer(sorted, return_type=list[int]),
    WithJsonSchema({"type": "array", "items": {"type": "integer", "minimum": 400, "maximum": 599}}),
]


Rate = Annotated[Percent, AfterValidator(above_zero)]


class Breaker(Section):
    """When an arm counts as broken, and how it comes back."""

    enabled: bool = Field(True, description="false: counts and shows, never opens (metrics_only).")
    failures: Count = Field(5, description="Failures in a row that open it.")
    open_for: Duration = Field(
        60.0, description="How long it stays open at first; each failed half-open doubles it."
    )
    open_max: Duration = Field(
        600.0,
        description="The longest it stays open, whatever it asks for (Retry-After).",
    )
    window: Duration = Field(30.0, description="The sliding window of the two rates.")
    min_volume: Count = Field(20, description="Attempts in the window before a rate counts.")
    failure_rate: Rate | None = Field(
        None, description="Part of the attempts in the window whose failure opens it."
    )
    slow: Duration | None = Field(
        None, description="An attempt that takes longer is slow; null: no such rule."
    )
    slow_rate: Rate = Field(
        80.0, description="Part of the attempts in the window whose slowness opens it."
    )
    half_open: Count = Field(3, description="Successes one after another that close it again.")
    per_tool: bool = Field(
        False,
        description="Each tool that `tools` names has its own: its failures close off it alone.",
    )


class BodyVerdict(Section):
    """How an answer of this backend is judged if its JSON says so."""

    when: dict[str, Any] = Field(
        description="Dotted paths into the answer's JSON, each with its matcher."
    )
    verdict: Literal["failed", "business_no"] = Field(
        description="failed: the backend did not do its work; business_no: it did, and declined."
    )


class Health(Section):
    """Active probing of an arm."""

    path: UrlPath | None = Field(None, description="Asked with GET; any 2xx is well.")
    expect: dict[str, Any] | None = Field(
        None,
        description="What the JSON at `path` must say too: dotted paths, each with a value, a list "
        "of values or a matcher.",
    )
    probe: str | None = Field(
        None,
        description="server/discover or tools/list of MCP, or a read tool that is then called.",
    )
    arguments: dict[str, Any] | None = Field(
        None, description="What the tool is called with, if the probe is one."
    )
    every: Duration = Field(10.0, description="Time between two probes.")
    timeout: Duration | None = Field(
        None, description="Longest time for a probe; null: the backend's, at most 10s."
    )
    healthy_after: Count = Field(2, description="Good probes in a row that make it well.")
    unhealthy_after: Count = Field(3, description="Bad probes in a row that make it unwell.")


class Backend(Section):
    """One backend: an arm of the split, or the passthrough."""

    handler: Annotated[str, AfterValidator(_handler)] = Field(
        description="webhook, mcp, tools, demo, an installed handler's name, or module:name."
    )
    url: Url | None = Field(
        None, description="Its endpoint; without a path the caller's path is kept."
    )
    paths: dict[RuledKind, UrlPath] = Field(
        default_factory=dict, description="A path per kind, where they differ; {tool} is filled."
    )
    bearer: Secret | None = Field(None, description="Bearer token sent to it.")
    sign: Secret | None = Field(None, description="Retell key that signs what we compose for it.")
    timeout: Duration = Field(30.0, description="Longest time for one attempt.")
    connect_timeout: Duration = Field(0.25, description="Longest time to connect.")
    connections: Count = Field(256, description="Most connections at a time.")
    queue: CountOrZero = Field(
        128, description="Requests that may wait for a connection; 0: nobody waits."
    )
    queue_timeout: Duration = Field(0.1, description="Longest time to wait for a connection.")
    keepalive: Duration = Field(
        4.0, description="Longest idle time of a connection; keep it below the upstream's own."
    )
    tls: Tls = Field(Tls(), description="For https URLs: whom to trust, and what to show.")
    not_executed: Statuses = Field(
        frozenset(), description="Statuses that promise: the tool has not run."
    )
    body_verdicts: Annotated[tuple[BodyVerdict, ...], AsTuple] = Field(
        (), description="How its 2xx answers are judged by what they say; the first that fits wins."
    )
    breaker: Breaker = Field(Breaker(), description="When it counts as broken.")
    health: Health | None = Field(None, description="Active probing; null: none.")
    catalogue_every: Duration | None = Field(
        60.0, description="How often an MCP server is asked what it lists; null: never."
    )
    options: Options = Field(
        default_factory=dict,
        description="Handed to a handler of your own as they are; a secret (token, api_key, ...) "
        "as env:NAME or file:/path.",
    )
