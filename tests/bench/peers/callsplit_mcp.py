"""callsplit before an MCP server, with everything on: credentials, limits, guard, access lines."""

from __future__ import annotations

import json
import sys

from tests.bench.place import KEY as SECRET
from tests.bench.place import Place

KEY = "callsplit"
LABEL = "callsplit, everything on"

TOKEN = "bench-of-the-agent"
"""What MCP callers present."""

RULES = """\
version: 1
listen: {{address: "127.0.0.1:{port}", drain_grace: 2s}}
admin: {{address: "127.0.0.1:{admin}"}}
split: {{to: mcp, otherwise: webhook, percent: 100, salt: bench}}
backends:
  mcp:
    handler: mcp
    url: http://127.0.0.1:{origin}/mcp
    timeout: 10s
    health: {{probe: tools/list, every: 10s}}
  webhook:
    handler: webhook
    url: http://127.0.0.1:{origin}/nobody
tools:
  default: {{effect: write, say: "Not now.", say_pending: "Please wait."}}
  book_appointment: {{effect: write}}
auth:
  tokens: [env:BENCH_TOKEN]
  retell_keys: [env:BENCH_KEY]
  require: {{function: [signature], event: [signature], inbound: [signature], mcp: [token]}}
limits: {{tools_per_minute: 1000000000, ip_per_minute: 1000000000}}
state_dir: {directory}/state
"""


def command(place: Place) -> list[str]:
    """The sidecar as anybody starts it."""
    path, env = place.directory / "rules.yaml", place.directory / "env"
    path.write_text(
        RULES.format(
            port=place.port,
            admin=place.admin_port,
            origin=place.origin_port,
            directory=place.directory,
        )
    )
    env.write_text(f"BENCH_KEY={SECRET}\nBENCH_TOKEN={TOKEN}\n")
    return [sys.executable, "-m", "proxy", "serve", "--rules", str(path), "--env-file", str(env)]


def fault(place: Place, requests: int) -> str | None:
    """Every request must have been logged, and answered by the MCP server itself."""
    answered = 0
    with place.access_log.open() as file:
        for line in map(json.loads, file):
            if line["event"] == "exchange_ended":
                if line["outcome"] == "gone":
                    continue  # wrk hangs up on what is under way when its time is over.
                if (line["arm"], line["outcome"]) != ("mcp", "ok"):
                    return f"an answer of arm {line['arm']}: {line['outcome']}"
                answered += 1
    if answered < requests:
        return f"{answered} access lines for {requests} requests"
    return None
