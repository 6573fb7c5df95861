"""Which arm does a holder of the force token want for this one request?"""

from __future__ import annotations

from proxy.core.model import Head
from proxy.core.tokens import TokenSet


class Force:
    """A header `<arm> <token>`; with no `token` configured it is nobody's to use."""

    __slots__ = ("_tokens", "header")

    def __init__(self, header: bytes, token: bytes | None) -> None:
        self.header = header  # lower case
        self._tokens = TokenSet([] if token is None else [token])

    def arm(self, head: Head) -> str | None:
        """The arm that was named, whether there is one of that name or not; None: nobody may."""
        if self.header in head.repeated:
            return None
        name, _, token = head.named[self.header].partition(b" ")
        return name.decode("latin-1") if self._tokens.find(token.strip(b" ")) >= 0 else None
