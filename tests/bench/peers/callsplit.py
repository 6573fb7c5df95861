"""callsplit with everything on: signature, limits, breakers, probes, metrics, access lines.

Both arms are webhooks at the origin, because the other peers cannot translate.
"""

from __future__ import annotations

import json
import sys
from collections import Counter

from tests.bench.place import KEY as SECRET
from tests.bench.place import Place

KEY = "callsplit"
LABEL = "callsplit, everything on"

RULES = """\
version: 1
listen: {{address: "127.0.0.1:{port}", drain_grace: 2s}}
admin: {{address: "127.0.0.1:{admin}"}}
split:
  to: new
  otherwise: old
  percent: {percent}
  salt: bench
backends:
  new:
    handler: webhook
    url: http://127.0.0.1:{origin}/new
    connections: 512
    health: {{path: /health, every: 10s}}
  old:
    handler: webhook
    url: http://127.0.0.1:{origin}/old
    connections: 512
    health: {{path: /health, every: 10s}}
tools:
  default: {{effect: write, say: "Not now.", say_pending: "Please wait."}}
  get_available_slots: {{effect: read}}
  book_appointment: {{effect: write}}
auth:
  retell_keys: [env:BENCH_KEY]
  require: {{function: [signature], event: [signature], inbound: [signature]}}
limits: {{tools_per_minute: 1000000000, ip_per_minute: 1000000000}}
state_dir: {directory}/state
metrics: {{namespace: askproai_mcp}}
"""


def command(place: Place) -> list[str]:
    """The sidecar as anybody starts it."""
    rules(place)
    (place.directory / "env").write_text(f"BENCH_KEY={SECRET}\n")
    path, env = place.directory / "rules.yaml", place.directory / "env"
    return [sys.executable, "-m", "proxy", "serve", "--rules", str(path), "--env-file", str(env)]


def rules(place: Place, percent: float = 50) -> None:
    """Write the rules file; another `percent` is a reload that changes something."""
    text = RULES.format(
        port=place.port,
        admin=place.admin_port,
        origin=place.origin_port,
        directory=place.directory,
        percent=percent,
    )
    fresh = place.directory / "rules.yaml.new"
    fresh.write_text(text)
    fresh.replace(place.directory / "rules.yaml")


def fault(place: Place, requests: int) -> str | None:
    """Both arms must have been chosen, and every request logged; repeats of writes ask none."""
    arms: Counter[str] = Counter()
    with place.access_log.open() as file:
        for line in map(json.loads, file):
            if line["event"] == "exchange_ended":
                arms[line["arm"]] += 1
    if arms.total() < requests:
        return f"{arms.total()} access lines for {requests} requests"
    if min(arms["new"], arms["old"]) < max(1.0, (arms["new"] + arms["old"]) * 0.3):
        return f"an uneven split: {dict(arms)}"
    return None
