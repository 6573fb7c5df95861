"""What does the listener show of who is connected?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from proxy.adapters.replay_figures import Reads, once_there
from proxy.adapters.tallies import Labels


class Callers(Protocol):
    """Who is connected, and who could not stay."""

    open: int
    most: int
    let_go: int
    refused: dict[str, int]


def tell_of_callers(read: Reads, callers: Callable[[], Callers | None]) -> None:
    """Show them; may be read from another thread."""

    def refused(room: Callers) -> Mapping[Labels, float]:
        return {(why,): count for why, count in room.refused.items()}

    read("connections", "Callers connected.", of=once_there(callers, lambda room: {(): room.open}))
    read(
        "connections_limit",
        "Callers that may be connected.",
        of=once_there(callers, lambda room: {(): room.most}),
    )
    read(
        "connections_refused", "Callers turned away because there were too many.", "reason",
        of=once_there(callers, refused), gauge=False)  # fmt: skip
    read(
        "connections_let_go",
        "Connections that kept us waiting, or had their last answer, closed early to make room.",
        of=once_there(callers, lambda room: {(): room.let_go}), gauge=False)  # fmt: skip
