"""How ops write durations, sizes and percentages, and what they become."""

from __future__ import annotations

import math
import re

DURATION_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
SIZE_UNITS = {
    "B": 1,
    "kB": 2**10,
    "KB": 2**10,
    "KiB": 2**10,
    "MB": 2**20,
    "MiB": 2**20,
    "GB": 2**30,
    "GiB": 2**30,
}
_QUANTITY = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,18})?) ?([A-Za-z]+|%)?", re.ASCII)
_HUNDREDTH_OFF = 1e-6  # how far a float may lie from a step of 0.01


def duration(text: str) -> float:
    """`250ms`, `30s`, `1.5m`, `3h` as seconds; raises ValueError with the way out."""
    number, unit = _split(text, "a duration such as 250ms, 30s, 5m or 1h")
    if unit not in DURATION_UNITS:
        raise ValueError(_unit_fault(text, unit, "ms, s, m or h"))
    # Multiplying by 0.001 would make 250ms 0.25000000000000006 here and there.
    return float(number) / 1000 if unit == "ms" else float(number) * DURATION_UNITS[unit]


def size(text: str) -> int:
    """`512B`, `256kB`, `10MB`, `1GB` as bytes, each step 1024; raises ValueError."""
    number, unit = _split(text, "a size such as 256kB or 10MB")
    if unit not in SIZE_UNITS:
        raise ValueError(_unit_fault(text, unit, "B, kB, MB or GB"))
    return round(float(number) * SIZE_UNITS[unit])


def percent(value: str | float) -> float:
    """`50%`, `50` or `0.25` as a float from 0 to 100 in steps of 0.01; raises ValueError."""
    if isinstance(value, str):
        number, unit = _split(value, "a percentage such as 12.5 or 50%")
        if unit != "%":
            raise ValueError(_unit_fault(value, unit, "%"))
        value = float(number)
    if not math.isfinite(value) or not 0 <= value <= 100:
        raise ValueError(f"must lie between 0 and 100, got {value:g}")
    hundredths = round(value * 100)
    if abs(value * 100 - hundredths) > _HUNDREDTH_OFF:
        raise ValueError(f"steps of 0.01 only, got {value!r}")
    return hundredths / 100


def say_duration(seconds: float) -> str:
    """Seconds as ops would write them: the largest unit that stays whole."""
    for unit, worth in (("h", 3600), ("m", 60), ("s", 1)):
        if seconds >= worth and seconds % worth == 0:
            return f"{seconds / worth:.0f}{unit}"
    return f"{_plain(seconds)}s" if seconds >= 1 else f"{_plain(seconds * 1000)}ms"


def say_size(count: int) -> str:
    """Bytes as ops would write them: the largest unit that stays whole."""
    for unit in ("GB", "MB", "kB"):
        if count >= SIZE_UNITS[unit] and count % SIZE_UNITS[unit] == 0:
            return f"{count // SIZE_UNITS[unit]}{unit}"
    return f"{count}B"


def _plain(number: float) -> str:
    """Without an exponent, which no reader of these units takes."""
    return f"{number:.6f}".rstrip("0").rstrip(".")


def _split(text: str, wanted: str) -> tuple[str, str]:
    found = _QUANTITY.fullmatch(text)
    if found is None:
        raise ValueError(f"expected {wanted}, got '{text[:40]}'")
    return found[1], found[2] or ""


def _unit_fault(text: str, unit: str, units: str) -> str:
    if not unit:
        return f"'{text}' lacks a unit: {units}"
    return f"unknown unit '{unit[:20]}': {units}"
