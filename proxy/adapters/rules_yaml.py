"""How YAML text becomes nodes with places: strict, bounded, and never fatal to the process.

Only PyYAML's Python code reads the text, event by event: its C loader crashes the process on
deep nesting, and its constructors know tags.  Scalars are not typed here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import yaml
from yaml.parser import Parser
from yaml.reader import Reader, ReaderError
from yaml.scanner import Scanner

from proxy.core.rules.fill import is_text

MAX_BYTES = 2**20
MAX_DEPTH = 32
MAX_NODES = 20_000
MAX_ALIASES = 64
MAX_FAULTS = 100


@dataclass(frozen=True, slots=True)
class Place:
    """Line and column, from 1."""

    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Scalar:
    """A scalar as written; `plain` means without quotes: it still looks for its type."""

    text: str
    plain: bool
    place: Place
    end: Place
    weight: int = 1


@dataclass(frozen=True, slots=True)
class Items:
    """A sequence."""

    nodes: list[Node]
    place: Place
    end: Place
    weight: int


@dataclass(frozen=True, slots=True)
class Entries:
    """A mapping; each key with its own place."""

    nodes: dict[str, tuple[Place, Node]]
    place: Place
    end: Place
    weight: int


Node: TypeAlias = Scalar | Items | Entries


@dataclass(frozen=True, slots=True)
class Flaw:
    """What is wrong with the text itself."""

    message: str
    place: Place
    hint: str = ""


class YamlError(ValueError):
    """The text is no document that we take; every flaw found up to there."""

    def __init__(self, flaws: list[Flaw]) -> None:
        super().__init__(flaws[0].message)
        self.flaws = flaws


def read_yaml(text: str) -> Node | None:
    """The one document in `text`, None if there is none; raises YamlError."""
    flaws: list[Flaw] = []
    try:
        node = _Composer(_Events(text), flaws).document()
    except yaml.MarkedYAMLError as error:
        raise YamlError([*flaws, _syntax_flaw(error, text)]) from None
    except ReaderError as error:
        before = text[: error.position]
        place = Place(before.count("\n") + 1, len(before) - before.rfind("\n"))
        message = f"the character U+{error.character:04X} is not allowed in YAML"
        raise YamlError([*flaws, Flaw(message, place)]) from None
    except _TooMuchError as stop:
        raise YamlError([*flaws, stop.flaw]) from None
    if flaws:
        raise YamlError(flaws)
    return node


class _Events(Reader, Scanner, Parser):
    """PyYAML's scanner and parser, without its constructors."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)

    def scan_plain(self) -> Any:
        """As YAML 1.2 has it: `?` may stand inside a plain scalar, also between brackets."""
        look = Reader.peek

        def peek(index: int = 0) -> str:
            char = look(self, index)
            return "x" if char == "?" else char

        self.peek = peek  # type: ignore[method-assign]
        try:
            return super().scan_plain()
        finally:
            del self.peek


class _TooMuchError(Exception):
    def __init__(self, flaw: Flaw) -> None:
        super().__init__(flaw.message)
        self.flaw = flaw


class _Composer:
    """Builds nodes from events, within bounds."""

    def __init__(self, events: _Events, flaws: list[Flaw]) -> None:
        self._events = events
        self._flaws = flaws
        self._anchors: dict[str, Node | None] = {}
        self._aliases = 0
        self._nodes = 0

    def _next(self) -> Any:
        return self._events.get_event()  # type: ignore[no-untyped-call]

    def document(self) -> Node | None:
        self._next()  # the start of the stream
        if self._events.check_event(yaml.StreamEndEvent):
            return None
        self._next()  # the start of the document
        node = self._node(1)
        self._next()  # its end
        if not self._events.check_event(yaml.StreamEndEvent):
            place = _place(self._next().start_mark)
            self._flaw("a second document begins here", place, "one file holds one document")
        return node

    def _node(self, depth: int) -> Node:
        event = self._next()
        place = _place(event.start_mark)
        self._bound(depth, place)
        if isinstance(event, yaml.AliasEvent):
            return self._aliased(event, place)
        if event.tag is not None:
            tag = event.tag.replace("tag:yaml.org,2002:", "!!")[:40]
            self._flaw(f"the tag {tag} is not allowed", place, "write the value alone")
        if event.anchor is not None:
            self._anchors[event.anchor] = None  # not finished: it cannot hold itself
        node = self._content(event, place, depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = node
        return node

    def _content(self, event: Any, place: Place, depth: int) -> Node:
        if isinstance(event, yaml.ScalarEvent):
            text, plain = event.value, event.style is None or event.style == ""
            if not is_text(text):  # An escape such as \ud83d: nobody could write it out again.
                self._flaw("half a character is no text", place, "write the character itself")
                text = text.encode("utf-8", "replace").decode()
            return Scalar(text, plain, place, _place(event.end_mark))
        if isinstance(event, yaml.SequenceStartEvent):
            return self._items(place, depth)
        return self._entries(place, depth)

    def _items(self, place: Place, depth: int) -> Items:
        nodes: list[Node] = []
        weight = 1
        while not self._events.check_event(yaml.SequenceEndEvent):
            nodes.append(self._node(depth + 1))
            weight = self._heavier(weight, nodes[-1])
        return Items(nodes, place, _place(self._next().end_mark), weight)

    def _entries(self, place: Place, depth: int) -> Entries:
        nodes: dict[str, tuple[Place, Node]] = {}
        weight = 1
        while not self._events.check_event(yaml.MappingEndEvent):
            key = self._node(depth + 1)
            value = self._node(depth + 1)
            weight = self._heavier(weight, value)
            if name := self._name(key, nodes):
                nodes[name] = (key.place, value)
        return Entries(nodes, place, _place(self._next().end_mark), weight)

    def _name(self, key: Node, taken: dict[str, tuple[Place, Node]]) -> str | None:
        if not isinstance(key, Scalar):
            self._flaw("a key must be plain text", key.place)
        elif key.text in taken:
            first = taken[key.text][0].line
            hint = f"it stands in line {first} already; two equal keys: which one counts?"
            self._flaw(f"the key '{key.text[:40]}' appears twice", key.place, hint)
        elif key.text == "<<" and key.plain:
            self._flaw("merge keys (<<) are not allowed", key.place, "write the keys out")
        elif "${" in key.text:
            self._flaw("a key cannot come from the environment", key.place)
        else:
            return key.text
        return None

    def _aliased(self, event: Any, place: Place) -> Node:
        self._aliases += 1
        if self._aliases > MAX_ALIASES:
            raise _TooMuchError(Flaw(f"more than {MAX_ALIASES} aliases", place))
        node = self._anchors.get(event.anchor)
        if node is None:
            known = "holds itself" if event.anchor in self._anchors else "is not defined above"
            self._flaw(f"the alias *{event.anchor[:40]} {known}", place)
            return Scalar("", True, place, place)
        return node

    def _heavier(self, weight: int, node: Node) -> int:
        """The weight with one node more, its aliases counted out."""
        if weight + node.weight > MAX_NODES:
            raise _TooMuchError(Flaw(f"more than {MAX_NODES} values", node.place))
        return weight + node.weight

    def _bound(self, depth: int, place: Place) -> None:
        self._nodes += 1
        if depth > MAX_DEPTH:
            raise _TooMuchError(Flaw(f"nested more than {MAX_DEPTH} levels deep", place))
        if self._nodes > 2 * MAX_NODES:  # keys are nodes too
            raise _TooMuchError(Flaw(f"more than {MAX_NODES} values", place))

    def _flaw(self, message: str, place: Place, hint: str = "") -> None:
        self._flaws.append(Flaw(message, place, hint))
        if len(self._flaws) >= MAX_FAULTS:
            raise _TooMuchError(Flaw("too many faults; the rest is not read", place))


def _place(mark: Any) -> Place:
    return Place(mark.line + 1, mark.column + 1)


def _syntax_flaw(error: yaml.MarkedYAMLError, text: str) -> Flaw:
    mark = error.problem_mark or error.context_mark
    place = _place(mark) if mark else Place(1, 1)
    lines = text.splitlines()
    line = lines[place.line - 1] if place.line <= len(lines) else ""
    return Flaw(error.problem or error.context or "not YAML", place, _syntax_hint(error, line))


def _syntax_hint(error: yaml.MarkedYAMLError, line: str) -> str:
    problem = error.problem or ""
    if "\\t" in problem:
        return "indent with spaces, not with tabs"
    if "${" in line and ("{" in line.split("${")[0] or "[" in line.split("${")[0]):
        return "between { } or [ ], ${...} cannot stand: write one key per line"
    if "mapping values are not allowed" in problem:
        return "a text with ': ' in it needs quotes; or the indentation is off"
    if error.context and error.context_mark:
        return f"{error.context} that begins in line {error.context_mark.line + 1}"
    return ""
