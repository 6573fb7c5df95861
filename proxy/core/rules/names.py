"""Which variables does nobody read?  A mistyped one must not be ignored in silence."""

from __future__ import annotations

import re
from collections.abc import Iterable

from proxy.core.suggest import did_you_mean

GUIDE_NAMES = frozenset(
    {
        "MCP_RETELL_AGENT_TOKEN",
        "MCP_RETELL_AGENT_BACKUP_TOKEN",
        "MCP_RESPONSE_TIME_LIMIT_MS",
        "MCP_MIGRATION_MODE",
        "MCP_FALLBACK_TO_WEBHOOK",
        "MCP_ROLLOUT_PERCENTAGE",
        "MCP_CIRCUIT_BREAKER_ENABLED",
        "MCP_CIRCUIT_BREAKER_THRESHOLD",
        "MCP_CIRCUIT_BREAKER_TIMEOUT",
        "MCP_PERFORMANCE_MONITORING_ENABLED",
        "MCP_ALERT_RESPONSE_TIME_THRESHOLD_MS",
        "MCP_RATE_LIMIT_TOOLS",
        "MCP_RATE_LIMIT_BURST_MULTIPLIER",
        "MCP_IP_RATE_LIMIT_MAX",
        "MCP_REQUEST_SIZE_LIMIT_MB",
        "MCP_CACHE_TOOL_GET_AVAILABLE_SLOTS",
        "MCP_CACHE_TOOL_GET_COMPANY_INFO",
        "MCP_CACHE_TOOL_GET_CUSTOMER_INFO",
    }
)
"""The names of the migration guide; the shipped rules refer to each."""

OWN_NAMES = frozenset(
    {
        "CALLSPLIT_RULES",
        "CALLSPLIT_LISTEN",
        "CALLSPLIT_ADMIN_LISTEN",
        "CALLSPLIT_LOG_LEVEL",
        "CALLSPLIT_LOG_FORMAT",
        "CALLSPLIT_ENV_FILE",
        "CALLSPLIT_ADMIN",
        "CALLSPLIT_ADMIN_TOKEN",
    }
)
"""What the settings and the command line read."""

# Kubernetes gives every container such variables for a Service named "mcp" or "callsplit-...".
_SERVICE_LINK = re.compile(
    r"(?:MCP|CALLSPLIT)_(?:\w+_)?"
    r"(?:SERVICE_HOST|SERVICE_PORT(?:_\w+)?|PORT(?:_\d+_(?:TCP|UDP|SCTP)\w*)?)",
    re.ASCII,
)


def stray_names(present: Iterable[str], used: Iterable[str]) -> list[str]:
    """One warning per `MCP_*` or `CALLSPLIT_*` variable that nobody reads.

    `used` are the names that the rules refer to.
    """
    known = frozenset(used) | OWN_NAMES
    ours = sorted(name for name in present if name.startswith(("MCP_", "CALLSPLIT_")))
    strays = [name for name in ours if name not in known and not _SERVICE_LINK.fullmatch(name)]
    return [_warning(name, known) for name in strays]


def _warning(name: str, known: frozenset[str]) -> str:
    if name in GUIDE_NAMES:
        return f"{name} is set, but these rules do not refer to it: it has no effect"
    hint = did_you_mean(name, known | GUIDE_NAMES)
    return f"{name} is set, but nothing reads it" + (f"; {hint}" if hint else "")
