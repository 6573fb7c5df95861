"""What is to be written in one turn of the loop is written together, once the turn is over.

A write is a way through the kernel's whole network stack.  Done between two pieces of Python, each
finds its code and data gone from the processor's caches, and leaves Python's gone behind it.  Done
one right after the other they cost half, and Python between them less too: with 64 connections a
sixth of all CPU.  A turn is far shorter than a millisecond unless there is that much to do.
"""

from __future__ import annotations

import asyncio
from typing import Protocol


class Writer(Protocol):
    """Holds back what it has to write until its turn is over."""

    def write_out(self) -> None:
        """Write it now, if it is still to be written."""


class Turn:
    """Those who wait for the end of the turn, in the order in which they came."""

    __slots__ = ("_writers",)

    def __init__(self) -> None:
        self._writers: list[Writer] = []

    def add(self, writer: Writer) -> None:
        """Have `writer` write once everything that can run now has run."""
        if not self._writers:
            asyncio.get_running_loop().call_soon(self._over)
        self._writers.append(writer)

    def _over(self) -> None:
        writers, self._writers = self._writers, []
        for writer in writers:
            try:
                writer.write_out()
            except Exception as error:  # The others must not wait for ever.
                asyncio.get_running_loop().call_exception_handler(
                    {"message": "a write failed", "exception": error}
                )
