"""Every input that has taught the fuzzer something, again: fast, and without it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.targets import CORPUS, TARGETS, seeds

INPUTS = [(target, path) for target in TARGETS for path in seeds(target)]


@pytest.mark.parametrize(
    ("target", "path"), INPUTS, ids=[f"{target}-{path.name}" for target, path in INPUTS]
)
def test_every_promise_holds_for_what_fuzzing_has_found(target: str, path: Path) -> None:
    subject = TARGETS[target]()
    try:
        subject(path.read_bytes())
    finally:
        subject.close()


@pytest.mark.parametrize("target", TARGETS)
def test_each_target_begins_somewhere_and_its_inputs_are_small(target: str) -> None:
    sizes = [path.stat().st_size for path in seeds(target)]

    assert len(sizes) >= 5
    assert max(sizes) <= 4096


def test_there_is_no_corpus_without_a_target() -> None:
    assert {path.name for path in CORPUS.iterdir() if path.is_dir()} == set(TARGETS)
