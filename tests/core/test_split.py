from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.split import RANGE, call_hash, in_share, threshold

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parents[1] / "vectors" / "split.json").read_text("ascii")
)
CALL_IDS = [f"call_{number:027x}" for number in range(100_000)]
PERCENTS = st.integers(0, 10_000).map(lambda steps: steps / 100)


def murmur3(data: bytes) -> int:
    """MurmurHash3_x86_32, seed 0, written from its description and from nothing else."""
    mask, state = 0xFFFFFFFF, 0

    def mixed(block: int) -> int:
        block = block * 0xCC9E2D51 & mask
        block = (block << 15 | block >> 17) & mask
        return block * 0x1B873593 & mask

    whole = len(data) - len(data) % 4
    for at in range(0, whole, 4):
        state ^= mixed(int.from_bytes(data[at : at + 4], "little"))
        state = (state << 13 | state >> 19) & mask
        state = (state * 5 + 0xE6546B64) & mask
    if whole < len(data):
        state ^= mixed(int.from_bytes(data[whole:], "little"))
    state ^= len(data)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        state = (state ^ state >> shift) * factor & mask
    return state ^ state >> 16


@pytest.mark.parametrize(
    ("data", "expected"),
    [(b"", 0), (b"\0\0\0\0", 0x2362F9DE), (b"test", 0xBA6BD213), (b"Hello, world!", 0xC0363E43)],
)
def test_the_computation_below_is_murmur3_as_published(data: bytes, expected: int) -> None:
    assert murmur3(data) == expected


def test_the_vectors_are_many_and_varied() -> None:
    rows = VECTORS["calls"]

    assert len(rows) >= 200
    assert any(row["salt"] == "" for row in rows)
    assert any(not row["call_id"].isascii() for row in rows)
    assert len(VECTORS["thresholds"]) >= 100


def test_every_vector_holds_and_equals_an_independent_computation() -> None:
    for row in VECTORS["calls"]:
        hashed = call_hash(row["call_id"], row["salt"])

        assert hashed == row["hash"] == murmur3(bytes.fromhex(row["bytes"])), row
        assert in_share(hashed, row["joins_at"]), row
        assert not in_share(hashed, row["joins_at"] - 0.01), row


def test_every_threshold_is_frozen() -> None:
    for percent, expected in VECTORS["thresholds"]:
        assert threshold(percent) == expected


@pytest.mark.parametrize("hashed", [0, 1, RANGE // 2, RANGE - 1])
def test_zero_is_nobody_and_a_hundred_is_everybody(hashed: int) -> None:
    assert not in_share(hashed, 0)
    assert in_share(hashed, 100)


@given(PERCENTS, PERCENTS, st.integers(0, RANGE - 1))
def test_raising_the_share_only_adds_calls(one: float, other: float, hashed: int) -> None:
    low, high = sorted((one, other))
    if in_share(hashed, low):
        assert in_share(hashed, high)
    assert threshold(low) <= threshold(high)


@given(st.integers(0, 9_999))
def test_each_step_of_a_hundredth_percent_adds_calls(steps: int) -> None:
    assert threshold(steps / 100) < threshold((steps + 1) / 100)


@pytest.mark.parametrize("percent", [1, 10, 50])
@pytest.mark.parametrize("salt", ["", "a secret of some length"])
def test_a_hundred_thousand_calls_split_as_asked(percent: float, salt: str) -> None:
    inside = sum(in_share(call_hash(call_id, salt), percent) for call_id in CALL_IDS)

    assert abs(inside / len(CALL_IDS) * 100 - percent) < 0.3


def test_two_salts_are_independent() -> None:
    """Who is in one rollout says nothing about who is in the next."""
    both = sum(
        in_share(call_hash(call_id, "first"), 50) and in_share(call_hash(call_id, "second"), 50)
        for call_id in CALL_IDS
    )

    assert abs(both / len(CALL_IDS) - 0.25) < 0.003


def test_calls_crafted_without_the_salt_spread_like_any_other() -> None:
    """Whoever tries IDs until the plain hash suits him gains nothing against a secret salt."""
    crafted = [each for each in CALL_IDS if in_share(call_hash(each, ""), 1)]
    assert len(crafted) > 900

    inside = sum(in_share(call_hash(each, "9f1d0c77a9d04e6b"), 50) for each in crafted)
    assert 0.43 < inside / len(crafted) < 0.57


def test_the_exact_bytes_count() -> None:
    """No trimming, no case folding, no normal form."""
    spellings = ["call_é", "call_e\u0301", "CALL_é", "call_é ", " call_é"]

    assert len({call_hash(each, "s") for each in spellings}) == len(spellings)


def test_bytes_that_are_no_utf8_are_hashed_as_they_were() -> None:
    raw = b"call_caf\xe9\xff"

    assert call_hash(raw.decode("utf-8", "surrogateescape"), "s") == murmur3(b"s:" + raw)


@given(st.text(st.characters(exclude_categories=())), st.text(st.characters(exclude_categories=())))
def test_no_text_is_beyond_the_hash(call_id: str, salt: str) -> None:
    assert 0 <= call_hash(call_id, salt) < RANGE
    assert call_hash(call_id, salt) == call_hash(call_id, salt)
