"""The official conformance suite in its fast form; `make conformance` has the whole of it.

Skipped, with the reason, where Node and the suite cannot be had.
"""

from __future__ import annotations

import contextlib
from itertools import islice
from pathlib import Path

import pytest

from tests.mcp import suite_parts, suite_tools
from tests.mcp.environments import Unavailable
from tests.mcp.suite_parts import Row
from tests.mcp.suite_tools import Tools

pytestmark = pytest.mark.timeout(600)  # The first run installs; a scenario may wait half a minute.


@pytest.fixture(scope="module")
def tools() -> Tools:
    """Node and the suite."""
    try:
        return suite_tools.provide()
    except Unavailable as reason:
        pytest.skip(str(reason))


def say(_: str) -> None:
    """Tests are silent."""


def nothing_is_lost(rows: list[Row]) -> None:
    assert rows
    assert {row.asked: row.lost for row in rows if row.lost} == {}


@pytest.mark.parametrize("asked", suite_parts.REQUIRED, ids=lambda asked: asked[-1])
def test_what_a_revision_requires_passes_through_callsplit_as_direct(
    tools: Tools, tmp_path: Path, asked: list[str]
) -> None:
    rows = list(suite_parts.everything(tools, tmp_path, say, [asked]))

    nothing_is_lost(rows)
    assert [row.through.code for row in rows] == [0]


def test_a_webhook_answers_for_a_dead_mcp_server_in_both_eras(tools: Tools, tmp_path: Path) -> None:
    both_eras = len(suite_parts.BASIC)
    with contextlib.closing(suite_parts.outage(tools, tmp_path, say)) as outage:
        nothing_is_lost(list(islice(outage, both_eras)))


@pytest.mark.parametrize(
    ("version", "scenario"),
    [
        pytest.param(version, scenario, marks=[pytest.mark.xfail(reason=why)] if why else [])
        for version, scenario in suite_parts.AS_CLIENT
        for why in [suite_parts.NOT_YET.get(scenario)]
    ],
)
def test_callsplit_is_a_conforming_client(
    tools: Tools, tmp_path: Path, version: str, scenario: str
) -> None:
    row = suite_parts.as_client(tools, tmp_path, version, scenario)

    assert row.lost == []
