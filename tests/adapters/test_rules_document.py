from __future__ import annotations

from proxy.adapters.rules_document import RulesDocument
from proxy.adapters.rules_yaml import Place, read_yaml
from proxy.core.rules.finding import Finding

ENVIRONMENT = {"SHARE": "12", "WORD": "many", "API_TOKEN": "hunter2", "SHAPE": "[1, {a: b}]"}


def document(text: str) -> RulesDocument:
    root = read_yaml(text)
    assert root is not None
    return RulesDocument(root, ENVIRONMENT, file="rules.yaml", text=text)


def test_places_are_filled_before_scalars_get_their_type() -> None:
    found = document("a: ${SHARE}\nb: ${SHARE}.5\nc: '${SHARE}'\nd: ${NONE:-true}\ne: ${SHARE}s")

    assert found.data == {"a": 12, "b": 12.5, "c": "12", "d": True, "e": "12s"}
    assert found.names == {"SHARE", "NONE"}


def test_what_the_environment_gives_cannot_become_structure() -> None:
    assert document("a: ${SHAPE}\nb: x ${SHAPE} y").data == {
        "a": "[1, {a: b}]",
        "b": "x [1, {a: b}] y",
    }


def test_a_variable_that_is_not_set_is_a_fault_and_throws_no_shadow() -> None:
    found = document("a:\n  b: ${NOPE}\n")
    (fault,) = found.faults

    assert (fault.line, fault.column, fault.path) == (2, 6, "a.b")
    assert "NOPE" in fault.message
    assert found.fault(Finding(("a", "b"), "expected text")) is None


def test_a_finding_gets_its_place_and_its_line() -> None:
    found = document("a:\n  b: [x, y]\n")
    fault = found.fault(Finding(("a", "b", 1), "wrong", "do this"))

    assert fault is not None
    assert (fault.file, fault.line, fault.column) == ("rules.yaml", 2, 10)
    assert (fault.source, fault.hint, fault.path) == ("  b: [x, y]", "do this", "a.b.1")


def test_a_finding_about_a_key_points_at_the_key() -> None:
    found = document("a:\n  b: 1\n")

    fault = found.fault(Finding(("a", "b"), "unknown", at_key=True))
    assert fault is not None
    assert (fault.line, fault.column) == (2, 3)


def test_what_is_missing_is_told_where_it_should_stand() -> None:
    found = document("x: 1\na:\n  b: 1\n")

    for path, place in ((("a", "c"), (2, 1)), (("nothing",), (1, 1)), (("a", "b", 5), (3, 3))):
        fault = found.fault(Finding(path, "missing"))
        assert fault is not None
        assert (fault.line, fault.column) == place


def test_a_dotted_path_below_a_when_is_taken_apart_at_the_keys_that_exist() -> None:
    found = document("when:\n  metadata.tier:\n    in: [a, [b]]\n")

    fault = found.fault(Finding(("when", "metadata.tier.in.1"), "wrong"))
    assert fault is not None
    assert (fault.line, fault.column) == (3, 13)

    fault = found.fault(Finding(("when", "metadata.nothing.in"), "wrong"))
    assert fault is not None
    assert (fault.line, fault.column) == (1, 1)

    fault = found.fault(Finding(("nowhere", "a.b"), "wrong"))
    assert fault is not None
    assert (fault.line, fault.column) == (1, 1)


def test_a_secret_in_the_wrong_place_is_not_shown() -> None:
    found = document("tokens: [hunter2, env:A]\nlong: |\n  hunter2\n  hunter2\n")

    fault = found.fault(Finding(("tokens", 0), "a secret", secret=True))
    assert fault is not None
    assert fault.source == "tokens: [****, env:A]"

    fault = found.fault(Finding(("long",), "a secret", secret=True))
    assert fault is not None
    assert "hunter2" not in fault.source


def test_a_value_from_the_environment_is_told_to_be_one() -> None:
    found = document("a: ${WORD}\nb: ${API_TOKEN}\nc: ${NONE:-x}\n")

    fault = found.fault(Finding(("a",), "expected a number, got the text 'many'"))
    assert fault is not None
    assert fault.hint == "the value comes from WORD"

    fault = found.fault(Finding(("b",), "expected a number, got the text 'hunter2'"))
    assert fault is not None
    assert "hunter2" not in fault.message

    fault = found.fault(Finding(("c",), "expected a number, got the text 'x'"))
    assert fault is not None
    assert fault.hint == ""


def test_a_place_past_the_text_has_no_line_to_show() -> None:
    fault = document("a: 1").at("ends too early", Place(9, 1))

    assert (fault.line, fault.source) == (9, "")
