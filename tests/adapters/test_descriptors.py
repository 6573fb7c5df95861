from __future__ import annotations

import resource
from collections.abc import Iterator

import pytest

from proxy.adapters.descriptors import PLENTY, descriptors, raise_descriptors


@pytest.fixture
def lower() -> Iterator[int]:
    """A limit below what the process may have; afterwards as before."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[0] - 1, before[1]))
    yield before[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_limit_is_lifted_as_far_as_it_goes(lower: int) -> None:
    before = descriptors()

    assert before < raise_descriptors() == descriptors() == min(lower, PLENTY)


def test_lifting_what_is_lifted_changes_nothing(lower: int) -> None:
    raise_descriptors()
    assert raise_descriptors() == descriptors()


def test_a_system_that_gives_less_than_it_promises_leaves_the_limit(
    lower: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(what: int, limits: tuple[int, int]) -> None:
        raise ValueError("not allowed to raise maximum limit")

    before = descriptors()
    with monkeypatch.context() as patched:
        patched.setattr(resource, "setrlimit", refuses)
        assert raise_descriptors() == before


def test_no_limit_is_plenty(monkeypatch: pytest.MonkeyPatch) -> None:
    infinite = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", lambda what: infinite)

    assert descriptors() == raise_descriptors() == PLENTY
