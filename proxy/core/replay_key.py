"""Which requests ask for the same write?

Those of one call (or MCP session) for one tool with equal arguments.  In what order the arguments
stand, and with how much white space, does not matter; any difference in a value does.
"""

from __future__ import annotations

from hashlib import blake2b

import msgspec
from msgspec import Raw

from proxy.core.model import Call

KEY_BYTES = 16
MAX_CANONICAL = 65_536
"""Bytes of arguments; larger ones are equal only if all their bytes are."""

# Integers of any size stay exact as they are; other numbers stay as they were written.
_read = msgspec.json.Decoder(float_hook=lambda digits: Raw(digits.encode())).decode
_write = msgspec.json.Encoder(order="sorted").encode


def scope_of(call: Call) -> str | None:
    """Whose write it is: the call's, else its MCP session's; None: nobody can know."""
    if call.id is not None:
        return call.id
    # Our own word for it: the header is a token by which its holder acts in the session.
    return None if call.session is None else f"session:{call.session.id}"


def replay_key(scope: str, tool: str, arguments: bytes | None, body: bytes) -> bytes:
    """The same 16 bytes for the same write, on every replica and after every restart.

    Without `arguments` the whole body takes their place.  The digest is a cryptographic one:
    whoever speaks with the agent has a say in the arguments.
    """
    text = canonical(arguments) if arguments is not None else None
    names = (scope, tool, text is None)
    if text is None:
        text = body if arguments is None else arguments
    try:
        parts = _write(names)
    except UnicodeEncodeError:  # half a surrogate pair, or a byte that is no text
        parts = ascii(names).encode()
    return blake2b(parts + text, digest_size=KEY_BYTES).digest()


def canonical(text: bytes) -> bytes | None:
    """JSON in the one form that all equal values have; None if that cannot be said for sure.

    Such is what is too large, too deep, no text, or has two members of one name: readers
    do not agree on what that means.
    """
    if len(text) > MAX_CANONICAL:
        return None
    try:
        form = _write(_read(text))
    except (ValueError, RecursionError):
        return None
    # No value is written longer than it was; so if the length is the same, nothing was dropped.
    return form if len(form) == len(text) or _is_whole(text, form) else None


def _is_whole(text: bytes, form: bytes) -> bool:
    """Whether `form` has every member of `text`: each has its colon, white space has none."""
    return text.count(b":") == form.count(b":") and b"u003" not in text
