"""What is known of each tool: whether it may run twice, and what is said when it fails."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, PlainSerializer, PlainValidator, WithJsonSchema

from proxy.core.model import Effect
from proxy.core.rules.base import Section
from proxy.core.rules.parse import parse_word
from proxy.core.rules.spoken import Sentence, Spoken
from proxy.core.rules.values import AsTuple, Duration, DurationOrZero, Name, Word

DEFAULT = "default"
"""The entry in `tools` that speaks for every tool."""


def parse_effect(value: Any) -> Effect:
    """read, idempotent or write; raises HintedError."""
    return Effect(parse_word(value, Effect, "effect"))


RuledEffect = Annotated[
    Effect,
    Word("read, idempotent or write"),
    PlainValidator(parse_effect),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "enum": [str(effect) for effect in Effect]}),
]


class ToolEntry(Section):
    """One entry of `tools`.  What it leaves out comes from the entry `default`."""

    effect: RuledEffect | None = Field(
        None,
        description="What running it twice does: read, idempotent (on both arms) or write; left "
        "out, read if its MCP server says so (readOnlyHint).",
    )
    say: Sentence | None = Field(None, description="Spoken if nothing ran; text or per language.")
    say_pending: Sentence | None = Field(None, description="Spoken if it may have run.")
    say_done: Sentence | None = Field(
        None, description="Spoken for a repeat whose first answer was too large to keep."
    )
    language: str | None = Field(
        None, description="Dotted path to the caller's language in the request."
    )
    budget: Duration | None = Field(None, description="Instead of fallback.budget of its kind.")
    linger: DurationOrZero | None = Field(
        None, description="How long a timed-out write may still be answered."
    )
    hedge: bool | None = Field(
        None, description="Reads only: ask the other arm too once this one is slower than its p95."
    )
    replay_for: DurationOrZero | None = Field(
        None, description="How long a finished write's answer serves its repeats."
    )
    cache: Duration | None = Field(None, description="How long a read's answer is kept.")
    cache_key: Annotated[tuple[str, ...], AsTuple] | None = Field(
        None, description="Dotted paths that share an answer; left out: this call only."
    )
    stale_if_error: DurationOrZero | None = Field(
        None, description="Beyond `cache`: how long its answer is better than the last answer."
    )
    invalidates: Annotated[tuple[str, ...], AsTuple] = Field(
        (), description="Tools whose kept answers its success drops."
    )
    names: dict[Name, str] = Field(
        default_factory=dict,
        description="Its name on an arm, where it differs; MCP callers may use either.",
    )
    description: str | None = Field(
        None, description="What MCP callers read of it where we list the tools; else the server's."
    )
    input_schema: dict[str, Any] | None = Field(
        None, description="JSON Schema of its arguments, likewise; type: object."
    )
    output_schema: dict[str, Any] | None = Field(
        None, description="JSON Schema of its answer, which callers are told and given."
    )
    annotations: dict[str, Any] | None = Field(
        None,
        description="MCP hints, likewise; readOnlyHint is its effect too, if none stands beside.",
    )


BUILT_IN = ToolEntry.model_validate(
    {
        "effect": "write",
        "say": "I'm sorry, I can't reach our system right now.",
        "say_pending": "I'm still waiting for the confirmation; let me check before we try again.",
        "say_done": "That is already done.",
        "linger": "30s",
        "hedge": False,
        "replay_for": "15m",
    }
)
"""What holds where not even `tools.default` says anything."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool as it is in force: its own entry, then `default`, then what is built in.

    `own_effect` is the effect of its own entry alone: only that one may let a rescue follow
    an attempt that may have run.
    """

    name: str
    effect: Effect
    own_effect: Effect | None
    say: Spoken
    say_pending: Spoken
    say_done: Spoken
    language: str | None
    budget: float | None
    linger: float
    hedge: bool
    replay_for: float
    cache: float | None
    cache_key: tuple[str, ...] | None
    stale_if_error: float | None
    invalidates: tuple[str, ...]
    names: Mapping[str, str]
    description: str | None
    input_schema: Mapping[str, Any] | None
    output_schema: Mapping[str, Any] | None
    annotations: Mapping[str, Any] | None


def resolve(entries: Mapping[str, ToolEntry], name: str) -> Tool:
    """The tool of that name; one without an entry gets the defaults."""
    own = entries.get(name) if name != DEFAULT else None
    values: dict[str, Any] = {}
    for entry in (BUILT_IN, entries.get(DEFAULT), own):
        if entry is not None:
            said = {key: getattr(entry, key) for key in entry.model_fields_set}
            values |= {key: value for key, value in said.items() if value is not None}
    whole = ToolEntry.model_construct(**values)
    fields = {key: getattr(whole, key) for key in ToolEntry.model_fields}
    own_effect = effect_of(own) if own is not None else None
    if own_effect is not None:
        fields["effect"] = own_effect
    return Tool(name=name, own_effect=own_effect, **fields)


def effect_of(entry: ToolEntry) -> Effect | None:
    """What an entry itself says: in so many words, or else by the hint that it gives to others."""
    hint = (entry.annotations or {}).get("readOnlyHint")
    if entry.effect is not None or not isinstance(hint, bool):
        return entry.effect
    return Effect.READ if hint else Effect.WRITE
