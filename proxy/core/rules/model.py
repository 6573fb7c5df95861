"""The rules as a whole: what ops decide, as frozen values."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, PlainValidator, WithJsonSchema

from proxy.core.rules.arm import Backend
from proxy.core.rules.auth import Auth
from proxy.core.rules.base import Section
from proxy.core.rules.fallback import Fallback
from proxy.core.rules.limits import Limits
from proxy.core.rules.listen import Admin, Listen
from proxy.core.rules.metrics import Metrics
from proxy.core.rules.outbox import Outbox
from proxy.core.rules.parse import SecretError
from proxy.core.rules.rollout import Rollout
from proxy.core.rules.secret import is_reference, parse_secret
from proxy.core.rules.split import Split
from proxy.core.rules.tools import Tool, ToolEntry, resolve
from proxy.core.rules.values import Name, Word

_STORE = re.compile(r"(redis|rediss|redis\+sentinel)://[^\s/]+(/.*)?", re.ASCII)


def parse_state(value: Any) -> str:
    """`memory`, a redis URL without password, or a reference to a whole URL; raises ValueError."""
    if value == "memory":
        return "memory"
    if is_reference(value):
        return str(parse_secret(value))
    if not isinstance(value, str) or not _STORE.fullmatch(value):
        raise ValueError("expected memory, redis://..., rediss://... or redis+sentinel://...")
    if "@" in value:
        raise SecretError("a password never stands in the rules", "name the whole URL: env:NAME")
    return value


State = Annotated[
    str, Word("memory or URL"), PlainValidator(parse_state), WithJsonSchema({"type": "string"})
]


class Rules(Section):
    """The rules in force.  Attribute names are the keys of the file."""

    version: Literal[1] = Field(1, description="The format of this file.")
    listen: Listen = Field(Listen(), description="Where calls come in.")
    admin: Admin = Field(Admin(), description="Where operators ask.")
    split: Split = Field(Split(), description="Which share of the calls goes where.")
    backends: dict[Name, Backend] = Field(description="The backends by name.")
    fallback: Fallback = Field(Fallback(), description="When the other arm may answer.")
    outbox: Outbox = Field(Outbox(), description="Where events wait that no arm takes.")
    tools: dict[Name, ToolEntry] = Field(
        default_factory=dict, description="What is known of each tool; `default` for all of them."
    )
    auth: Auth = Field(Auth(), description="Who may ask.")
    limits: Limits = Field(Limits(), description="How much callers may ask.")
    rollout: Rollout = Field(Rollout(), description="The plan by which the share grows.")
    passthrough: Name | None = Field(
        None, description="The backend of every path that is not ours; null: 404."
    )
    state: State = Field("memory", description="Where replicas agree: memory, or a redis URL.")
    state_dir: str = Field("./state", description="Where this replica keeps what must survive.")
    metrics: Metrics = Field(Metrics(), description="How the figures are named.")

    def tool(self, name: str) -> Tool:
        """The tool of that name as it is in force; not for the hot path: look it up at load."""
        return resolve(self.tools, name)
