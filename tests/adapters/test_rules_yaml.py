from __future__ import annotations

import subprocess
import sys

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from proxy.adapters import rules_yaml
from proxy.adapters.rules_yaml import (
    Entries,
    Flaw,
    Items,
    Node,
    Place,
    Scalar,
    YamlError,
    read_yaml,
)


def plain(node: Node | None) -> object:
    if isinstance(node, Entries):
        return {name: plain(value) for name, (_, value) in node.nodes.items()}
    if isinstance(node, Items):
        return [plain(value) for value in node.nodes]
    return node.text if node else None


def flaws(text: str) -> list[Flaw]:
    with pytest.raises(YamlError) as caught:
        read_yaml(text)
    return caught.value.flaws


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: 1\nb: [x, 'y', \"z\"]", {"a": "1", "b": ["x", "y", "z"]}),
        ("a: {b: {c: d}}", {"a": {"b": {"c": "d"}}}),
        ("a: |\n  two\n  lines\n", {"a": "two\nlines\n"}),
        ("a: &x [1, 2]\nb: *x", {"a": ["1", "2"], "b": ["1", "2"]}),
        ("---\na: 1\n...\n", {"a": "1"}),
        ("", None),
        ("# nothing\n---\n", ""),
        ("a:", {"a": ""}),
        ("{env: env:A?, list: [env:B?, c?d]}", {"env": "env:A?", "list": ["env:B?", "c?d"]}),
        ("{say: Are you there? Yes., b: 1}", {"say": "Are you there? Yes.", "b": "1"}),
        ("on: no", {"on": "no"}),
    ],
)
def test_a_document_is_read(text: str, value: object) -> None:
    assert plain(read_yaml(text)) == value


def test_a_node_knows_its_place_and_whether_it_was_quoted() -> None:
    node = read_yaml("a: 1\nb:\n  - 'x'\n")

    assert isinstance(node, Entries)
    assert node.nodes["a"] == (Place(1, 1), Scalar("1", True, Place(1, 4), Place(1, 5)))
    key, items = node.nodes["b"]
    assert key == Place(2, 1)
    assert isinstance(items, Items)
    assert items.nodes == [Scalar("x", False, Place(3, 5), Place(3, 8))]


@pytest.mark.parametrize(
    ("text", "message", "line", "column"),
    [
        ("a: 1\na: 2", "the key 'a' appears twice", 2, 1),
        (
            "a: !!python/object:os.system x",
            "the tag !!python/object:os.system is not allowed",
            1,
            4,
        ),
        ("!x a: 1", "the tag !x is not allowed", 1, 1),
        ("a: !!str 1", "the tag !!str is not allowed", 1, 4),
        ("<<: {a: 1}", "merge keys (<<) are not allowed", 1, 1),
        ("[1]: 2", "a key must be plain text", 1, 1),
        ("${A}: 2", "a key cannot come from the environment", 1, 1),
        ("a: *b", "the alias *b is not defined above", 1, 4),
        ("a: &b [*b]", "the alias *b holds itself", 1, 8),
        ("a: 1\n---\nb: 2", "a second document begins here", 2, 1),
        ("a: b: c", "mapping values are not allowed here", 1, 5),
        ("a: [1, 2", "expected ',' or ']', but got '<stream end>'", 1, 9),
        ("a: 'b", "found unexpected end of stream", 1, 6),
        ("%YAML 2.0\n---\na: 1", "found incompatible YAML document", 1, 1),
        ("a: \x01", "the character U+0001 is not allowed in YAML", 1, 4),
        ("a: 1\nb: \x00", "the character U+0000 is not allowed in YAML", 2, 4),
        ('a: "\\ud83d"', "half a character is no text", 1, 4),
        ('a: 1\n"x\\udc00": 2', "half a character is no text", 2, 1),
    ],
)
def test_what_is_not_taken_is_told_with_its_place(
    text: str, message: str, line: int, column: int
) -> None:
    (flaw,) = flaws(text)

    assert flaw.message.startswith(message)
    assert flaw.place == Place(line, column)


def test_every_flaw_is_told_at_once() -> None:
    assert [flaw.place.line for flaw in flaws("a: 1\na: 2\nb: !x 1\n<<: 1\nc: [")] == [2, 3, 4, 5]


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("a:\n\tb: 1", "indent with spaces"),
        ("a: {b: ${X:-1}}", "write one key per line"),
        ("a: b: c", "needs quotes"),
        ("a: [1, 2", "a flow sequence that begins in line 1"),
        ("a: 1\na: 2", "it stands in line 1 already"),
        ("@a: 1", ""),
    ],
)
def test_a_common_slip_has_a_way_out(text: str, hint: str) -> None:
    assert hint in flaws(text)[0].hint


BOMBS = {
    "deep brackets": "[" * 200_000,
    "deep braces": "{a: " * 200_000,
    "deep dashes": "- " * 200_000,
    "deep question marks": "? " * 200_000,
    "deep indentation": "\n".join(" " * depth + "a:" for depth in range(1000)),
    "aliases of aliases": "a: &a [x,x,x,x,x,x,x,x,x]\n"
    + "".join(
        f"{name}: &{name} [{','.join(['*' + before] * 9)}]\n"
        for before, name in zip("abcdefgh", "bcdefghi", strict=True)
    ),
    "aliases in a row": "a: &a x\nb: [" + ",".join(["*a"] * 1000) + "]",
    "many values": "- a\n" * 25_000,
    "many keys": "".join(f"{number}: a\n" for number in range(25_000)),
    "many equal keys": "a: 1\n" * 25_000,
    "many tags": "- !x a\n" * 25_000,
    "many anchors": "&a " * 25_000,
}


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS.keys())
def test_a_bomb_is_a_flaw(text: str) -> None:
    assert 1 <= len(flaws(text)) <= rules_yaml.MAX_FAULTS + 1


def test_bombs_do_not_end_the_process() -> None:
    """PyYAML's C loader dies of a signal on the first of them: so a process of its own looks."""
    script = (
        "import sys\n"
        "from proxy.adapters.rules_yaml import YamlError, read_yaml\n"
        "steps = '\\n'.join(' ' * depth + 'a:' for depth in range(900))\n"
        "bombs = [part * 200_000 for part in ('[', '{', '{a: ', '- ', '? ', 'a: ')]\n"
        "for text in [*bombs, steps]:\n"
        "    try:\n"
        "        read_yaml(text)\n"
        "        sys.exit(3)\n"
        "    except YamlError:\n"
        "        pass\n"
        "print('alive')\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )

    assert (ended.returncode, ended.stdout) == (0, "alive\n"), ended.stderr


def test_within_the_bounds_a_document_is_taken() -> None:
    depth = "[" * 31 + "x" + "]" * 31

    assert read_yaml(depth) is not None
    assert read_yaml("- a\n" * 15_000) is not None
    assert read_yaml("a: &a x\nb: [" + ",".join(["*a"] * 64) + "]") is not None


@given(st.text(max_size=80))
def test_any_text_is_a_document_or_a_flaw(text: str) -> None:
    found: list[Flaw] = []
    try:
        read_yaml(text)
    except YamlError as error:
        found = error.flaws
    assert all(flaw.place.line >= 1 and flaw.place.column >= 1 for flaw in found)


WORDS = st.text("abcxyz01?:_- ", min_size=1, max_size=10)
DOCUMENTS = st.recursive(
    WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=20,
)


@given(DOCUMENTS, st.booleans())
def test_what_another_writer_writes_is_read_back(value: object, flow: bool) -> None:
    text = yaml.safe_dump(value, default_flow_style=flow, default_style='"')

    assert plain(read_yaml(text.replace('!!null "null"', '""'))) == value
