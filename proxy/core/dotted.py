"""What does a dotted path lead to in a JSON value?"""

from __future__ import annotations


def below(value: object, path: str) -> object:
    """The value at `path`, None if there is none.

    A key that itself holds dots is found by its whole name; a number counts a list's items from 0.
    """
    while path:
        key, rest = path, ""
        if not (isinstance(value, dict) and path in value):
            key, _, rest = path.partition(".")
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, list):
            value = value[int(key)] if _is_index(key) and int(key) < len(value) else None
        else:
            return None
        path = rest
    return value


def _is_index(key: str) -> bool:
    return key.isascii() and key.isdigit() and len(key) < 7
