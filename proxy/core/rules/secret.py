"""How the rules point at a secret without holding it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator, WithJsonSchema

from proxy.core.rules.parse import SecretError
from proxy.core.rules.values import Word

_REFERENCE = re.compile(r"(env:[A-Za-z_][A-Za-z0-9_]*|file:[^\x00-\x1f?]+)(\?)?", re.ASCII)
_WANTED = "expected a reference to a secret, never the secret itself"
_WAY_OUT = "env:NAME or file:/path, with ? at its end if it may be absent"


@dataclass(frozen=True, slots=True)
class SecretRef:
    """Where a secret stands; never the secret.

    `ref` is `env:NAME` or `file:/path`.  An `optional` one may be absent.  `since` is the
    day from which the secret is in use, so that its age is known.
    """

    ref: str
    optional: bool = False
    since: date | None = None

    def __str__(self) -> str:
        return self.ref + ("?" if self.optional else "")


def is_reference(value: object) -> bool:
    """Whether a text is meant as a reference (it may still be a faulty one)."""
    return isinstance(value, str) and value.startswith(("env:", "file:"))


def parse_secret(value: Any) -> SecretRef:
    """`env:NAME`, `file:/path`, each with `?`, or `{ref, since}`; raises SecretError.

    No message shows the value: it may be the secret itself, pasted by mistake.
    """
    if isinstance(value, SecretRef):
        return value
    if isinstance(value, dict):
        return _parse_dated(value)
    found = _REFERENCE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise SecretError(_WANTED, _WAY_OUT)
    return SecretRef(found[1], optional=found[2] is not None)


def _parse_dated(value: dict[Any, Any]) -> SecretRef:
    if not {"ref"} <= value.keys() <= {"ref", "since"}:
        raise SecretError("a secret as a mapping has the keys ref and since, nothing else")
    plain = parse_secret(value["ref"])
    since = value.get("since")
    if since is None:
        return plain
    try:
        return SecretRef(plain.ref, plain.optional, date.fromisoformat(since))
    except (TypeError, ValueError):
        raise SecretError("since must be a day such as 2026-01-31") from None


def say_secret(value: SecretRef) -> str | dict[str, str]:
    """A reference as it would stand in the rules."""
    return {"ref": str(value), "since": str(value.since)} if value.since else str(value)


REFERENCE_SCHEMA: dict[str, Any] = {
    "type": "string",
    "pattern": r"^(env:[A-Za-z_][A-Za-z0-9_]*|file:[^?]+)\??$|\$\{",
    "description": "env:NAME or file:/path; a ? at its end: may be absent",
}
SECRET_SCHEMA: dict[str, Any] = {
    "anyOf": [
        REFERENCE_SCHEMA,
        {
            "type": "object",
            "properties": {
                "ref": REFERENCE_SCHEMA,
                "since": {"type": "string", "description": "in use since this day: 2026-01-31"},
            },
            "required": ["ref"],
            "additionalProperties": False,
        },
    ]
}
Secret = Annotated[
    SecretRef,
    Word("secret reference"),
    PlainValidator(parse_secret),
    PlainSerializer(say_secret),
    WithJsonSchema(SECRET_SCHEMA),
]
