"""Which type has a scalar without quotes?  YAML 1.2's core schema: no, on and 1:30 are texts."""

from __future__ import annotations

import re

_INT = re.compile(r"[-+]?[0-9]{1,30}", re.ASCII)
_OCTAL = re.compile(r"0o[0-7]{1,30}", re.ASCII)
_HEX = re.compile(r"0x[0-9a-fA-F]{1,30}", re.ASCII)
_FLOAT = re.compile(
    r"[-+]?(\.[0-9]{1,30}|[0-9]{1,30}(\.[0-9]{0,30})?)([eE][-+]?[0-9]{1,5})?", re.ASCII
)
_INFINITE = re.compile(r"([-+]?)\.(inf|Inf|INF)", re.ASCII)
_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".nan", ".NaN", ".NAN"), float("nan")),
}


def typed(text: str) -> str | int | float | bool | None:
    """The value of a plain scalar; `017` is 17, `0o17` is 15.

    An integer of more than 64 bits stays text: nothing here counts so far, and no JSON holds it.
    """
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return _held(int(text), text)
    if _OCTAL.fullmatch(text):
        return _held(int(text[2:], 8), text)
    if _HEX.fullmatch(text):
        return _held(int(text[2:], 16), text)
    if _FLOAT.fullmatch(text):
        return float(text)
    if infinite := _INFINITE.fullmatch(text):
        return float(f"{infinite[1]}inf")
    return text


def _held(number: int, text: str) -> int | str:
    return number if -(2**63) <= number < 2**64 else text
