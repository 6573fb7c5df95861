from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from proxy.adapters.catalogue_file import MOST_BYTES, CatalogueFiles, file_of
from proxy.adapters.logs import configure
from proxy.adapters.state_dir import StateDir
from proxy.core.dialects.catalogue import Catalogue, parse_page
from tests.fakes import FakeClock


def catalogue(*names: str, **more: Any) -> Catalogue:
    page = json.dumps({"tools": [{"name": name} for name in names]}).encode()
    return Catalogue({tool.name: tool for tool in parse_page(page).tools}, **more)


class Process:
    """What of one process has to do with the files."""

    def __init__(self, state: StateDir) -> None:
        self._log = io.StringIO()
        self.files = CatalogueFiles(state, configure(FakeClock().wall_ms, stream=self._log))

    @property
    def said(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in self._log.getvalue().splitlines()]


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateDir]:
    held = StateDir.open(tmp_path / "state")
    yield held
    held.close()


def test_the_next_process_knows_what_this_one_heard(state: StateDir) -> None:
    Process(state).files.save("mcp", "here", catalogue("slots"))

    after = Process(state)

    assert after.files.load("mcp", "here") == catalogue("slots")
    assert after.files.load("mcp", "elsewhere") is None
    assert after.files.load("other", "here") is None
    assert after.said == []


def test_a_damaged_file_is_passed_over_and_told(state: StateDir) -> None:
    process = Process(state)
    process.files.save("mcp", "here", catalogue("slots"))
    written = state.file(file_of("mcp")).read_bytes()
    state.file(file_of("mcp")).write_bytes(written.replace(b"slots", b"slot5"))

    assert process.files.load("mcp", "here") is None
    (line,) = process.said
    assert line["event"] == "catalogue_broken"
    assert (line["arm"], line["file"]) == ("mcp", "catalogue-mcp.json")


def test_a_file_that_cannot_be_read_is_told(state: StateDir) -> None:
    state.file(file_of("mcp")).mkdir()
    process = Process(state)

    assert process.files.load("mcp", "here") is None
    process.files.save("mcp", "here", catalogue("slots"))

    assert [line["event"] for line in process.said] == ["catalogue_not_read", "catalogue_not_kept"]


def test_a_catalogue_beyond_all_measure_is_not_kept(state: StateDir) -> None:
    process = Process(state)
    process.files.save("mcp", "here", catalogue("slots"))
    process.files.save("mcp", "here", catalogue("more", instructions="x" * MOST_BYTES))

    assert process.files.load("mcp", "here") == catalogue("slots")
    assert [line["why"] for line in process.said] == ["too large"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_without_a_place_to_write_nothing_is_kept(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    _nothing_is_kept(StateDir.open(tmp_path / "state"))


def test_without_a_lock_nothing_is_kept(tmp_path: Path) -> None:
    """Another process may hold the directory: what stands there is its own."""
    _nothing_is_kept(StateDir(tmp_path, None, "read-only file system"))


def _nothing_is_kept(state: StateDir) -> None:
    process = Process(state)
    process.files.save("mcp", "here", catalogue("slots"))

    assert process.files.load("mcp", "here") is None
    assert not state.file(file_of("mcp")).exists()
