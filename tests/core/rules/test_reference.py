from __future__ import annotations

from pathlib import Path

import pytest

from proxy.core.rules.reference import BEGIN, END, reference, with_reference
from proxy.core.rules.shape import keys

README = Path(__file__).parents[3] / "rules" / "README.md"


def row(path: str) -> str:
    return next(line for line in reference().splitlines() if line.startswith(f"| `{path}` |"))


def test_the_committed_table_is_current() -> None:
    """If not: callsplit rules reference --into rules/README.md."""
    assert with_reference(README.read_text()) == README.read_text()


def test_every_key_has_its_row() -> None:
    rows = reference().splitlines()[2:]

    assert len(rows) == len(list(keys()))
    assert all(line.replace("\\|", "").count("|") == 5 for line in rows)


@pytest.mark.parametrize(
    ("path", "default"),
    [
        ("listen.body_limit", "`10MB`"),
        ("listen.address", "`127.0.0.1:8080`"),
        ("split.percent", "`0`"),
        ("split.salt", '`""`'),
        ("split.call_id_query", "`[call_id]`"),
        ("split.force", "`null`"),
        ("split.overrides", ""),
        ("backends", "required"),
        ("backends.<name>.handler", "required"),
        ("tools.<name>.effect", "`write`"),
        ("limits.burst", "`3`"),
        ("fallback.enabled", "`true`"),
        ("rollout.steps", "`[10, 25, 50, 75, 100]`"),
    ],
)
def test_a_default_is_shown_as_it_would_be_written(path: str, default: str) -> None:
    assert row(path).split(" | ")[2].strip() == default


def test_what_is_not_in_force_says_so() -> None:
    assert "*Not yet in force.*" in row("rollout.signals.p95")
    assert "*Not yet in force.*" not in row("backends.<name>.breaker.failures")


def test_the_table_goes_between_its_marks() -> None:
    text = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    renewed = with_reference(text)

    assert renewed.startswith(f"before\n{BEGIN}\n\n| Key |")
    assert renewed.endswith(f"{END}\nafter\n")
    assert with_reference(renewed) == renewed


@pytest.mark.parametrize("text", ["", BEGIN, END])
def test_without_marks_there_is_no_place_for_it(text: str) -> None:
    with pytest.raises(ValueError, match="no place"):
        with_reference(text)
