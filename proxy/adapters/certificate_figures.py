"""What is shown of certificates and handshakes?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from proxy.adapters.replay_figures import Reads, once_there
from proxy.adapters.tallies import Labels


class Shown(Protocol):
    """What is told of TLS."""

    def expiries(self) -> Mapping[Labels, float]: ...
    def successes(self) -> Mapping[Labels, float]: ...
    def handshakes(self) -> Mapping[Labels, float]: ...


def tell_of_certificates(read: Reads, shown: Callable[[], Shown | None]) -> None:
    """Show them; may be read from another thread."""
    read(
        "certificate_expires_timestamp_seconds",
        "When the first certificate of a chain that we show expires.", "key",
        of=once_there(shown, lambda each: each.expiries()))  # fmt: skip
    read(
        "certificate_last_reload_success",
        "1 if the newest files of one end of TLS are in force, 0 if they are bad.", "key",
        of=once_there(shown, lambda each: each.successes()))  # fmt: skip
    read(
        "tls_handshakes", "Handshakes with callers, by how they ended.", "outcome",
        of=once_there(shown, lambda each: each.handshakes()), gauge=False)  # fmt: skip
