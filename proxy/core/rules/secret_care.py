"""How well are the secrets in use looked after: how old are they, how long?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date

from proxy.core.rules.model import Rules
from proxy.core.rules.secret import SecretRef
from proxy.core.rules.walk import secrets

OLD_DAYS = 90
"""After which a secret should have been replaced."""

SHORTEST = 16
"""Bytes of a token that nobody finds by trying."""

Length = Callable[[SecretRef], int]
"""Bytes of the secret that a reference leads to; 0: there is none."""


@dataclass(frozen=True, slots=True)
class Dated:
    """A secret of which the rules say since when it is in use."""

    path: str
    ref: str
    since: date

    def days(self, today: date) -> int:
        """Its age; negative if that day is still to come."""
        return (today - self.since).days


def dated(rules: Rules) -> list[Dated]:
    """Every one, in the order of the keys."""
    return [
        Dated(path, str(ref), ref.since) for path, ref in secrets(rules) if ref.since is not None
    ]


def age_warnings(rules: Rules, today: date) -> list[str]:
    """Those that are old, and days that cannot be right."""
    return [text for secret in dated(rules) for text in _of_age(secret, secret.days(today))]


def length_warnings(rules: Rules, length: Length) -> list[str]:
    """Tokens of our own making that are too short; Retell's keys are Retell's."""
    ours = [
        *((f"auth.tokens.{place}", ref) for place, ref in enumerate(rules.auth.tokens)),
        ("admin.token", rules.admin.token),
        ("split.force.token", rules.split.force.token if rules.split.force else None),
    ]
    return [
        f"{path}: {ref} is shorter than {SHORTEST} bytes, so it could be found by trying: "
        "openssl rand -hex 32 makes a good one"
        for path, ref in ours
        if ref is not None and 0 < length(ref) < SHORTEST
    ]


def _of_age(secret: Dated, days: int) -> Iterator[str]:
    if days < 0:
        yield f"{secret.path}: {secret.ref} is in use since {secret.since}, a day that is to come"
    elif days >= OLD_DAYS:
        yield (
            f"{secret.path}: {secret.ref} has been in use for {days} days, since {secret.since}: "
            f"replace it, and since with it, every {OLD_DAYS} days at least"
        )
