"""Everything that is fuzzed: by name, what takes any bytes and raises if a promise is broken."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Protocol

from tests.fuzz.answers import Answers
from tests.fuzz.bodies import Bodies
from tests.fuzz.ingress import Ingress
from tests.fuzz.rules import Rules
from tests.fuzz.tokens import Tokens
from tests.fuzz.upstream import Upstream

CORPUS: Final = Path(__file__).parent / "corpus"
"""A folder for each target: inputs to begin with, and every input that once broke a promise."""


class Target(Protocol):
    """One of them, ready; its own event loop ends with `close`."""

    def __call__(self, data: bytes) -> None:
        """Raise if `data` makes the product break a promise."""

    def close(self) -> None: ...


TARGETS: Final[Mapping[str, Callable[[], Target]]] = {
    "ingress": Ingress,
    "upstream": Upstream,
    "bodies": Bodies,
    "answers": Answers,
    "tokens": Tokens,
    "rules": Rules,
}


def seeds(target: str) -> list[Path]:
    """Its corpus, in a fixed order."""
    return sorted(path for path in (CORPUS / target).iterdir() if path.is_file())
