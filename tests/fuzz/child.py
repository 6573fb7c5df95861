"""One target under atheris, in the environment that has it: `child.py TARGET [libFuzzer's words]`.

Only the product is instrumented: what its tests do is no news to the fuzzer.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

# By name, because our own environment does not have it.
atheris: Any = import_module("atheris")


def main() -> None:
    name = sys.argv.pop(1)
    with atheris.instrument_imports(include=["proxy", "backends"], enable_loader_override=False):
        targets = import_module("tests.fuzz.targets")
    target = targets.TARGETS[name]()
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
