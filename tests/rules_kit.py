"""Rule sets for tests, from as little as has to be said."""

from __future__ import annotations

from typing import Any

from proxy.core.rules import Rules


def document(**sections: Any) -> dict[str, Any]:
    """The smallest rules document that is fine, with `sections` in place of its own."""
    backends = {
        "mcp": {"handler": "mcp", "url": "http://127.0.0.1:8000/mcp"},
        "webhook": {
            "handler": "webhook",
            "url": "http://127.0.0.1:8000/hook",
            "sign": "env:RETELL_API_KEY?",
        },
    }
    return {"backends": backends, **sections}


def rules(**sections: Any) -> Rules:
    """The rules of that document."""
    return Rules.model_validate(document(**sections))
