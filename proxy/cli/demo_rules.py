"""Which rules does the demo run on?  Two arms in this process; all else anybody could write."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

TO, OTHERWISE = "mcp", "webhook"
"""The names of the two arms."""

FAILURES, TRIALS = 3, 3
"""In a row: failures that open a breaker, successes that close it again."""

SAY = "I'm sorry, I can't reach our booking system right now."
SAY_PENDING = "I'm still waiting for the confirmation; let me check before we try again."

_TEXT = """\
# The rules of `callsplit demo`.  Change `percent` and save: it is in force within a second.
version: 1
listen: {{address: "{listen}", drain_grace: 5s}}
admin: {{address: "{admin}"}}
split: {{to: {to}, otherwise: {otherwise}, percent: {percent:g}, salt: demo}}
backends:
  {to}:
    handler: demo
    options: {{like: mcp, latency: 0.04}}
    timeout: 700ms
    breaker: {{failures: {failures}, open_for: {open_for}ms, open_max: {open_for}ms, half_open: {trials}}}
  {otherwise}:
    handler: demo
    options: {{like: webhook, latency: 0.12}}
    timeout: 5s
tools:
  default: {{effect: write, say: {say}, say_pending: {say_pending}}}
  get_available_slots: {{effect: read}}
  get_company_info: {{effect: read}}
  get_customer_info: {{effect: read}}
  book_appointment: {{effect: write}}
auth:
  retell_keys: [{key}]
  require:
    event: [signature]
    inbound: [signature]
    function: [signature]
    args: [signature]
    alert: [signature]
    tools: [signature]
    mcp: [signature]
limits: {{tools_per_minute: null, ip_per_minute: null}}
state_dir: {state}
"""  # noqa: E501 - one line of YAML is one thought.


@dataclass(frozen=True, slots=True)
class DemoRules:
    """What differs from run to run, and from act to act; times are seconds."""

    listen: str
    admin: str
    folder: Path
    open_for: float

    @property
    def path(self) -> Path:
        """Where the rules file stands."""
        return self.folder / "rules.yaml"

    @property
    def key_path(self) -> Path:
        """Where the key stands that Retell would sign with."""
        return self.folder / "retell.key"

    def text(self, percent: float) -> str:
        """The whole rules file."""
        return _TEXT.format(
            listen=self.listen,
            admin=self.admin,
            to=TO,
            otherwise=OTHERWISE,
            percent=percent,
            failures=FAILURES,
            trials=TRIALS,
            open_for=round(self.open_for * 1000),
            say=json.dumps(SAY),
            say_pending=json.dumps(SAY_PENDING),
            key=json.dumps(f"file:{self.key_path}"),
            state=json.dumps(str(self.folder / "state")),
        )

    def save(self, percent: float) -> None:
        """Write the file as an editor would: whole, in one step."""
        draft = self.folder / "rules.yaml.new"
        draft.write_text(self.text(percent), encoding="utf-8")
        draft.replace(self.path)
