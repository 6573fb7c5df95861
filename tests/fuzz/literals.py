"""Every text that stands in the product's source: whatever else an error says is an echo."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_ROOT = Path(__file__).parents[2]


def _texts() -> Iterator[str]:
    for folder in ("proxy", "backends"):
        for path in (_ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    yield node.value


LITERALS: Final = frozenset(_texts())
