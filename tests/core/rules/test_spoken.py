from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter

from proxy.core.rules.spoken import Sentence, Spoken, parse_spoken


def test_a_plain_sentence_serves_every_language() -> None:
    spoken = parse_spoken("Sorry.")

    assert {spoken.in_language(tag) for tag in (None, "", "de", "en-US")} == {"Sorry."}


@pytest.mark.parametrize(
    ("tag", "sentence"),
    [("de", "Nein."), ("de-AT", "Nein."), ("DE", "Nein."), ("pt-BR", "Não."), ("pt", "No."),
     ("fr", "No."), (None, "No.")],
)  # fmt: skip
def test_a_language_is_served_by_its_tag_then_by_its_first_part(
    tag: str | None, sentence: str
) -> None:
    spoken = parse_spoken({"en": "No.", "de": "Nein.", "pt-BR": "Não."})

    assert spoken.in_language(tag) == sentence


@pytest.mark.parametrize("value", [None, 5, "", "  ", {}, {"de": ""}, {"de": 5}, ["No."], True])
def test_what_nobody_could_speak_is_refused(value: Any) -> None:
    with pytest.raises(ValueError):
        parse_spoken(value)


@pytest.mark.parametrize("written", ["No.", {"en": "No.", "de": "Nein."}])
def test_a_sentence_is_shown_as_it_was_written(written: Any) -> None:
    adapter: TypeAdapter[Spoken] = TypeAdapter(Sentence)
    spoken = adapter.validate_python(written)

    assert adapter.dump_python(spoken, mode="json") == written
    assert adapter.validate_python(spoken) is spoken
