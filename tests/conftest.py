"""How the whole suite runs, and how to run what proves one row of the edge's list."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# In CI the examples are the same each time: a change lands or not by what it does, not by luck, and
# coverage is what it was.  At home they differ, and so find more.  A busy machine has no deadline.
settings.register_profile("ci", derandomize=True, deadline=None)
settings.register_profile("home", deadline=None)
settings.load_profile("ci" if os.environ.get("CI") else "home")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--row", help="run only the tests that prove this row of the edge's list")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "row(*ids): the rows of tests/functional/rows.py it proves")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not (row := config.getoption("--row")):
        return
    proofs = [i for i in items if any(row in mark.args for mark in i.iter_markers("row"))]
    config.hook.pytest_deselected(items=[item for item in items if item not in proofs])
    items[:] = proofs
