"""What does the listener show of who is connected?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from proxy.adapters.replay_figures import Reads
from proxy.adapters.tallies import Labels


class Callers(Protocol):
    """Who is connected, and who could not stay."""

    open: int
    most: int
    let_go: int
    refused: dict[str, int]


def tell_of_callers(read: Reads, callers: Callable[[], Callers | None]) -> None:
    """Show them; may be read from another thread."""

    def shown(value: Callable[[Callers], float]) -> Callable[[], Mapping[Labels, float]]:
        def read_now() -> Mapping[Labels, float]:
            room = callers()
            return {} if room is None else {(): value(room)}

        return read_now

    def refused() -> Mapping[Labels, float]:
        room = callers()
        return {} if room is None else {(why,): count for why, count in room.refused.items()}

    read("connections", "Callers connected.", of=shown(lambda room: room.open))
    read("connections_limit", "Callers that may be connected.", of=shown(lambda room: room.most))
    read(
        "connections_refused", "Callers turned away because there were too many.", "reason",
        of=refused, gauge=False)  # fmt: skip
    read(
        "connections_let_go",
        "Connections that kept us waiting, or had their last answer, closed early to make room.",
        of=shown(lambda room: room.let_go), gauge=False)  # fmt: skip
