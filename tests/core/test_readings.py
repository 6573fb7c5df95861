from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.readings import behind_scripts, plain_path, readings


@pytest.mark.parametrize(
    ("path", "plain"),
    [
        ("/", "/"),
        ("", "/"),
        ("/A//b/./c/../d/", "/a/b/d"),
        ("/a;x=1/b?c#d", "/a/b"),
        ("/a%2520b", "/a b"),
        ("/%20a%20/b.%20.", "/a/b"),
        ("/a/.. /b", "/b"),
        ("/a/.../b", "/a/b"),
        ("/\uff21\uff0f\uff42", "/a/b"),
        ("/a\u200b\ufeffb", "/ab"),
        ("/100%", "/100%"),
        ("/%zz", "/%zz"),
    ],
)
def test_a_path_sheds_its_disguises(path: str, plain: str) -> None:
    assert plain_path(path) == plain


@pytest.mark.parametrize(
    "path",
    ["/%00", "/%0a", "/%7f", "/%c2%85", "/%ff", "/%c0%af", "/%u002f", "/%25U00e9", "/\udc80",
     "/%" + "25" * 20 + "72"],
)  # fmt: skip
def test_what_no_honest_caller_writes_has_no_reading(path: str) -> None:
    assert plain_path(path) is None
    assert readings(path) == ()


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/a", {"/a"}),
        ("/a.b.c", {"/a.b.c", "/a.b"}),
        ("/.well-known", {"/.well-known"}),
        ("/x/index.php", {"/x/index.php", "/x/index", "/", "/x"}),
        ("/x/I.PHP/a/b.ASPX/c", {"/x/i.php/a/b.aspx/c", "/a/b.aspx/c", "/c", "/x/a/c"}),
    ],
)
def test_scripts_and_endings_may_be_there_or_not(path: str, found: set[str]) -> None:
    assert set(readings(path)) == found


def test_many_scripts_are_hostile_and_cost_nothing() -> None:
    assert len(readings("/a.php" * 8)) == 17
    assert readings("/a.php" * 9) == readings("/a.php" * 2000) == ()


def test_what_stands_behind_a_script_is_what_it_is_asked_for() -> None:
    assert behind_scripts("/a") == []
    assert behind_scripts("/a.php/b/c.php") == ["/b/c.php", "/"]


@given(st.text())
def test_every_path_has_readings_or_is_hostile(path: str) -> None:
    for each in readings("/" + path):
        assert each.startswith("/")
        assert "//" not in each
        assert each == each.casefold()
