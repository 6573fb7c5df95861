"""Is this regular expression fit to run on the path of a live call?

Python's `re` backtracks: one unlucky pattern on one unlucky text holds every call of the
process.  So patterns are short, texts are short, and a repeat inside a repeat is refused.
"""

from __future__ import annotations

import re

MAX_PATTERN = 256
"""Characters of a pattern."""

MAX_SUBJECT = 256
"""Characters of a text that a pattern is tried on; longer texts do not match."""

_TOKEN = re.compile(
    r"""(?P<skip>\\.|\(\?\#[^)]*\))                # an escape, a comment
      | (?P<set>\[\^?\]?(?:\\.|[^\]\\])*\])
      | (?P<verbose>\(\?[aiLmsu]*x)              # blanks and comments would hide a repeat
      | (?P<atomic>\(\?>)
      | (?P<open>\()
      | (?P<close>\))
      | (?P<possessive>(?:[*+?]|\{\d*,?\d*\})\+)   # gives nothing back: cannot run away
      | (?P<repeat>[*+]|\{\d*,?\d*\})
    """,
    re.VERBOSE | re.DOTALL,
)
_ONCE = frozenset({"{0}", "{1}", "{0,1}", "{,1}", "{0,0}", "{1,1}", "{}"})
_NESTED = (
    "repeats a group that repeats itself, which can take for ever on one text;"
    " make the inner repeat possessive (`++`, `*+`) or flatten it"
)


def compile_pattern(text: str) -> re.Pattern[str]:
    """Compile `text`; raises ValueError with a message for the person who wrote it."""
    if len(text) > MAX_PATTERN:
        raise ValueError(f"is longer than {MAX_PATTERN} characters")
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise ValueError(f"is no regular expression: {error.msg}") from error
    except (OverflowError, RecursionError) as error:
        raise ValueError("is no regular expression that can be compiled") from error
    if danger := _danger(text):
        raise ValueError(danger)
    return pattern


def _danger(text: str) -> str:
    """What is wrong with shapes such as `(a+)+`, or ""; the text is known to compile."""
    repeats = [False]  # per open group: does anything in it repeat?
    atomic: list[bool] = []
    closed, end = False, -1  # the group that ended last: did it repeat, and where did it end
    for token in _TOKEN.finditer(text):
        match token.lastgroup:
            case "open" | "atomic":
                repeats.append(False)
                atomic.append(token.lastgroup == "atomic")
            case "close" if atomic:
                closed, end = repeats.pop() and not atomic.pop(), token.end()
                repeats[-1] |= closed
            case "verbose":
                return "uses the x flag, which patterns of one line have no use for"
            case "repeat" if token.group() not in _ONCE:
                if closed and token.start() == end:
                    return _NESTED
                repeats[-1] = True
    return ""
