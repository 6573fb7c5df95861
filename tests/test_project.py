"""The tree's own rules, checked: what a reviewer would otherwise have to remember."""

from __future__ import annotations

import ast
import configparser
import hashlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from proxy.adapters.rules_file import load_rules
from proxy.core.rules.shape import keys
from proxy.core.rules.walk import values
from proxy.settings import Settings

ROOT = Path(__file__).parent.parent
CORE_MAY_IMPORT = {  # whatever is not listed reads a clock or the world until proved otherwise
    "mmh3", "orjson", "msgspec", "pydantic", "pydantic_core",
    "__future__", "base64", "binascii", "bisect", "collections", "copy", "dataclasses", "datetime",
    "difflib", "email.utils", "enum", "functools", "hashlib", "heapq", "hmac", "ipaddress",
    "itertools", "json", "math", "operator", "re", "string", "struct", "types", "typing",
    "unicodedata", "urllib.parse", "zlib",
}  # fmt: skip
IMPURE = {  # calls that need no import, or hide in a module that is allowed
    "open", "print", "input", "exec", "eval", "compile", "__import__", "breakpoint",
    "now", "utcnow", "today", "localtime", "formatdate", "make_msgid",
}  # fmt: skip
PROVIDES = {  # distribution -> module, where the names differ
    "PyYAML": "yaml", "ruamel.yaml": "ruamel", "python-dotenv": "dotenv", "retell-sdk": "retell",
    "pytest-asyncio": "pytest_asyncio", "prometheus-client": "prometheus_client",
    "pydantic-settings": "pydantic_settings", "promql-parser": "promql_parser",
}  # fmt: skip
COMES_WITH = {"mcp_types": "mcp", "pydantic_core": "pydantic"}
FOR_LATER = {"ruamel.yaml"}
"""Needs of keys that are checked already, but not in force yet."""

TOOLS = {
    "pytest-cov", "pytest-xdist", "pytest-timeout", "ruff", "mypy", "import-linter", "types-PyYAML",
}  # fmt: skip
"""Development needs that no test imports."""

VECTORS = {
    "signature.json": "673e19f2be707473dbe5e38e005bfa256c00c404bac4a36ea2984a6e469173d5",
    "split.json": "5195a1eebfd0cb690c7a44ebbe3841072fc993892c4e28928ccf28c2444e8621",
}
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
    """Modules by their full names; `from a import b` counts as `a`."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module


def strangers(*folders: str) -> set[str]:
    """Distributions' modules that the code below these folders imports."""
    tops = {module.partition(".")[0] for path in modules(*folders) for module in imports(path)}
    return tops - sys.stdlib_module_names - {"proxy", "backends", "tests"}


def needs(section: str, key: str) -> set[str]:
    """Names of the distributions that setup.cfg asks for."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = setup[section][key].split("\n")
    return {re.split(r"[\[<>=;,]", line)[0].strip() for line in lines if line}


def module_of(distribution: str) -> str:
    return PROVIDES.get(distribution, distribution)


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


SOURCES = modules("proxy", "backends")


@pytest.mark.parametrize("path", modules("proxy/core"), ids=name)
def test_the_core_imports_only_what_is_pure(path: Path) -> None:
    def pure(module: str) -> bool:
        parts = module.split(".")
        if parts[0] == "proxy":
            return parts[1:2] in ([], ["core"], ["errors"])
        return any(".".join(parts[:n]) in CORE_MAY_IMPORT for n in range(1, len(parts) + 1))

    assert not [module for module in imports(path) if not pure(module)]


@pytest.mark.parametrize("path", modules("proxy/core"), ids=name)
def test_the_core_calls_nothing_that_looks_at_the_world(path: Path) -> None:
    calls = [
        node.func for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)
    ]
    called = {each.id for each in calls if isinstance(each, ast.Name)}
    called |= {
        each.attr
        for each in calls
        if isinstance(each, ast.Attribute)
        and isinstance(each.value, ast.Name)
        and each.value.id in ("datetime", "date", "utils")
    }

    assert not called & IMPURE


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


def test_what_is_imported_is_asked_for() -> None:
    """Not what happens to come along with something else: that may leave with its next version."""
    shipped, dev = needs("options", "install_requires"), needs("options.extras_require", "dev")
    ours, tests = strangers("proxy", "backends"), strangers("tests")

    assert {COMES_WITH.get(each, each) for each in ours} <= set(map(module_of, shipped))
    assert {COMES_WITH.get(each, each) for each in tests} <= set(map(module_of, shipped | dev))


def test_what_is_asked_for_is_used() -> None:
    shipped, dev = needs("options", "install_requires"), needs("options.extras_require", "dev")

    unused = {each for each in shipped if module_of(each) not in strangers("proxy", "backends")}
    assert unused == FOR_LATER
    assert {each for each in dev if module_of(each) not in strangers("tests")} == TOOLS


def test_the_example_of_the_environment_names_every_setting() -> None:
    text = (ROOT / "deploy" / "env.example").read_text()
    named = set(re.findall(r"^CALLSPLIT_([A-Z_]+)=", text, flags=re.MULTILINE))

    assert {field.upper() for field in Settings.model_fields} <= named


def test_the_example_of_the_rules_names_every_key() -> None:
    loaded = load_rules(ROOT / "rules" / "rules.example.yaml", {})
    written = {path for path, _ in values(loaded.rules, written=True)}

    def is_written(key: str) -> bool:
        pattern = re.escape(key).replace("<name>", "[^.]+").replace(r"\[\]", r"(\.\d+)?")
        return any(re.match(rf"{pattern}(\.|$)", path) for path in written)

    assert not [key.path for key in keys() if not is_written(key.path)]


@pytest.mark.parametrize("file", sorted(p.name for p in (ROOT / "tests" / "vectors").iterdir()))
def test_vectors_never_change(file: str) -> None:
    """They hold for calls that are live and for signatures on the wire: a change is a break."""
    content = (ROOT / "tests" / "vectors" / file).read_bytes()

    assert hashlib.sha256(content).hexdigest() == VECTORS[file]


def test_no_work_is_left_for_later() -> None:
    marks = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
    left = [name(p) for p in SOURCES if marks.search(p.read_text())]

    assert not left
