"""All vectors through several sidecars at a time, each with an origin of its own."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.desync.oracle import LENIENCIES, Finding, Sort, judge, judge_response
from tests.desync.vectors import Vector, ways
from tests.desync.world import World, standing

WORLDS = 6


@dataclass
class Result:
    """What became of everything."""

    findings: list[Finding] = field(default_factory=list)

    @property
    def counts(self) -> dict[str, Counter[str]]:
        """How often what, per file."""
        counts: dict[str, Counter[str]] = {}
        for one in self.findings:
            counts.setdefault(one.vector.file, Counter())[one.sort.value] += 1
        return counts

    @property
    def bad(self) -> list[Finding]:
        """What must not be."""
        return [one for one in self.findings if is_bad(one)]

    @property
    def verdicts(self) -> dict[str, list[str]]:
        """The scored entries of Http11Probe by its own verdict."""
        by: dict[str, list[str]] = {"pass": [], "warn": [], "fail": []}
        for one in self.findings:
            if one.vector.scored and one.vector.way == "as it is":
                by[verdict(one)].append(one.vector.id)
        return by

    def summary(self) -> dict[str, Any]:
        """For a file."""
        return {
            "files": {name: dict(counts) for name, counts in self.counts.items()},
            "http11probe": {name: len(ids) for name, ids in self.verdicts.items()},
            "bad": [[one.vector.file, one.vector.id, one.vector.way, one.why] for one in self.bad],
        }


def is_bad(one: Finding) -> bool:
    """A violation, an unexplained refusal, a leniency that nobody has weighed, a failed probe."""
    if one.sort is Sort.LENIENT:
        return not one.why.startswith(LENIENCIES)
    if one.sort in (Sort.VIOLATION, Sort.UNEXPLAINED):
        return True
    return one.vector.scored and one.vector.way == "as it is" and verdict(one) == "fail"


def verdict(one: Finding) -> str:
    """What Http11Probe says of a status and a state."""
    heard = f"{one.status}/{one.state}"
    if heard in one.vector.passes:
        return "pass"
    if heard in one.vector.warns:
        return "warn"
    # Where no status passes by itself it also looks at the body, or at a field.
    good = one.status is not None and 200 <= one.status < 300
    return "pass" if good and not one.vector.passes else "fail"


async def run(files: dict[str, list[Vector]], worlds: int = WORLDS) -> Result:
    """Send every vector every way; the result is in the order of the files."""
    todo = [sent for some in files.values() for vector in some for sent in _sendings(vector)]
    found: dict[int, Finding] = {}
    numbers = iter(range(len(todo)))
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        async with asyncio.TaskGroup() as group:
            for index in range(min(worlds, len(todo))):
                place = folder / str(index)
                place.mkdir()
                world = await stack.enter_async_context(standing(place))
                group.create_task(_work(world, todo, numbers, found))
    return Result([found[index] for index in range(len(todo))])


async def _work(
    world: World, todo: list[Vector], numbers: Iterable[int], found: dict[int, Finding]
) -> None:
    for number in numbers:
        vector = todo[number]
        if vector.response:
            found[number] = await judge_response(world, vector, ours=vector.way == "as ours")
        else:
            found[number] = await judge(world, vector)


def _sendings(vector: Vector) -> Iterable[Vector]:
    if vector.response:
        return [vector, replace(vector, way="as ours")]
    return ways(vector)
