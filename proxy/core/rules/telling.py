"""Which names and which texts tell that a secret is meant?

Stricter than what masks values (`fill.is_secret_name`): what this says yes to is refused.
"""

from __future__ import annotations

import re

_WORDS = re.compile(
    r"(.*[_.-])?(tokens?|secrets?|password|passwd|passphrase|pwd|credentials?|bearer|authorization"
    r"|api[_-]?keys?|(access|auth|client|encryption|private|retell|secret|signing)[_-]keys?)"
).fullmatch
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_FORMS = re.compile(
    r"(Bearer|Basic) [A-Za-z0-9._~+/=-]{8,}"
    r"|[a-z][a-z0-9+.-]*://[^/\s@:]*:[^/\s@]+@.*"  # a URL with a password
    r"|(sk|pk|rk|key|ghp|gho|xox[abp])[-_][A-Za-z0-9_-]{16,}"  # as Retell and others make keys
    r"|eyJ[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+"  # RFC 7519
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*",
    re.DOTALL,
).fullmatch


def is_telling(name: str) -> bool:
    """Whether what goes by this name is a secret: `api_key`, `apiKey`, `header.authorization`."""
    return _WORDS(_HUMP.sub("_", name).lower()) is not None


def looks_secret(text: str) -> bool:
    """Whether a text has a form that only secrets have."""
    return _FORMS(text.strip()) is not None
