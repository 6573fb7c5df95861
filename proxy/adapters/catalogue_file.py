"""Where does what an MCP server lists outlive this process?  In one file per arm."""

from __future__ import annotations

from threading import Lock
from typing import Final

from structlog.typing import FilteringBoundLogger

from proxy.adapters.state_dir import StateDir
from proxy.core.dialects.catalogue import Catalogue
from proxy.core.mcp.saved_catalogue import dump, load

MOST_BYTES: Final = 4 * 2**20
"""A larger catalogue is not kept for the next process."""


class CatalogueFiles:
    """The files in the state directory.  No trouble with them keeps anything else from working.

    They may be saved from any thread.
    """

    def __init__(self, state: StateDir, log: FilteringBoundLogger) -> None:
        self._state = state
        self._log = log
        self._saving = Lock()

    def load(self, arm: str, place: str) -> Catalogue | None:
        """What an earlier process heard of that arm at that place; None: nothing that counts."""
        if not self._state.readable:
            return None
        try:
            document = self._state.read(file_of(arm))
            return load(document, place) if document is not None else None
        except OSError as error:
            self._log.warning("catalogue_not_read", arm=arm, why=error.strerror)
        except ValueError as error:
            self._log.warning("catalogue_broken", arm=arm, why=str(error), file=file_of(arm))
        return None

    def save(self, arm: str, place: str, catalogue: Catalogue) -> None:
        """Leave it to the next process; blocks until the disk has it."""
        if not self._state.writable:
            return
        document = dump(catalogue, place)
        if len(document) > MOST_BYTES:
            self._log.warning("catalogue_not_kept", arm=arm, why="too large", bytes=len(document))
            return
        try:
            with self._saving:
                self._state.replace(file_of(arm), document)
        except OSError as error:
            self._log.warning("catalogue_not_kept", arm=arm, why=error.strerror)


def file_of(arm: str) -> str:
    """The name of an arm's file; an arm's own name has nothing in it that leads elsewhere."""
    return f"catalogue-{arm}.json"
