import ast
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.tokens import TokenSet, bearer

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize(
    ("value", "token"),
    [
        (b"Bearer abc", b"abc"),
        (b"bearer abc", b"abc"),
        (b"BEARER abc", b"abc"),
        (b"Bearer   abc", b"abc"),
        (b"Bearer abc ", b"abc"),
        (b"Bearer \xff\x00", b"\xff\x00"),
        (b"Bearer a b", b"a b"),
        (b"Bearer", None),
        (b"Bearer ", None),
        (b"Bearerabc", None),
        (b"Bearer\tabc", None),
        (b"Basic YTpi", None),
        (b"Token abc", None),
        (b"abc", None),
        (b"", None),
    ],
)
def test_a_bearer_token_is_read_whatever_the_schemes_case(
    value: bytes, token: bytes | None
) -> None:
    assert bearer(value) == token


def test_each_token_is_found_at_its_place() -> None:
    tokens = TokenSet([b"primary", b"backup", "grüß".encode()])

    assert [tokens.find(t) for t in (b"primary", b"backup", "grüß".encode())] == [0, 1, 2]
    assert len(tokens) == 3


@pytest.mark.parametrize(
    "presented",
    [b"", b"primar", b"primary ", b"primary1", b"PRIMARY", b"primaryprimary", b"\xff", b"x" * 9999],
)
@pytest.mark.row("A1")
def test_whatever_is_not_a_token_is_not_found(presented: bytes) -> None:
    assert TokenSet([b"primary", b"backup"]).find(presented) == -1


@given(st.lists(st.binary(min_size=1), unique=True), st.binary())
def test_found_means_equal(tokens: list[bytes], presented: bytes) -> None:
    expected = tokens.index(presented) if presented in tokens else -1

    assert TokenSet(tokens).find(presented) == expected


def test_no_token_equals_nothing() -> None:
    assert TokenSet([]).find(b"") == -1


def test_an_empty_token_is_refused_at_load() -> None:
    with pytest.raises(ValueError, match="empty"):
        TokenSet([b"good", b""])


def test_no_token_shows_in_its_repr() -> None:
    assert "primary" not in repr(TokenSet([b"primary"]))


def compared_plainly(path: Path) -> list[str]:
    """Comparisons by `==` or `in` that mention a secret, or what is made of one."""
    secret = re.compile(r"\b_?(token|key|digest|secret|signature|presented|ours)s?\b")
    plain = (ast.Eq, ast.NotEq, ast.In, ast.NotIn)
    return [
        ast.unparse(node)
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Compare)
        and any(isinstance(operator, plain) for operator in node.ops)
        and secret.search(ast.unparse(node))
    ]


@pytest.mark.parametrize("name", ["tokens", "signature", "auth", "force"])
@pytest.mark.row("A3")
def test_secrets_are_compared_by_compare_digest_only(name: str) -> None:
    """`==` ends at the first byte that differs, and so tells how many were right."""
    path = ROOT / "proxy" / "core" / f"{name}.py"

    assert compared_plainly(path) == []
    assert ("compare_digest" in path.read_text()) is (name in {"tokens", "signature"})
