"""What does the replay guard show of itself?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from proxy.adapters.tallies import Labels
from proxy.core.replay_store import RunStore


class Reads(Protocol):
    """Shows a family that is kept elsewhere."""

    def __call__(
        self,
        name: str,
        help_text: str,
        *labels: str,
        of: Callable[[], Mapping[Labels, float]],
        gauge: bool = True,
    ) -> None: ...


def tell_of_runs(read: Reads, runs: Callable[[], RunStore | None]) -> None:
    """Show what is known of writes; may be read from another thread."""

    def known() -> Mapping[Labels, float]:
        store = runs()
        if store is None:
            return {}
        return {
            ("in_flight",): store.in_flight,
            ("unknown",): store.unknown,
            ("done",): store.finished,
        }

    def size() -> Mapping[Labels, float]:
        store = runs()
        return {} if store is None else {(): store.bytes}

    def let_go() -> Mapping[Labels, float]:
        store = runs()
        if store is None:
            return {}
        return {("run",): store.evicted, ("answer",): store.stripped}

    read("replay_records", "Writes that the replay guard knows.", "state", of=known)
    read("replay_bytes", "Memory that their answers take, roughly.", of=size)
    read(
        "replay_evicted", "What the replay guard had to let go before its time.", "what",
        of=let_go, gauge=False)  # fmt: skip
