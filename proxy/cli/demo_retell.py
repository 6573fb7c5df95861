"""What does Retell send during a call?  The bodies of one invented conversation, in its shapes."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import orjson

AGENT = {"agent_id": "agent_demo_salon", "agent_version": 4, "agent_name": "Front desk"}
SALON_NUMBER = "+14155550199"
CALLERS = (
    ("Ana Lopez", "+14155550100"),
    ("Ben Carter", "+14155550101"),
    ("Chloe Martin", "+14155550102"),
    ("Dev Patel", "+14155550103"),
    ("Emil Novak", "+14155550104"),
)
"""Names and numbers; 555-01xx belongs to nobody."""


def new_call_id() -> str:
    """`call_` and 27 hex digits, as Retell's are today."""
    return f"call_{random.getrandbits(108):027x}"


class Conversation:
    """One call as Retell knows it: it grows with each thing said and each tool called.

    Times are ms since 1970.  Every method that returns bytes returns a whole request body.
    """

    def __init__(self, number: int) -> None:
        self.id = new_call_id()
        self.name, self.phone = CALLERS[number % len(CALLERS)]
        self._start_ms = 0
        self._said: list[dict[str, Any]] = []
        self._tools_called = 0

    def inbound(self, now_ms: int) -> bytes:
        """It rings: who should take the call?"""
        ringing = {
            "call_id": self.id,
            "agent_id": AGENT["agent_id"],
            "agent_version": AGENT["agent_version"],
            "from_number": self.phone,
            "to_number": SALON_NUMBER,
        }
        return orjson.dumps(
            {"event": "call_inbound", "event_timestamp": now_ms, "call_inbound": ringing}
        )

    def started(self, now_ms: int) -> bytes:
        """Somebody has picked up."""
        self._start_ms = now_ms
        self._say("agent", "Salon Mondlicht, hello! How can I help?")
        return self._event("call_started", now_ms)

    def function(self, tool: str, args: Mapping[str, str]) -> bytes:
        """The agent calls a tool; the transcript ends with this very invocation."""
        self._tools_called += 1
        self._said.append(
            {
                "role": "tool_call_invocation",
                "tool_call_id": f"tool_call_{self._tools_called}",
                "name": tool,
                "arguments": orjson.dumps(args).decode(),
            }
        )
        return orjson.dumps({"name": tool, "call": self._call("ongoing"), "args": args})

    def tool_answered(self, content: bytes, *, successful: bool) -> None:
        """What the tool said, as the agent reads it."""
        self._said.append(
            {
                "role": "tool_call_result",
                "tool_call_id": f"tool_call_{self._tools_called}",
                "content": content.decode(errors="replace"),
                "successful": successful,
            }
        )

    def said(self, by: str, words: str) -> None:
        """A turn of the caller (`user`) or of the agent."""
        self._say(by, words)

    def ended(self, now_ms: int) -> bytes:
        """The caller has hung up."""
        return self._event("call_ended", now_ms, **self._ending(now_ms))

    def analyzed(self, now_ms: int, *, successful: bool) -> bytes:
        """What it was about."""
        analysis = {
            "call_summary": "The caller asked for an appointment.",
            "in_voicemail": False,
            "user_sentiment": "Positive" if successful else "Neutral",
            "call_successful": successful,
        }
        return self._event("call_analyzed", now_ms, call_analysis=analysis, **self._ending(now_ms))

    def _ending(self, now_ms: int) -> dict[str, Any]:
        return {
            "end_timestamp": now_ms,
            "duration_ms": now_ms - self._start_ms,
            "disconnection_reason": "user_hangup",
        }

    def _event(self, name: str, now_ms: int, **more: Any) -> bytes:
        status = "ongoing" if name == "call_started" else "ended"
        return orjson.dumps(
            {"event": name, "call": {**self._call(status), **more}, "event_timestamp": now_ms}
        )

    def _call(self, status: str) -> dict[str, Any]:
        spoken = [turn for turn in self._said if "content" in turn and turn["role"] != _RESULT]
        return {
            "call_id": self.id,
            "call_type": "phone_call",
            **AGENT,
            "call_status": status,
            "direction": "inbound",
            "from_number": self.phone,
            "to_number": SALON_NUMBER,
            "metadata": {"company_id": 42},
            "retell_llm_dynamic_variables": {"customer_name": self.name},
            "start_timestamp": self._start_ms,
            "transcript": "".join(
                f"{turn['role'].capitalize()}: {turn['content']}\n" for turn in spoken
            ),
            "transcript_object": spoken,
            "transcript_with_tool_calls": self._said,
        }

    def _say(self, role: str, words: str) -> None:
        self._said.append({"role": role, "content": words})


_RESULT = "tool_call_result"
