"""How the whole suite runs."""

from __future__ import annotations

import os

from hypothesis import settings

# In CI the examples are the same each time: a change lands or not by what it does, not by luck, and
# coverage is what it was.  At home they differ, and so find more.  A busy machine has no deadline.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("home", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "home")
