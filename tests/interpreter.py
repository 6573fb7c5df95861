"""Which build is under test?  The tree as it stands, or what `make compiled` made of it."""

from __future__ import annotations

import os
import sys

import pytest

import proxy.handler

COMPILED = not proxy.handler.__file__.endswith(".py")

interpreted_only = pytest.mark.skipif(
    COMPILED, reason="it puts something into a class or an argument that C does not take"
)


def python() -> list[str]:
    """The interpreter that a test's child runs in; it must not find the tree's own sources."""
    other = os.environ.get("SIDECAR_PYTHON")
    return [other, "-P"] if other else [sys.executable]
