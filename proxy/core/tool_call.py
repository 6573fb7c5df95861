"""Which tool does a body call, and with which arguments?"""

from __future__ import annotations

from msgspec import UNSET, Raw, UnsetType

from proxy.errors import Refused

MAX_TOOL = 256
"""Characters of a tool's name."""
NO_ARGUMENTS = b"{}"


def is_tool(name: str) -> bool:
    """Tell a tool's name from what may lead an arm elsewhere: it may become part of its path."""
    return len(name) <= MAX_TOOL and name not in (".", "..")


def tool_of(name: str) -> str:
    """`name` itself; raises `Refused` if it can be no tool's."""
    if not is_tool(name):
        raise Refused(400, "bad_tool", "This is no name of a tool.")
    return name


def arguments_of(raw: Raw | UnsetType) -> bytes:
    """The arguments as JSON; raises ValueError if they are no UTF-8."""
    text = NO_ARGUMENTS if raw is UNSET else bytes(raw)
    return NO_ARGUMENTS if text == b"null" else checked(text)


def checked(text: bytes) -> bytes:
    """Raises ValueError if it is no UTF-8; what JSON passes over is not looked at so closely."""
    if not text.isascii():
        text.decode()
    return text
