"""Sentences that an agent speaks to a caller, perhaps in several languages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import PlainSerializer, PlainValidator, WithJsonSchema

from proxy.core.rules.parse import describe
from proxy.core.rules.values import Word


@dataclass(frozen=True, slots=True)
class Spoken:
    """A sentence that an agent can speak, perhaps in several languages."""

    plain: str
    languages: Mapping[str, str]

    def in_language(self, language: str | None) -> str:
        """The sentence for a tag such as `de` or `de-AT`; the plain one for any other."""
        if not language or not self.languages:
            return self.plain
        tag = language.lower()
        return self.languages.get(tag) or self.languages.get(tag.split("-")[0]) or self.plain


def parse_spoken(value: Any) -> Spoken:
    """A text, or `{language: text}` whose first entry also serves other languages."""
    if isinstance(value, Spoken):
        return value
    texts = value if isinstance(value, dict) else {"": value}
    if not texts:
        raise ValueError("at least one language is needed")
    for text in texts.values():
        if not isinstance(text, str) or not text.strip():
            raise ValueError(f"expected a sentence, got {describe(text)}")
    plain = next(iter(texts.values()))
    return Spoken(plain, {tag.lower(): text for tag, text in texts.items() if tag})


def _say_spoken(value: Spoken) -> Any:
    return dict(value.languages) or value.plain


Sentence = Annotated[
    Spoken,
    Word("text, or mapping of language to text"),
    PlainValidator(parse_spoken),
    PlainSerializer(_say_spoken),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {
                    "type": "object",
                    "additionalProperties": {"type": "string"},
                    "minProperties": 1,
                },
            ]
        }
    ),
]
