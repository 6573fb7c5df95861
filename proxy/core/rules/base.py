"""What every section of the rules is: frozen, strict, no key that nobody reads."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """A mapping in the rules file.

    Strict: no "10" for 10, no true for 1.  Unknown keys are faults: a mistyped key must
    never be ignored in silence.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        strict=True,
        arbitrary_types_allowed=True,
        validate_default=False,
        allow_inf_nan=False,
    )
