"""The rules that ops edit, as frozen values; nothing here reads a file or the environment.

`model.Rules` is the whole; one module per section; `secret`, `values` and `base` are what the
sections are made of.
"""

from proxy.core.rules.arm import Backend, Breaker, Health
from proxy.core.rules.auth import Auth, Credential, Requirement
from proxy.core.rules.fallback import Fallback
from proxy.core.rules.limits import Limits
from proxy.core.rules.listen import Admin, Listen
from proxy.core.rules.metrics import Metrics
from proxy.core.rules.model import Rules
from proxy.core.rules.outbox import Outbox
from proxy.core.rules.parse import Address
from proxy.core.rules.rollout import Guardrails, Rollout, Signals
from proxy.core.rules.secret import SecretRef
from proxy.core.rules.split import Force, Override, Split
from proxy.core.rules.spoken import Spoken
from proxy.core.rules.tls import ListenTls, Tls
from proxy.core.rules.tools import Tool, ToolEntry

__all__ = [
    "Address",
    "Admin",
    "Auth",
    "Backend",
    "Breaker",
    "Credential",
    "Fallback",
    "Force",
    "Guardrails",
    "Health",
    "Limits",
    "Listen",
    "ListenTls",
    "Metrics",
    "Outbox",
    "Override",
    "Requirement",
    "Rollout",
    "Rules",
    "SecretRef",
    "Signals",
    "Split",
    "Spoken",
    "Tls",
    "Tool",
    "ToolEntry",
]
