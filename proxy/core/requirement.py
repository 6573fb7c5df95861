"""What must a request prove?  Sets of proofs, each of which is enough."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from operator import or_

TOKEN = 1
SIGNATURE = 2
"""The proofs that a request may hold; those it holds add up to a number from 0 to 3."""

_PROOFS = {"none": 0, "token": TOKEN, "signature": SIGNATURE}


@dataclass(frozen=True, slots=True)
class Requirement:
    """Any of `ways` is enough: each is a sum of proofs, none contains another."""

    ways: frozenset[int]

    @classmethod
    def any_of(cls, words: Iterable[str]) -> Requirement:
        """One of `token`, `signature`, `none` is enough."""
        return _least(_PROOFS[word] for word in words)

    @classmethod
    def all_of(cls, words: Iterable[str]) -> Requirement:
        """Nothing less than all of them is enough."""
        return cls(frozenset({reduce(or_, (_PROOFS[word] for word in words), 0)}))

    def __and__(self, other: Requirement) -> Requirement:
        return _least(mine | yours for mine in self.ways for yours in other.ways)

    @property
    def enough(self) -> tuple[bool, ...]:
        """By the sum of the proofs held: will they do?"""
        return tuple(any(held & way == way for way in self.ways) for held in range(4))

    @property
    def useful(self) -> int:
        """The sum of the proofs that can help at all."""
        return reduce(or_, self.ways, 0)


def _least(ways: Iterable[int]) -> Requirement:
    """Drop every way that asks for more than another one does."""
    every = frozenset(ways)
    return Requirement(
        frozenset(way for way in every if not any(way & less == less for less in every - {way}))
    )


OPEN = Requirement(frozenset({0}))
