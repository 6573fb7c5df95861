"""Which parts of the rules about TLS contradict each other?"""

from __future__ import annotations

from collections.abc import Iterator

from proxy.core.rules.finding import Finding, Path
from proxy.core.rules.model import Rules


def of_tls(rules: Rules) -> Iterator[Finding]:
    """A key without its certificate, and files for a leg that is not encrypted."""
    for name, backend in rules.backends.items():
        path: Path = ("backends", name, "tls")
        said, url = backend.tls, backend.url or ""
        written = [key for key, value in said if value is not None]
        if said.key_file is not None and said.cert_file is None:
            hint = "write cert_file beside it"
            yield Finding((*path, "key_file"), "there is no certificate for this key", hint)
        if written and not url.startswith("https:"):
            what = "its url is not https" if url else "it has no url"
            hint = "write https:// in its url, or take tls away"
            yield Finding(path, f"nothing is encrypted here: {what}", hint, at_key=True)
