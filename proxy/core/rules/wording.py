"""What pydantic found, in the words of somebody who edits YAML."""

from __future__ import annotations

from typing import Any

from proxy.core.rules.finding import Finding, Path
from proxy.core.rules.parse import HintedError, SecretError, describe
from proxy.core.rules.shape import keys, section_at
from proxy.core.suggest import nearest

_EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing_size": "a smaller number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "text",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "tuple_type": "a list",
}
_BOUNDS = {
    "greater_than": ("more than", "gt"),
    "greater_than_equal": ("at least", "ge"),
    "less_than_equal": ("at most", "le"),
}


def finding_of(error: Any) -> Finding:
    """One of pydantic's error details as a finding."""
    path: Path = tuple(error["loc"])
    at_key = bool(path) and path[-1] == "[key]"
    path = path[:-1] if at_key else path
    kind, given = error["type"], error["input"]
    if kind == "extra_forbidden":
        return Finding(path, f"unknown key '{path[-1]}'", _hint_for_key(path), at_key=True)
    if kind == "missing":
        return Finding(path, f"'{path[-1]}' is missing", _hint_for_missing(path))
    cause = error.get("ctx", {}).get("error")
    message = _message(kind, given, error) if cause is None else str(cause)
    secret = isinstance(cause, SecretError)
    hint = cause.hint if isinstance(cause, HintedError) else _hint_for_value(kind, given)
    return Finding(path, message, hint, at_key=at_key, secret=secret)


def _message(kind: str, given: object, error: Any) -> str:
    if kind in _EXPECTED:
        return f"expected {_EXPECTED[kind]}, got {describe(given)}"
    if kind in _BOUNDS:
        words, bound = _BOUNDS[kind]
        return f"must be {words} {error['ctx'][bound]:g}, got {describe(given)}"
    if kind == "literal_error":
        return f"expected {error['ctx']['expected']}, got {describe(given)}"
    return f"{error['msg']}, got {describe(given)}"


def _hint_for_key(path: Path) -> str:
    name = str(path[-1])
    section = section_at(path[:-1])
    known = section.model_fields if section else ()
    if guess := nearest(name, known):
        return f"did you mean '{guess}'?"
    homes = [key.path for key in keys() if key.path.rpartition(".")[2] == name]
    if homes:
        return f"that key belongs at {homes[0]}"
    return f"known here: {', '.join(known)}"


def _hint_for_missing(path: Path) -> str:
    section = section_at(path[:-1])
    field = section.model_fields.get(str(path[-1])) if section else None
    return (field.description or "") if field else ""


def _hint_for_value(kind: str, given: object) -> str:
    if given is None and kind in ("model_type", "dict_type", "tuple_type"):
        return "leave the key out, or write {} or [] for nothing"
    if kind == "bool_type" and isinstance(given, str) and given.lower() in _YES_NO:
        return f"write {_YES_NO[given.lower()]}: yes, no, on and off are texts in YAML 1.2"
    if kind in ("int_type", "float_type") and isinstance(given, str) and _is_number(given):
        return "take the quotes away"
    return ""


_YES_NO = {"yes": "true", "on": "true", "no": "false", "off": "false", "y": "true", "n": "false"}


def _is_number(text: str) -> bool:
    return text.lstrip("+-").replace(".", "", 1).isascii() and _digits(text)


def _digits(text: str) -> bool:
    return text.lstrip("+-").replace(".", "", 1).isdigit()
