"""A rules document between its text and its values: what is filled in, and what stands where."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from proxy.adapters.rules_yaml import Entries, Items, Node, Place, Scalar
from proxy.core.rules.fill import Filled, FillError, fill, has_places, is_secret_name
from proxy.core.rules.finding import Finding, Path
from proxy.core.rules.scalar import typed
from proxy.errors import Fault

_MASK = "****"


class RulesDocument:
    """One document; `data` are its plain values, `names` the variables that it refers to."""

    def __init__(self, root: Node, environment: Mapping[str, str], *, file: str, text: str) -> None:
        self.names: set[str] = set()
        self.faults: list[Fault] = []
        self._environment = environment
        self._root = root
        self._file = file
        self._lines = text.splitlines()
        self._unfilled: set[Path] = set()
        self.data = self._value(root, ())

    def fault(self, finding: Finding) -> Fault | None:
        """A finding with its place; None if a fault already told explains it."""
        if finding.path in self._unfilled:
            return None
        place, node = self._locate(finding)
        message, hint, masked = finding.message, finding.hint, finding.secret
        if isinstance(node, Scalar) and has_places(node.text) and not finding.at_key:
            given = fill(node.text, self._environment).given
            hint = hint or f"the value comes from {', '.join(given)}" if given else hint
            if any(is_secret_name(name) for name in given):
                message = "the value that the environment gives does not fit here"
        return Fault(
            message,
            path=finding.dotted,
            file=self._file,
            line=place.line,
            column=place.column,
            source=self._source(place, node if masked else None),
            hint=hint,
        )

    def at(self, message: str, place: Place, hint: str = "", path: str = "") -> Fault:
        """A fault at a place of the text."""
        source = self._source(place, None)
        return Fault(message, path, self._file, place.line, place.column, source, hint)

    def _value(self, node: Node, path: Path) -> Any:
        if isinstance(node, Entries):
            inner = node.nodes.items()
            return {name: self._value(value, (*path, name)) for name, (_, value) in inner}
        if isinstance(node, Items):
            return [self._value(value, (*path, i)) for i, value in enumerate(node.nodes)]
        text = self._filled(node, path).text if has_places(node.text) else node.text
        return typed(text) if node.plain else text

    def _filled(self, node: Scalar, path: Path) -> Filled:
        try:
            filled = fill(node.text, self._environment)
        except FillError as error:
            dotted = ".".join(map(str, path))
            self.faults.append(self.at(str(error), node.place, error.hint, dotted))
            self._unfilled.add(path)
            return Filled("")
        self.names.update(filled.names)
        return filled

    def _locate(self, finding: Finding) -> tuple[Place, Node]:
        """Where a finding stands, or the key of what it is missing from."""
        node, key = self._root, Place(1, 1)
        for part in _parts(self._root, finding.path):
            inner = _inner(node, part)
            if inner is None:
                return key, node
            key, node = inner
        return (key if finding.at_key else node.place), node

    def _source(self, place: Place, masked: Node | None) -> str:
        if not 0 < place.line <= len(self._lines):
            return ""
        line = self._lines[place.line - 1]
        if masked is None:
            return line
        start = masked.place.column - 1 if masked.place.line == place.line else 0
        end = masked.end.column - 1 if masked.end.line == place.line else len(line)
        return line[:start] + _MASK + line[end:]


def _inner(node: Node, part: str | int) -> tuple[Place, Node] | None:
    if isinstance(node, Entries):
        return node.nodes.get(str(part))
    if isinstance(node, Items) and str(part).isdigit() and int(part) < len(node.nodes):
        inner = node.nodes[int(part)]
        return inner.place, inner
    return None


def _parts(root: Node, path: Path) -> list[str | int]:
    """The path, with a dotted last part (below a `when`) taken apart at the keys that exist."""
    if not path or not isinstance(path[-1], str) or "." not in path[-1]:
        return list(path)
    node: Node | None = root
    for part in path[:-1]:
        inner = _inner(node, part) if node is not None else None
        node = inner[1] if inner else None
    return [*path[:-1], *_split(node, path[-1])]


def _split(node: Node | None, dotted: str) -> list[str | int]:
    """Keys have dots of their own: the longest one that fits goes first."""
    parts = dotted.split(".")
    for count in range(len(parts), 0, -1):
        head = ".".join(parts[:count])
        inner = _inner(node, head) if node is not None else None
        if inner is not None:
            rest = ".".join(parts[count:])
            return [head, *(_split(inner[1], rest) if rest else [])]
    return [dotted]
