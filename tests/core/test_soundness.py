from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from proxy.core.model import Reply
from proxy.core.soundness import unsound


async def chunks() -> AsyncIterator[bytes]:
    yield b"a"


def test_a_sound_answer_has_nothing_wrong() -> None:
    assert unsound(Reply(200, [(b"content-type", b"text/plain")], b"{}")) == ""
    assert unsound(Reply(204)) == ""
    assert unsound(Reply(200, [(b"x", b"caf\xe9")], chunks())) == ""


@pytest.mark.parametrize(
    ("reply", "wrong"),
    [
        (None, "no Reply"),
        ({"status": 200}, "no Reply"),
        (Reply(100), "no final status"),
        (Reply(999), "no final status"),
        (Reply("200"), "no final status"),  # type: ignore[arg-type]
        (Reply(200, [], "text"), "a body"),  # type: ignore[arg-type]
        (Reply(200, [], None), "a body"),  # type: ignore[arg-type]
        (Reply(200, ttl="5s"), "a ttl"),  # type: ignore[arg-type]
        (Reply(200, [("a", "b")]), "no pair"),  # type: ignore[list-item]
        (Reply(200, [(b"a", b"b", b"c")]), "no pair"),  # type: ignore[list-item]
        (Reply(200, [[b"a", b"b"]]), "no pair"),  # type: ignore[list-item]
        (Reply(200, [(b"a b", b"c")]), "a byte"),
        (Reply(200, [(b"", b"c")]), "a byte"),
        (Reply(200, [(b"a", b"c\r\nSet-Cookie: x")]), "a byte"),
        (Reply(200, [(b"a", b"c\0")]), "a byte"),
    ],
)
def test_what_could_not_be_written_is_told(reply: Any, wrong: str) -> None:
    assert wrong in unsound(reply)
