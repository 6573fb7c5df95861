from __future__ import annotations

import io
from typing import Any

import orjson

from proxy.adapters.logs import configure
from proxy.pages import runners
from tests.fakes import FakeOperations


class Watcher:
    def admin_refused(self, *_: object, **__: object) -> None:
        """Nobody is refused here."""


def made(stream: io.StringIO, *, observed: bool) -> dict[str, Any]:
    watcher: Any = Watcher()
    log = configure(lambda: 0, stream=stream)
    return dict(
        runners(FakeOperations(), token=lambda: None, watcher=watcher, log=log, observed=observed)
    )


def test_kubelets_have_pages_of_their_own_if_the_rules_say_so() -> None:
    assert set(made(io.StringIO(), observed=False)) == {"admin"}
    assert set(made(io.StringIO(), observed=True)) == {"admin", "observe"}


def test_a_page_that_crashes_is_told_of() -> None:
    stream = io.StringIO()
    runner = made(stream, observed=False)["admin"]

    runner._crashed(RuntimeError("a bug"))

    assert orjson.loads(stream.getvalue())["event"] == "page_crashed"
