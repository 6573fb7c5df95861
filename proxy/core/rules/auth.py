"""Who may ask: credentials, addresses and what each kind requires."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, PlainSerializer, PlainValidator, WithJsonSchema

from proxy.core.rules.base import Section
from proxy.core.rules.parse import HintedError, describe, parse_word
from proxy.core.rules.secret import Secret
from proxy.core.rules.values import AsTuple, Cidr, Duration, RuledKind, Word


class Repeats(StrEnum):
    """What becomes of a signature that has been here before."""

    ACCEPT = "accept"
    REFUSE = "refuse"


class Credential(StrEnum):
    """What a request can prove itself by."""

    TOKEN = "token"  # noqa: S105 - a word of the rules, no secret.
    SIGNATURE = "signature"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Requirement:
    """What a kind needs: any of `of`, or with `every` all of them."""

    of: frozenset[Credential]
    every: bool = False

    @property
    def open(self) -> bool:
        """`none` is written out: anybody may ask."""
        return Credential.NONE in self.of


def parse_requirement(value: Any) -> Requirement:
    """`[token, signature]`, `none`, or `{all: [token, signature]}`; raises HintedError."""
    if isinstance(value, Requirement):
        return value
    if isinstance(value, dict):
        if set(value) != {"all"}:
            raise HintedError("expected a list, or {all: [token, signature]}")
        return Requirement(_credentials(value["all"], every=True), every=True)
    return Requirement(_credentials(value, every=False))


def _credentials(value: Any, *, every: bool) -> frozenset[Credential]:
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not listed:
        raise HintedError(f"expected a list of token, signature or none, got {describe(value)}")
    found = frozenset(_credential(word) for word in listed)
    if Credential.NONE in found and (every or len(found) > 1):
        raise HintedError("none stands alone", "beside another word it would make that one idle")
    return found


def _credential(word: Any) -> Credential:
    return Credential(parse_word(word, Credential, "credential"))


def _say_requirement(value: Requirement) -> Any:
    words = sorted(value.of)
    return {"all": words} if value.every else words


_LIST_SCHEMA: dict[str, Any] = {
    "type": "array",
    "items": {"type": "string", "enum": [str(credential) for credential in Credential]},
    "minItems": 1,
}
RuledRequirement = Annotated[
    Requirement,
    Word("list of token, signature, none, or {all: list}"),
    PlainValidator(parse_requirement),
    PlainSerializer(_say_requirement),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "const": "none"},
                _LIST_SCHEMA,
                {
                    "type": "object",
                    "properties": {"all": _LIST_SCHEMA},
                    "required": ["all"],
                    "additionalProperties": False,
                },
            ]
        }
    ),
]


RuledRepeats = Annotated[
    Repeats,
    Word("accept or refuse"),
    PlainValidator(lambda value: Repeats(parse_word(value, Repeats, "way with repeats"))),
    PlainSerializer(str, return_type=str),
    WithJsonSchema({"type": "string", "enum": [str(way) for way in Repeats]}),
]


class Auth(Section):
    """Who may ask."""

    tokens: Annotated[tuple[Secret, ...], AsTuple] = Field(
        (), description="Bearer tokens that callers may present."
    )
    retell_keys: Annotated[tuple[Secret, ...], AsTuple] = Field(
        (), description="Keys that Retell may have signed with; several during a rotation."
    )
    signature_tolerance: Duration = Field(
        300.0, description="How far a signature's time may lie from ours."
    )
    signature_repeats: RuledRepeats = Field(
        Repeats.ACCEPT,
        description="A signature that came before, within the tolerance: accept counts it, refuse "
        "answers 401. Retell may send its own retries with their first signature.",
    )
    allow: Annotated[tuple[Cidr, ...], AsTuple] = Field(
        (), description="Addresses that may ask, as CIDRs; empty: any."
    )
    require: dict[RuledKind, RuledRequirement] = Field(
        default_factory=dict,
        description="Per kind: any of token, signature, none; or {all: [...]}. Empty: no rule.",
    )
