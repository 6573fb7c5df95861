from __future__ import annotations

from pathlib import Path

import pytest

from proxy.adapters.rules_file import load_rules
from proxy.cli.demo_rules import OTHERWISE, SAY_PENDING, TO, DemoRules
from proxy.core.model import Effect


def rules(folder: Path) -> DemoRules:
    return DemoRules("127.0.0.1:0", "127.0.0.1:9901", folder, open_for=1.5)


@pytest.fixture(params=["plain", 'a "b" \\ c: #'])
def folder(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A temporary folder may have any name."""
    made = tmp_path / str(request.param)
    made.mkdir()
    return made


def test_the_embedded_rules_are_good_rules_in_any_folder(folder: Path) -> None:
    embedded = rules(folder)
    embedded.save(10)

    loaded = load_rules(embedded.path, {})
    assert loaded.warnings == ()
    assert loaded.rules.split.percent == 10
    assert loaded.rules.backends[TO].breaker.open_for == 1.5
    assert {arm.handler for arm in loaded.rules.backends.values()} == {"demo"}
    assert [ref.ref for ref in loaded.rules.auth.retell_keys] == [f"file:{embedded.key_path}"]


def test_a_booking_is_a_write_whose_sentence_the_callers_know(tmp_path: Path) -> None:
    embedded = rules(tmp_path)
    embedded.save(50)

    booking = load_rules(embedded.path, {}).rules.tool("book_appointment")
    assert booking.effect is Effect.WRITE
    assert booking.say_pending.in_language(None) == SAY_PENDING


def test_saving_again_changes_the_share_and_nothing_else(tmp_path: Path) -> None:
    embedded = rules(tmp_path)
    embedded.save(10)
    before = embedded.path.read_text()
    embedded.save(12.5)

    assert embedded.path.read_text() == before.replace("percent: 10", "percent: 12.5")
    assert [path.name for path in tmp_path.iterdir()] == ["rules.yaml"]
    assert OTHERWISE in before
