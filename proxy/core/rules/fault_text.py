"""How a fault reads: where, what, the line, a caret, the way out."""

from __future__ import annotations

from proxy.errors import Fault

_WIDTH = 100  # of a shown source line


def fault_text(fault: Fault) -> str:
    """`file:line:column: message`, then, where known, the source line, a caret and the hint."""
    lines = [f"{headline(fault)}"]
    if fault.source:
        lines += _shown(fault.source, fault.column)
    if fault.hint:
        lines.append(f"    {fault.hint}")
    return "\n".join(lines)


def headline(fault: Fault) -> str:
    """The first line alone: fit for a log, because no source is in it."""
    place = f"{fault.file}:{fault.line}:{fault.column}" if fault.line else fault.file
    what = f"{fault.path}: {fault.message}" if fault.path else fault.message
    return f"{place}: {what}" if place else what


def described(fault: Fault) -> str:
    """One fault on one line; the source line stays away, it may hold a secret."""
    return headline(fault) + (f" ({fault.hint})" if fault.hint else "")


def _shown(source: str, column: int) -> list[str]:
    """The part of the line around the column, and a caret below it."""
    at = min(max(column - 1, 0), len(source))
    start = max(0, at - _WIDTH // 2) if len(source) > _WIDTH else 0
    part = source[start : start + _WIDTH]
    before = "".join("\t" if char == "\t" else " " for char in part[: at - start])
    return [f"    {part}", f"    {before}^"]
