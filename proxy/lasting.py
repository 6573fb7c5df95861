"""Streams that last as long as their readers like, and so must be ended by somebody."""

from __future__ import annotations

from proxy.relay import Settled


class Lasting:
    """What a server says of its own accord, to whoever listens: such a stream ends when we do.

    Their number is a gauge of its own: they are not work in flight.
    """

    def __init__(self) -> None:
        self._streams: set[Settled] = set()
        self._ended = False

    def __len__(self) -> int:
        return len(self._streams)

    def add(self, stream: Settled) -> None:
        """One begins."""
        self._streams.add(stream)
        if self._ended:
            stream.drop()

    def discard(self, stream: Settled) -> bool:
        """It is over; False: it was none of these."""
        try:
            self._streams.remove(stream)
        except KeyError:
            return False
        return True

    def end(self) -> None:
        """End them all: no drain waits for them, and their readers ask again elsewhere."""
        self._ended = True
        for stream in tuple(self._streams):
            stream.drop()
