"""The compiled build: what may be in it, and what is said where it cannot be made."""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
SOURCES = [path for folder in ("proxy", "backends") for path in (ROOT / folder).rglob("*.py")]

_spec = importlib.util.spec_from_file_location("callsplit_setup", ROOT / "setup.py")
assert _spec is not None
assert _spec.loader is not None
setup = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(setup)


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@cache
def structs() -> dict[str, tuple[Path, ast.ClassDef]]:
    """Every class of msgspec's kind, by its full name."""
    return {
        f"{module_of(path)}.{node.name}": (path, node)
        for path in SOURCES
        for node in ast.walk(tree_of(path))
        if isinstance(node, ast.ClassDef)
        and any(ast.unparse(base).rpartition(".")[2] == "Struct" for base in node.bases)
    }


@cache
def decoded() -> set[str]:
    """Every struct that is handed to something of msgspec's that reads a type, and what it holds.

    By its full name.
    """
    readers = {"Decoder", "Partial", "decode", "convert"}
    calls = [
        (path, call)
        for path in SOURCES
        for call in ast.walk(tree_of(path))
        if isinstance(call, ast.Call)
        and ast.unparse(call.func).rpartition(".")[2].partition("[")[0] in readers
    ]
    found: set[str] = set()
    waiting = [name for path, call in calls for name in named(path, call)]
    while waiting:
        name = waiting.pop()
        if name in structs() and name not in found:
            found.add(name)
            waiting += named(*structs()[name])
    return found


def named(path: Path, node: ast.AST) -> Iterator[str]:
    """The full names of what `node` names."""
    names = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
    for each in ast.walk(tree_of(path)):
        if isinstance(each, ast.ImportFrom):
            yield from (
                f"{each.module}.{a.name}" for a in each.names if (a.asname or a.name) in names
            )
    yield from (f"{module_of(path)}.{name}" for name in names)


def module_of(path: Path) -> str:
    return path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")


def path_of(module: str) -> Path:
    return ROOT / f"{module.replace('.', '/')}.py"


def test_each_compiled_module_is_named_once_and_exists() -> None:
    names = setup.modules()

    assert len(names) == len(set(names))
    assert not [name for name in names if not path_of(name).is_file()]


def test_what_stays_python_exists_and_is_not_compiled() -> None:
    stays = setup.INTERPRETED

    assert all(path_of(name).is_file() or path_of(name).with_suffix("").is_dir() for name in stays)
    assert not [
        name for name in setup.modules() for kept in stays if f"{name}.".startswith(f"{kept}.")
    ]


def test_nothing_is_decoded_into_a_struct_of_a_compiled_module() -> None:
    """C keeps `type` of an annotation like `Raw | None`: what is then decoded is wrong, or fails.

    As a failure to decode it may go unnoticed: an answer that says it failed would be a success.
    """
    compiled = set(setup.modules())

    assert not [name for name in decoded() if name.rpartition(".")[0] in compiled]


def test_the_structs_that_are_decoded_would_be_found() -> None:
    """Also what is only a part of another, and not what merely shares a name with one."""
    shapes = {f"proxy.core.shapes.{name}" for name in ("Shape", "CallPart", "Said")}

    assert shapes <= decoded()
    assert "proxy.core.cache.Entry" in structs().keys() - decoded()


def test_no_bound_of_a_slice_in_a_compiled_module_does_something() -> None:
    """mypyc evaluates it twice where the whole is no list, tuple, text or bytes: a memoryview say.

    (mypy 2.4: `try_gen_slice_op` gives up after it has evaluated both bounds.)
    """
    acts = [
        f"{name}: {ast.unparse(call)}"
        for name in setup.modules()
        for bounds in ast.walk(tree_of(path_of(name)))
        if isinstance(bounds, ast.Slice)
        for call in ast.walk(bounds)
        if isinstance(call, ast.Call | ast.NamedExpr | ast.Await)
        and not ast.unparse(call).startswith("len(")
    ]

    assert not acts


def test_without_being_asked_nothing_is_compiled_or_needed(tmp_path: Path) -> None:
    done = build(tmp_path, CC="no-such-compiler")

    assert done.returncode == 0, done.stderr


def test_without_a_c_compiler_the_build_says_what_to_do(tmp_path: Path) -> None:
    done = build(tmp_path, CC="no-such-compiler", CALLSPLIT_COMPILE="1")

    assert done.returncode != 0
    assert "needs a C compiler, and no-such-compiler is not there" in done.stderr
    assert "Traceback" not in done.stderr


def test_compiling_needs_mypy_and_every_type_it_is_to_see() -> None:
    needs = " ".join(setup.needs())

    assert "mypy>=" in needs
    assert "aiohttp>=" in needs
    assert "types-PyYAML" in needs
    assert "pytest" not in needs


def build(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """`setup.py build_ext`, far from the tree."""
    return subprocess.run(
        [sys.executable, str(ROOT / "setup.py"), "--quiet", "build_ext"],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
