"""What does this replica sign MCP sessions with?  A key of its own, kept in the state directory."""

from __future__ import annotations

import secrets
from typing import Final

from structlog.typing import FilteringBoundLogger

from proxy.adapters.state_dir import StateDir

FILE: Final = "session-key"
KEY_BYTES: Final = 32


def session_key(state: StateDir, log: FilteringBoundLogger, *, shared: bool) -> bytes:
    """The key of the state directory; a new one, if there is none that can be used.

    One that cannot be kept serves this process alone: the next one knows none of its sessions.
    `shared`: the rules give a key too, so that this is nothing to worry about.
    """
    if not state.readable:
        return _unkept(state, log, state.why, shared=shared)
    try:
        known = state.read(FILE)
        if known is not None and len(known) == KEY_BYTES:
            return known
        key = secrets.token_bytes(KEY_BYTES)
        state.replace(FILE, key)
    except OSError as error:
        return _unkept(state, log, error.strerror, shared=shared)
    if known is not None:
        log.error("session_key_broken", why=f"it has {len(known)} bytes, not {KEY_BYTES}")
    return key


def _unkept(state: StateDir, log: FilteringBoundLogger, why: str | None, *, shared: bool) -> bytes:
    if not shared:
        log.warning("session_key_in_memory_only", state_dir=str(state.path), why=why)
    return secrets.token_bytes(KEY_BYTES)
