from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.core.rules.fill import Filled, FillError, fill, has_places, is_secret_name

ENVIRONMENT = {"A": "1", "EMPTY": "", "TRICK": "${A}", "Z_9": "z", "BYTES": "a\udcff"}


@pytest.mark.parametrize(
    ("text", "filled"),
    [
        ("plain", Filled("plain")),
        ("${A}", Filled("1", ("A",), ("A",))),
        ("${A:-2}", Filled("1", ("A",), ("A",))),
        ("${B:-2}", Filled("2", ("B",))),
        ("${EMPTY:-2}", Filled("2", ("EMPTY",))),
        ("${B:-}", Filled("", ("B",))),
        ("x${A}y${Z_9}", Filled("x1yz", ("A", "Z_9"), ("A", "Z_9"))),
        ("$A $ {A} $$", Filled("$A $ {A} $$")),
        ("$${A}", Filled("${A}")),
        ("${B:-a:-b ?!}", Filled("a:-b ?!", ("B",))),
    ],
)
def test_places_are_filled(text: str, filled: Filled) -> None:
    assert fill(text, ENVIRONMENT) == filled


def test_a_value_is_not_filled_again() -> None:
    """What comes from the environment is data: it cannot ask for other variables."""
    assert fill("${TRICK}", ENVIRONMENT).text == "${A}"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${B}", "the environment variable B is not set"),
        ("${EMPTY}", "the environment variable EMPTY is not set"),
        ("x${BYTES:-1}", "the environment variable BYTES holds no UTF-8"),
        ("${", "without a name"),
        ("${}", "without a name"),
        ("${A", "without a name"),
        ("${A-2}", "without a name"),
        ("${1A}", "without a name"),
        ("${Ä}", "without a name"),
        ("${A:-${B}}", "without a name"),
    ],
)
def test_a_place_that_cannot_be_filled_is_told(text: str, message: str) -> None:
    with pytest.raises(FillError, match=message) as caught:
        fill(text, ENVIRONMENT)
    assert caught.value.hint


@given(st.text().filter(lambda text: "${" not in text))
def test_a_text_without_places_stays_as_it_is(text: str) -> None:
    assert not has_places(text)
    assert fill(text, {}) == Filled(text)


def test_a_telling_name_is_a_secrets() -> None:
    assert all(map(is_secret_name, ("MCP_RETELL_AGENT_TOKEN", "RETELL_API_KEY", "CALLSPLIT_SALT")))
    assert not any(map(is_secret_name, ("MCP_ROLLOUT_PERCENTAGE", "MCP_RATE_LIMIT_TOOLS")))
