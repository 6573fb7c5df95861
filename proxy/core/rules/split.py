"""Which share of the calls goes where, and what outranks the share."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, PlainSerializer, PlainValidator, WithJsonSchema

from proxy.core.rules.base import Section
from proxy.core.rules.parse import describe
from proxy.core.rules.secret import Secret, SecretRef, is_reference, parse_secret, say_secret
from proxy.core.rules.values import AsTuple, HeaderName, Name, Percent, Word


def parse_salt(value: Any) -> SecretRef | str:
    """A secret reference, or a plain text; raises ValueError."""
    if isinstance(value, SecretRef | dict) or is_reference(value):
        return parse_secret(value)
    if not isinstance(value, str):
        raise ValueError(f"expected a secret reference or a text, got {describe(value)}")
    return value


def _say_salt(value: SecretRef | str) -> Any:
    return say_secret(value) if isinstance(value, SecretRef) else value


Salt = Annotated[
    SecretRef | str,
    Word("secret reference or text"),
    PlainValidator(parse_salt),
    PlainSerializer(_say_salt),
    WithJsonSchema({"type": "string"}),
]


class Override(Section):
    """A rule for some calls that outranks the share."""

    when: dict[str, Any] = Field(
        description="Which calls: dotted paths into the request, each with its matcher."
    )
    to: Name | None = Field(None, description="The arm of these calls; or give percent.")
    percent: Percent | None = Field(None, description="The share of these calls; or give to.")
    test: bool = Field(False, description="Outranks the cap too: for calls of your own.")


class Force(Section):
    """Lets a holder of the token choose the arm of one request by header."""

    header: HeaderName = Field(description="The header that names the arm, then the token.")
    token: Secret = Field(description="What the header must carry besides the arm.")


class Split(Section):
    """The split between two arms."""

    enabled: bool = Field(
        True, description="false: the kill switch is on from the start, nobody reaches `to`."
    )
    to: Name = Field("mcp", description="The arm that the share fills.")
    otherwise: Name = Field("webhook", description="The other arm.")
    percent: Percent = Field(0.0, description="The share: 0 to 100, in steps of 0.01.")
    cap: Percent = Field(100.0, description="No share, not even an override's, exceeds it.")
    salt: Salt = Field(
        "", description="Mixed into the hash. A secret keeps call IDs from being crafted."
    )
    call_id_headers: Annotated[tuple[HeaderName, ...], AsTuple] = Field(
        ("x-call-id", "x-retell-call-id"), description="Headers that may carry the call ID."
    )
    call_id_query: Annotated[tuple[str, ...], AsTuple] = Field(
        ("call_id",), description="Query parameters that may carry the call ID."
    )
    overrides: Annotated[tuple[Override, ...], AsTuple] = Field(
        (), description="Rules that outrank the share; the first that fits wins."
    )
    force: Force | None = Field(None, description="Forcing an arm by header; null: impossible.")
