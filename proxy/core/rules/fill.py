"""How `${NAME:-default}` in a scalar becomes text, before the scalar gets its type."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

# Before "${": a second "$" takes its meaning away.
_PLACE = re.compile(r"\$\$\{|\$\{(?:([A-Za-z_][A-Za-z0-9_]*)(?::-([^{}]*))?\})?", re.ASCII)
_SECRET_WORDS = re.compile(r"TOKEN|KEY|SECRET|PASS|SALT|CREDENTIAL|AUTH", re.IGNORECASE)


class FillError(ValueError):
    """A place cannot be filled; `hint` is the way out."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True)
class Filled:
    """A scalar's text with its places filled.

    `names` are all variables it refers to, `given` those whose value came from the
    environment, not from the default.
    """

    text: str
    names: tuple[str, ...] = ()
    given: tuple[str, ...] = ()


def has_places(text: str) -> bool:
    """Whether there is anything to fill."""
    return "${" in text


def fill(text: str, environment: Mapping[str, str]) -> Filled:
    """Fill every `${NAME}` and `${NAME:-default}`; `$${` stands for `${` itself.

    An empty variable counts as unset, as in a shell.  Raises FillError.
    """
    names: list[str] = []
    given: list[str] = []

    def one(place: re.Match[str]) -> str:
        name, default = place[1], place[2]
        if place[0] == "$${":
            return "${"
        if name is None:
            raise FillError("`${` without a name and `}`", "write ${NAME} or ${NAME:-default}")
        names.append(name)
        if value := environment.get(name):
            if not is_text(value):
                raise FillError(f"the environment variable {name} holds no UTF-8", "set it anew")
            given.append(name)
            return value
        if default is None:
            raise FillError(
                f"the environment variable {name} is not set",
                f"set it, or give a default: ${{{name}:-...}}",
            )
        return default

    filled = _PLACE.sub(one, text)
    return Filled(filled, tuple(names), tuple(given))


def is_text(text: str) -> bool:
    """Whether it can be written as UTF-8: bytes that are none, and half a pair, cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_secret_name(name: str) -> bool:
    """Whether a variable's value had better not be shown."""
    return _SECRET_WORDS.search(name) is not None
