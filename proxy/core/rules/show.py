"""How the rules in force are shown: every effective value, no secret."""

from __future__ import annotations

from typing import Any

from proxy.core.rules.fill import is_secret_name
from proxy.core.rules.model import Rules
from proxy.core.rules.secret import is_reference

MASK = "****"


def shown(rules: Rules) -> dict[str, Any]:
    """The rules as plain values for YAML or JSON.

    Secrets stand as references; a salt written as text, telling names in a backend's options
    and in a URL's query are masked.
    """
    values = rules.model_dump(mode="json")
    if rules.split.salt and isinstance(rules.split.salt, str):
        values["split"]["salt"] = MASK
    for backend in values["backends"].values():
        backend["options"] = _masked(backend["options"])
        backend["url"] = shown_url(backend["url"])
    return values


def shown_url(url: str | None) -> str | None:
    """A backend's URL; what telling names in its query hold is masked."""
    if url is None or "?" not in url:
        return url
    path, _, query = url.partition("?")
    pairs = [pair.partition("=") for pair in query.split("&")]
    shown = [name + sign + (MASK if is_secret_name(name) else value) for name, sign, value in pairs]
    return f"{path}?{'&'.join(shown)}"


def _masked(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            name: MASK if is_secret_name(name) and _is_text(inner) else _masked(inner)
            for name, inner in value.items()
        }
    return [_masked(inner) for inner in value] if isinstance(value, list) else value


def _is_text(value: Any) -> bool:
    """A text that is no reference."""
    return isinstance(value, str) and not is_reference(value)
