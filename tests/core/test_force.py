import pytest

from proxy.core.addresses import NOWHERE
from proxy.core.force import Force
from proxy.core.head import read_head
from proxy.core.model import Head


def head(*values: bytes) -> Head:
    fields = [(b"X-Force", value) for value in values]
    return read_head("POST", "/", fields, peer="192.0.2.1", secure=False, trusted=NOWHERE)


@pytest.mark.parametrize(
    ("value", "arm"),
    [
        (b"mcp s3cret", "mcp"),
        (b"webhook  s3cret", "webhook"),
        (b"nobody s3cret", "nobody"),
        (b"\xff s3cret", "\xff"),
        (b"mcp s3cre", None),
        (b"mcp s3cret2", None),
        (b"mcp", None),
        (b"mcp ", None),
        (b"s3cret", None),
        (b"mcps3cret", None),
        (b"s3cret mcp", None),
        (b"", None),
    ],
)
def test_only_a_holder_of_the_token_names_an_arm(value: bytes, arm: str | None) -> None:
    assert Force(b"x-force", b"s3cret").arm(head(value)) == arm


def test_a_header_that_stands_twice_names_nothing() -> None:
    assert Force(b"x-force", b"s3cret").arm(head(b"mcp s3cret", b"webhook s3cret")) is None


@pytest.mark.parametrize("value", [b"mcp s3cret", b"mcp", b"mcp ", b"mcp None"])
def test_without_a_token_nobody_forces_anything(value: bytes) -> None:
    """The header is still known, so that it can be kept from the arms."""
    assert Force(b"x-force", None).arm(head(value)) is None


def test_an_empty_token_is_refused_at_load() -> None:
    with pytest.raises(ValueError, match="empty"):
        Force(b"x-force", b"")
