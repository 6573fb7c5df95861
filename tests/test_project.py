"""The tree's own rules, checked: what a reviewer would otherwise have to remember."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CORE_MAY_IMPORT = {"mmh3", "orjson", "msgspec", "pydantic", "pydantic_core", "proxy"}
CORE_MAY_NOT = {  # of the standard library: whatever reads a clock, the world or an environment
    "asyncio", "concurrent", "http", "io", "logging", "multiprocessing", "os", "pathlib",
    "queue", "random", "secrets", "select", "selectors", "shutil", "signal", "socket",
    "socketserver", "ssl", "subprocess", "tempfile", "threading", "time", "uuid",
}  # fmt: skip
WITHOUT_TEST = {"__init__", "__main__", "base", "ports", "model", "errors", "exchange"}
CEILINGS = {"proxy/core": 250}
CEILING = 400
FUNCTION_CEILING = 60


def modules(*folders: str) -> list[Path]:
    found = [p for folder in folders for p in sorted((ROOT / folder).rglob("*.py"))]
    assert found, folders
    return found


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


SOURCES = modules("proxy", "backends")


@pytest.mark.parametrize("path", modules("proxy/core"), ids=name)
def test_the_core_imports_only_what_is_pure(path: Path) -> None:
    tops = {module.partition(".")[0] for module in imports(path)}

    strangers = tops - sys.stdlib_module_names - CORE_MAY_IMPORT
    assert not strangers
    assert not tops & CORE_MAY_NOT


@pytest.mark.parametrize("path", modules("proxy/core"), ids=name)
def test_the_core_does_not_await(path: Path) -> None:
    tree = ast.parse(path.read_text())

    assert not [n for n in ast.walk(tree) if isinstance(n, ast.AsyncFunctionDef | ast.Await)]


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_every_module_has_a_test_file_of_its_own(path: Path) -> None:
    if path.stem in WITHOUT_TEST:
        return
    inside = path.relative_to(ROOT)
    parts = inside.parts[1:] if inside.parts[0] == "proxy" else inside.parts
    expected = ROOT / "tests" / Path(*parts).with_name(f"test_{path.stem}.py")

    assert expected.exists(), f"{name(path)} wants {name(expected)}"


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_modules_and_functions_stay_small(path: Path) -> None:
    ceiling = next((n for at, n in CEILINGS.items() if name(path).startswith(at)), CEILING)
    long = [
        f"{f.name} ({f.end_lineno - f.lineno + 1} lines)"
        for f in functions(path)
        if f.end_lineno and f.end_lineno - f.lineno + 1 > FUNCTION_CEILING
    ]

    assert len(path.read_text().splitlines()) <= ceiling
    assert not long


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_every_module_says_what_question_it_answers(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_tasks_are_started_in_one_place_only(path: Path) -> None:
    """A task nobody holds can vanish half way, and its error with it."""
    if name(path) == "proxy/adapters/tasks.py":
        return
    source = path.read_text()

    assert not re.search(r"\b(create_task|ensure_future)\(", source)


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_the_environment_is_read_in_one_place_only(path: Path) -> None:
    if name(path) == "proxy/settings.py":
        return

    assert not re.search(r"os\.environ|getenv\(", path.read_text())


@pytest.mark.parametrize("path", SOURCES, ids=name)
def test_nothing_is_called_utils_or_manager(path: Path) -> None:
    classes = [n.name for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.ClassDef)]

    assert path.stem not in {"utils", "util", "helpers", "common", "misc"}
    assert not [c for c in classes if c.endswith(("Manager", "Helper", "Util", "Utils"))]


def test_no_work_is_left_for_later() -> None:
    marks = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
    left = [name(p) for p in SOURCES if marks.search(p.read_text())]

    assert not left
