"""Who may try an arm that was open: first one synthetic probe, then real exchanges, one by one."""

from __future__ import annotations

from proxy.core.breaker_values import Permit, Role


class Trials:
    """The slots of one half-open era, from its beginning to its end.

    Both slots are leases: what is lost, or lasts as long as a stream may, cannot keep the arm
    half open for ever.  `probe_lease` and `patience` are seconds.
    """

    def __init__(self, era: int, now: float, *, probe_lease: float, patience: float) -> None:
        self.probed = False
        self.probe_at = now  # when the next probe may go, unless `probed`
        self.slow = 0  # exchanges that went well, but slowly
        self._era = era
        self._probe_lease = probe_lease
        self._patience = patience
        self._probe: Permit | None = None
        self._trial: Permit | None = None
        self._trial_until = 0.0
        self._safe_at = 0.0  # when the latest exchange that is safe to try with came

    def probe_due(self, now: float) -> Permit | None:
        """Lease the probe, unless one is under way or has passed."""
        if self.probed or now < self.probe_at:
            return None
        self._probe = Permit(self._era, Role.PROBE)
        self.probe_at = now + self._probe_lease
        return self._probe

    def is_current(self, probe: Permit) -> bool:
        """Its result still counts: no later probe replaced it, none has passed."""
        return probe is self._probe and not self.probed

    def probe_passed(self, now: float) -> None:
        """From now on real exchanges are tried."""
        self.probed = True
        self._safe_at = now

    def admit(self, now: float, *, safe: bool) -> Permit | None:
        """Lease the one slot for a real exchange; a write waits `patience` for a safer one."""
        if not self.probed:
            return None
        fit = safe or now - self._safe_at >= self._patience
        if safe:
            self._safe_at = now
        if not fit or (self._trial is not None and now < self._trial_until):
            return None
        self._trial = Permit(self._era, Role.TRIAL)
        self._trial_until = now + max(self._patience, self._probe_lease)
        return self._trial

    def release(self, permit: Permit) -> None:
        """Free the slot that `permit` holds, if it still holds it."""
        if permit is self._trial:
            self._trial = None
