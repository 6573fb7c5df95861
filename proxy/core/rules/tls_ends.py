"""Which ends of TLS do the rules ask for, and of which files is each made?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from proxy.core.rules.model import Rules

LISTENER = "listen.tls"


@dataclass(frozen=True, slots=True)
class TlsEnd:
    """One end: `place` is where the rules speak of it, the rest which files it is made of."""

    place: str
    cert_file: str | None = None
    key_file: str | None = None  # None: the key stands in cert_file
    ca_file: str | None = None  # None: upstreams need one of the system's CAs, callers none
    server: bool = False
    min_version: str = "1.2"

    @property
    def ca_key(self) -> str:
        """The key of the rules that names `ca_file`."""
        return f"{self.place}.{'client_ca_file' if self.server else 'ca_file'}"

    @property
    def files(self) -> tuple[str, ...]:
        """All of them, each once."""
        named = (self.cert_file, self.key_file, self.ca_file)
        return tuple(dict.fromkeys(file for file in named if file is not None))


def place_of(backend: str) -> str:
    """Where the rules speak of a backend's TLS."""
    return f"backends.{backend}.tls"


def tls_ends(rules: Rules) -> Iterator[TlsEnd]:
    """The listener's, if it speaks TLS, and that of each https backend."""
    if (said := rules.listen.tls) is not None:
        yield TlsEnd(
            LISTENER,
            said.cert_file,
            said.key_file,
            said.client_ca_file,
            server=True,
            min_version=said.min_version,
        )
    for name, backend in rules.backends.items():
        if (backend.url or "").startswith("https:"):
            tls = backend.tls
            yield TlsEnd(place_of(name), tls.cert_file, tls.key_file, tls.ca_file)
