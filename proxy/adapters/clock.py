"""What time is it?  The loop's own seconds, and the wall's."""

from __future__ import annotations

import asyncio
import time


class LoopClock:
    """Fits the `Clock` port; made inside a running loop, whose timers count the same seconds."""

    def __init__(self) -> None:
        self.now = asyncio.get_running_loop().time
        """Seconds that never go back.  The loop's own method: it is asked many times per call."""

    def wall_ms(self) -> int:
        """Milliseconds since 1970, UTC."""
        return time.time_ns() // 1_000_000
