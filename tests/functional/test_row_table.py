"""Every row of the list has its tests, and the page says which."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from tests.functional.row_table import PAGE, ROOT, marked, marks, page, trees, without_proof
from tests.functional.rows import ROWS


def test_every_mark_is_on_a_test_and_names_a_row() -> None:
    """Marks in a table beside the test would prove something, and nobody could see where."""
    for path, tree in trees().items():
        named = set(marks(tree))

        assert named <= set(ROWS), path.name
        assert named == {row for _, rows in marked(tree) for row in rows}, path.name


def test_every_row_has_a_proof() -> None:
    assert without_proof() == []


def test_the_page_is_current() -> None:
    """If not: make generate."""
    assert PAGE.read_text() == page()


def test_a_row_can_be_run_alone(tmp_path: Path) -> None:
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path)
    (tmp_path / "test_it.py").write_text(
        "import pytest\n"
        "@pytest.mark.row('F1', 'F2')\n"
        "def test_one(): pass\n"
        "@pytest.mark.row('F3')\n"
        "def test_another(): pass\n"
        "def test_neither(): pass\n"
    )
    command = ["-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "--row", "F2", "."]

    done = subprocess.run(
        [sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, check=True
    )

    assert "test_it.py::test_one" in done.stdout
    assert "1/3 tests collected (2 deselected)" in done.stdout
