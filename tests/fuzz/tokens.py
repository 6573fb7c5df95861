"""What callers show as the token of an MCP session.

The first byte cuts the rest in two: a credential and a token.  No token opens a session but one
that we would write ourselves, letter for letter; and each that we write opens the very session that
it was made of, for its own credential only, and no longer once one letter of it has changed.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from typing import Final

from proxy.core.mcp.session import MAX_AGE_MS, VERSIONS, fit, mint, read
from proxy.core.model import Session

KEYS: Final = (b"k" * 32, b"older key")
NOW_MS: Final = 1_767_225_600_000


class Tokens:
    """The target."""

    def __call__(self, data: bytes) -> None:
        cut = data[0] if data else 0
        credential, token = data[1 : 1 + cut].decode("latin-1"), data[1 + cut :]
        check_token(token, credential)
        check_token(urlsafe_b64encode(token).rstrip(b"="), credential)
        check_session(token, credential)

    def close(self) -> None: ...


def check_token(token: bytes, credential: str) -> None:
    """It is none of ours, or it is exactly what we write."""
    session = read(token, credential, KEYS, NOW_MS)
    if session is not None:
        assert token in (mint(session, credential, KEYS[at:]) for at in range(len(KEYS)))


def check_session(data: bytes, credential: str) -> None:
    """A session of the input's own making, to and fro."""
    data = data.ljust(20, b"\0")
    arm = "".join(chr(97 + byte % 26) for byte in data[17:20])
    upstream: str | None = data[20:].decode("latin-1")
    issued = NOW_MS - int.from_bytes(data[16:20], "big") % (MAX_AGE_MS + 1)
    if upstream is None or not fit(upstream):
        upstream = None
    session = Session(data[:16].hex(), arm, VERSIONS[data[16] % len(VERSIONS)], issued, upstream)
    token = mint(session, credential, KEYS)

    assert read(token, credential, KEYS, NOW_MS) == session
    assert read(token, credential, KEYS[::-1], NOW_MS) == session
    assert read(token, credential + "x", KEYS, NOW_MS) is None
    assert read(token, credential, KEYS[1:], NOW_MS) is None
    assert read(token, credential, KEYS, issued + MAX_AGE_MS + 1) is None
    at = data[0] % len(token)
    for letter in (b"A", b"_", b"=", b"\n", b"\xff", b""):
        other = token[:at] + letter + token[at + 1 :]
        assert other == token or read(other, credential, KEYS, NOW_MS) is None
