"""Events that no arm takes: where and how long they wait."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import Field, PlainSerializer, PlainValidator, WithJsonSchema

from proxy.core.rules.base import Section
from proxy.core.rules.parse import SecretError
from proxy.core.rules.secret import SecretRef, is_reference, parse_secret, say_secret
from proxy.core.rules.values import Count, Duration, Size, Word

SQLITE = "sqlite"

_URL = re.compile(r"rediss?://[^\s/]+(/.*)?|unix:///\S+", re.ASCII)


def parse_store(value: Any) -> SecretRef | str:
    """`sqlite`, a redis URL without password, or a reference to a whole URL; raises ValueError."""
    if isinstance(value, SecretRef | dict) or is_reference(value):
        return parse_secret(value)
    if value == SQLITE:
        return SQLITE
    if not isinstance(value, str) or not _URL.fullmatch(value):
        raise ValueError("expected sqlite, redis://..., rediss://... or unix:///...")
    if "@" in value or "password=" in value:
        raise SecretError("a password never stands in the rules", "name the whole URL: env:NAME")
    return value


def _say_store(value: SecretRef | str) -> Any:
    return say_secret(value) if isinstance(value, SecretRef) else value


Store = Annotated[
    SecretRef | str,
    Word("sqlite or URL"),
    PlainValidator(parse_store),
    PlainSerializer(_say_store),
    WithJsonSchema({"type": "string"}),
]


class OutboxLimit(Section):
    """How much may wait; beyond it events get 503, as they would without an outbox."""

    entries: Count = Field(50_000, description="Events, dead ones included.")
    size: Size = Field(2**30, description="Bytes of all of them.")


class Outbox(Section):
    """Events and alerts that no arm takes: kept, answered 200, delivered later."""

    enabled: bool = Field(True, description="false: they get 503, and Retell tries again itself.")
    store: Store = Field(
        SQLITE,
        description="sqlite: a file in state_dir; or a redis URL, for replicas without a volume.",
    )
    give_up: Duration = Field(86_400.0, description="After this an event is dead, with a reason.")
    retry_first: Duration = Field(
        2.0, description="The pause after the first failure; it doubles each time."
    )
    retry_max: Duration = Field(300.0, description="The longest pause.")
    parallel: Count = Field(8, description="Deliveries at a time; of one call never more than one.")
    limit: OutboxLimit = Field(OutboxLimit(), description="How much may wait; beyond it: 503.")
