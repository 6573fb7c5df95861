"""What does the replay guard show of itself?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar

from proxy.adapters.tallies import Labels
from proxy.core.replay_store import RunStore

_Part = TypeVar("_Part")


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


def once_there(
    part: Callable[[], _Part | None], figures: Callable[[_Part], Mapping[Labels, float]]
) -> Callable[[], Mapping[Labels, float]]:
    """What `figures` tells of a part; nothing while there is none."""

    def read_now() -> Mapping[Labels, float]:
        found = part()
        return {} if found is None else figures(found)

    return read_now


def tell_of_runs(read: Reads, runs: Callable[[], RunStore | None]) -> None:
    """Show what is known of writes; may be read from another thread."""

    def known(store: RunStore) -> Mapping[Labels, float]:
        return {
            ("in_flight",): store.in_flight,
            ("unknown",): store.unknown,
            ("done",): store.finished,
        }

    def size(store: RunStore) -> Mapping[Labels, float]:
        return {(): store.bytes}

    def let_go(store: RunStore) -> Mapping[Labels, float]:
        return {("run",): store.evicted, ("answer",): store.stripped}

    read(
        "replay_records", "Writes that the replay guard knows.", "state", of=once_there(runs, known)
    )
    read("replay_bytes", "Memory that their answers take, roughly.", of=once_there(runs, size))
    read(
        "replay_evicted", "What the replay guard had to let go before its time.", "what",
        of=once_there(runs, let_go), gauge=False)  # fmt: skip
