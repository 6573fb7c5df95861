"""The options of a handler: as they stand, but for the secrets that telling names refer to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator, PlainSerializer

from proxy.core.rules.secret import SecretRef, is_reference, parse_secret, say_secret
from proxy.core.rules.telling import is_telling


def with_references(value: Any, *, telling: bool = False) -> Any:
    """Options whose references are read: `env:` and `file:` under names that tell of a secret.

    Under other names such a text is a text.  Raises `SecretError`.
    """
    if isinstance(value, dict):
        return {
            name: with_references(inner, telling=is_telling(str(name)))
            for name, inner in value.items()
        }
    if isinstance(value, list):
        return [with_references(inner, telling=telling) for inner in value]
    return parse_secret(value) if telling and is_reference(value) else value


def say_options(value: Any) -> Any:
    """Options as they would stand in the rules."""
    if isinstance(value, dict):
        return {name: say_options(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [say_options(inner) for inner in value]
    return say_secret(value) if isinstance(value, SecretRef) else value


def resolved(value: Any, secret: Callable[[SecretRef], bytes | None]) -> Any:
    """Options as a handler gets them: each secret as text, None if it may be absent and is."""
    if isinstance(value, SecretRef):
        found = secret(value)
        return None if found is None else found.decode("utf-8", "surrogateescape")
    if isinstance(value, dict):
        return {name: resolved(inner, secret) for name, inner in value.items()}
    if isinstance(value, list):
        return [resolved(inner, secret) for inner in value]
    return value


Options = Annotated[dict[str, Any], AfterValidator(with_references), PlainSerializer(say_options)]
