"""How does callsplit speak?  Structured events on stderr, one JSON object a line.

Event names are in the past tense; values are fields, not prose.  No body, token, phone
number or transcript is ever a field.  Every text is capped, so that a caller cannot fill a disk.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, TextIO

import orjson
import structlog
from structlog.typing import EventDict, FilteringBoundLogger

TEXT_LIMIT = 512
"""Characters of one text field; the rest is cut."""

TRACE_LIMIT = 8192
"""Characters of a traceback, counted from its end."""

# What JSON may hold as it is, and terminals, editors and shippers of logs take for commands, ends
# of lines or another direction: DEL and C1, LS and PS, marks of direction, and the BOM, in UTF-8.
_UNSEEN = re.compile(
    rb"\x7f|\xc2[\x80-\x9f]|\xd8\x9c|\xe2\x80[\x8e\x8f\xa8-\xae]|\xe2\x81[\xa6-\xa9]|\xef\xbb\xbf"
)
_UNSEEN_TEXT = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")


@lru_cache(maxsize=16)  # a busy sidecar's lines share a millisecond
def stamp(wall_ms: int) -> str:
    """RFC 3339, UTC, milliseconds."""
    seconds, ms = divmod(wall_ms, 1000)
    return f"{_second(seconds)}.{ms:03d}Z"


@lru_cache(maxsize=4)  # and thousands of them a second
def _second(seconds: int) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"


def dump(fields: dict[str, Any]) -> bytes:
    """One line, also for text that is not valid Unicode (header bytes as surrogate escapes)."""
    try:
        line = orjson.dumps(fields, default=str, option=orjson.OPT_APPEND_NEWLINE)
    except (TypeError, ValueError):
        line = orjson.dumps(
            {key: clean(value) for key, value in fields.items()},
            default=str,
            option=orjson.OPT_APPEND_NEWLINE,
        )
    return legible(line)


def legible(lines: bytes) -> bytes:
    """The same JSON, with nothing in it that a reader may take for more than text."""
    if lines.isascii() and b"\x7f" not in lines:
        return lines
    return _UNSEEN.sub(lambda found: b"\\u%04x" % ord(found[0].decode()), lines)


def _visible(text: str) -> str:
    """For a terminal: what would move its cursor is shown instead."""
    return _UNSEEN_TEXT.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def clean(value: Any) -> Any:
    """Text that can be written; anything else as it is."""
    return value.encode(errors="replace").decode() if isinstance(value, str) else value


def cap(value: str | None) -> str | None:
    """At most TEXT_LIMIT characters."""
    return value if value is None or len(value) <= TEXT_LIMIT else value[:TEXT_LIMIT] + "..."


def _capped(_: object, __: str, event: EventDict) -> EventDict:
    return {key: _cap_field(key, v) if isinstance(v, str) else v for key, v in event.items()}


def _cap_field(key: str, text: str) -> str | None:
    """What went wrong stands at a traceback's end."""
    return text[-TRACE_LIMIT:] if key == "exception" else cap(text)


def _shown(_: object, __: str, event: EventDict) -> EventDict:
    """Lines of a traceback stay lines; nothing else is one."""
    return {
        key: "\n".join(map(_visible, value.split("\n") if key == "exception" else [value]))
        if isinstance(value, str)
        else value
        for key, value in event.items()
    }


def configure(
    wall_ms: Callable[[], int],
    *,
    stream: TextIO | None = None,
    human: bool = False,
) -> FilteringBoundLogger:
    """Set structlog up for this process; `human` prints for a terminal instead of JSON."""
    target = stream or sys.stderr

    def stamped(_: object, __: str, event: EventDict) -> EventDict:
        head = {
            "timestamp": stamp(wall_ms()),
            "level": event.pop("level"),
            "event": event.pop("event"),
        }
        return {**head, **event}

    renderer: Any = (
        structlog.dev.ConsoleRenderer(colors=target.isatty())
        if human
        else lambda _, __, event: dump(dict(event)).decode().rstrip("\n")
    )
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.format_exc_info,
            _capped if not human else _shown,
            stamped,
            renderer,
        ],
        logger_factory=structlog.WriteLoggerFactory(target),
        cache_logger_on_first_use=False,
    )
    logger: FilteringBoundLogger = structlog.get_logger()
    return logger
