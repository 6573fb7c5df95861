"""Which earlier run of a write answers this tool call?"""

from __future__ import annotations

from proxy.core.replay_values import Done, Run


class FormerRuns:
    """Finished runs that another one of their key has followed, by the tool calls they answer."""

    def __init__(self) -> None:
        self._runs: dict[tuple[bytes, str], Run] = {}

    def add(self, run: Run) -> None:
        """Another run follows this one."""
        self._runs.update({(run.key, each): run for each in run.ids})

    def forget(self, run: Run) -> None:
        """A run is known no longer; it may never have been added."""
        for each in run.ids:
            if self._runs.get((run.key, each)) is run:
                del self._runs[run.key, each]

    def done(self, key: bytes, tool_call_id: str, now: float) -> Done | None:
        """How the run ended that answers this tool call, as long as that holds."""
        run = self._runs.get((key, tool_call_id))
        return run.done if run is not None and run.holds(now) else None
