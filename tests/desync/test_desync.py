"""F21 and F22: every vector of other people's, and our own mutations, through the sidecar."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import uvloop

from tests.desync.mutations import answers, mutations
from tests.desync.obfuscations import TELLING, obfuscations
from tests.desync.oracle import Sort
from tests.desync.runs import Result, run
from tests.desync.vectors import Vector, load

FILES = load()
WORLDS = 4


def pytest_asyncio_loop_factories(
    config: object, item: object
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


def told(result: Result) -> list[tuple[str, str, str, str]]:
    return [(one.vector.id, one.vector.way, one.sort.value, one.why) for one in result.bad]


async def through(vectors: list[Vector]) -> Result:
    result = await run({vectors[0].file: vectors}, WORLDS)
    assert {one.vector.id for one in result.findings} == {one.id for one in vectors}
    return result


@pytest.mark.row("F21")
@pytest.mark.parametrize("file", [name for name in FILES if name != "http11probe"])
async def test_no_vector_is_misread_and_every_valid_one_arrives(file: str) -> None:
    assert told(await through(FILES[file])) == []


@pytest.mark.row("F21", "F22")
async def test_no_probe_is_misread_and_none_that_is_scored_fails() -> None:
    result = await through(FILES["http11probe"])

    assert told(result) == []
    assert result.verdicts["fail"] == []
    assert sum(map(len, result.verdicts.values())) == 144


@pytest.mark.row("F21")
async def test_no_mutation_of_ours_is_misread() -> None:
    result = await through(mutations(2026, 200))

    assert told(result) == []
    sorts = {one.sort for one in result.findings}
    assert {Sort.CLEAN, Sort.REJECT} <= sorts


@pytest.mark.row("F3", "F4", "F7", "F8", "F9", "F10", "F21")
async def test_no_byte_in_any_place_hides_a_framing() -> None:
    assert told(await through(obfuscations(TELLING))) == []


@pytest.mark.row("F21", "R1", "R2")
async def test_no_mutated_answer_is_passed_on_as_another_one() -> None:
    result = await through(answers(2026, 150))

    assert told(result) == []
    sorts = {one.sort for one in result.findings}
    assert {Sort.CLEAN, Sort.REJECT} <= sorts
