"""What the admin API may ask of the running sidecar."""

from __future__ import annotations

from typing import Any, Protocol


class OutboxOperations(Protocol):
    """The operator's view of events that wait.  `entry` is a number, or `dead` for all such.

    Raises KeyError for an unknown entry, `proxy.errors.StoreFailed` if they cannot be had.
    """

    def summary(self) -> dict[str, Any]:
        """How many wait, and how."""

    def overview(self, state: str, call_id: str | None) -> dict[str, Any]:
        """How it stands, and `queued`, `dead` or `all` entries; raises ValueError for another."""

    async def show(self, entry: str, *, body: bool) -> dict[str, Any]:
        """One with its request; the body is personal data, and comes only if asked for."""

    async def retry(self, entry: str) -> dict[str, Any]:
        """Deliver it now; raises ValueError if it is being delivered."""

    async def drop(self, entry: str) -> dict[str, Any]:
        """Forget it, delivered or not."""


class Operations(Protocol):
    """The operator's view.  Plain JSON values; no secret, body or phone number in any of them."""

    @property
    def outbox(self) -> OutboxOperations:
        """What waits there; the one place where a body may be asked for."""

    def unready(self) -> list[str]:
        """Why traffic is not welcome; empty: it is."""

    def status(self) -> dict[str, Any]:
        """Split, arms, breakers, listener, rules: one page."""

    def config(self) -> dict[str, Any]:
        """The rules in force; secrets as references."""

    def explain(self, call_id: str | None, body: bytes | None) -> dict[str, Any]:
        """Why a call goes where it goes; raises ValueError for a body that is no request."""

    def breakers(self) -> dict[str, Any]:
        """Every arm's breaker."""

    def change_breaker(self, arm: str, action: str, tool: str = "") -> dict[str, Any]:
        """Do `reset`, `open`, `close` or `metrics-only`; answer before and after.

        With `tool` to that tool's breaker on the arm, else to the arm's and all its tools'.  Raises
        KeyError for an arm or tool without a breaker, ValueError for an unknown action.
        """

    def replays(self, state: str, call_id: str | None) -> dict[str, Any]:
        """What the replay guard knows: `held`, `unknown`, `in_flight`, `done` or `all` of it.

        Raises ValueError for another state.
        """

    def release_replay(self, record: str) -> dict[str, Any]:
        """Let a write run again; answer before and after.

        Raises KeyError for an unknown record, ValueError for one that is running.
        """

    def metrics(self, accept: str) -> tuple[bytes, str]:
        """The exposition and its content type."""
