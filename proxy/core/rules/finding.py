"""What was found in a rules document, and where, before anybody knows about lines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

Path: TypeAlias = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """A fault, or with `warning` a thing to look at.

    `path` leads from the document's root; its last part may be dotted (a path below a `when`).
    With `at_key` the key itself is at fault, not its value.  With `secret` the value must not
    be shown, because it may be one.
    """

    path: Path
    message: str
    hint: str = ""
    at_key: bool = False
    secret: bool = False
    warning: bool = False

    @property
    def dotted(self) -> str:
        """The path as ops say it: `backends.mcp.timeout`."""
        return ".".join(str(part) for part in self.path)


def of_when(path: Path, at: str, message: str, *, what: str = "when") -> Finding:
    """A fault at the dotted path `at` below a `when`, or below another key of that language."""
    if not at:
        return Finding(path, f"`{what}` {message}")
    message, _, hint = message.partition("; ")
    name = at if message.startswith("is no path") else at.rpartition(".")[2]
    where = f"item {int(name) + 1}:" if name.isdigit() else f"'{name}'"
    return Finding((*path, at), f"{where} {message}", hint, at_key=message.startswith("is no "))
