"""How a child talks with a test: one JSON object per line, commands in, what happens out.

Only the standard library: it runs in the environments of other people's MCP too.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any


async def commands() -> AsyncIterator[dict[str, Any]]:
    """What the test asks for, until it hangs up."""
    reader = asyncio.StreamReader(limit=2**22)
    protocol = asyncio.StreamReaderProtocol(reader)
    await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
    while line := await reader.readline():
        yield json.loads(line)


def tell(**what: Any) -> None:
    """One line for the test."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()
