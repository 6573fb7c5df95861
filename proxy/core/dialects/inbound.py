"""What hears a ringing caller's webhook when it has no instructions?"""

from __future__ import annotations


def no_instructions(event: str | None) -> bytes:
    """Every member of the answer is optional, so the number's own agent takes the call."""
    return b'{"chat_inbound":{}}' if event == "chat_inbound" else b'{"call_inbound":{}}'
