"""Stage 8: the import statements of an output, one of each, sorted as isort does."""

from __future__ import annotations

import sys
from collections.abc import Iterable

from .import_statements import Import
from .unit import Unit


def select_imports(unit: Unit) -> None:
    """Write the import block: standard library, third parties, then those that only type checkers run."""
    entries = {entry for imports in unit.imports.values() for entry in imports}
    guards = sorted({entry.guard for entry in entries if entry.guard})
    groups = [_block(e for e in entries if not e.guard and e.block is None)]
    groups += sorted({e.block for e in entries if e.block is not None})
    for guard in guards:
        rows = _block(e for e in entries if e.guard == guard).split("\n")
        groups.append("\n".join([f"if {guard}:", *(f"    {row}" if row else "" for row in rows)]))
    unit.import_block = "\n\n".join(group for group in groups if group)


def _block(entries: Iterable[Import]) -> str:
    standard: set[Import] = set()
    third: set[Import] = set()
    for entry in entries:
        (standard if entry.module.partition(".")[0] in sys.stdlib_module_names else third).add(entry)
    return "\n\n".join("\n".join(_statements(group)) for group in (standard, third) if group)


def _statements(entries: set[Import]) -> list[str]:
    plain = sorted({e.statement for e in entries if e.attribute is None}, key=lambda s: s.split()[1].lower())
    modules: dict[str, set[str]] = {}
    aliased: set[tuple[str, str]] = set()
    for entry in entries:
        if entry.attribute is not None and entry.attribute == entry.name:
            modules.setdefault(entry.module, set()).add(entry.name)
        elif entry.attribute is not None:
            aliased.add((entry.module, entry.statement))
    named = [(m, f"from {m} import {', '.join(sorted(names, key=_member_order))}") for m, names in modules.items()]
    return [
        *plain,
        *(statement for _, statement in sorted([*named, *aliased], key=lambda pair: (pair[0].lower(), pair[1]))),
    ]


def _member_order(name: str) -> tuple[int, str]:
    """Constants, then classes, then the rest, as isort orders them."""
    kind = 0 if name.isupper() and len(name) > 1 else 1 if name[:1].isupper() else 2
    return kind, name
