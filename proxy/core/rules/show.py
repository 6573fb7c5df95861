"""How the rules in force are shown: every effective value, no secret."""

from __future__ import annotations

from typing import Any

from proxy.core.rules.fill import is_secret_name
from proxy.core.rules.model import Rules

MASK = "****"


def shown(rules: Rules) -> dict[str, Any]:
    """The rules as plain values for YAML or JSON.

    Secrets stand as references; a salt written as text and telling names in a
    backend's options are masked.
    """
    values = rules.model_dump(mode="json")
    if rules.split.salt and isinstance(rules.split.salt, str):
        values["split"]["salt"] = MASK
    for backend in values["backends"].values():
        backend["options"] = _masked(backend["options"])
    return values


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: MASK if is_secret_name(name) and isinstance(inner, str) else _masked(inner)
            for name, inner in value.items()
        }
    return [_masked(inner) for inner in value] if isinstance(value, list) else value
