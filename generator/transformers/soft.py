"""Outputs that must load without torch: its imports go into blocks that ask whether it is there."""

from __future__ import annotations

from .imports import Candidate
from .source import Alias, Import

SOFT_TYPES = ("image_processing_pil", "feature_extraction")
LIBRARIES = ("torch", "torchvision")


def soften(kept: list[Candidate]) -> list[Candidate]:
    """The kept imports with those of torch and torchvision gathered in one guarded block each, behind all others."""
    groups: dict[str, list[Import]] = {library: [] for library in LIBRARIES}
    others: list[Candidate] = []
    for candidate in kept:
        library = _library(candidate)
        if library is None:
            others.append(candidate)
        else:
            groups[library] += candidate.imports
    missing = []
    for library, imports in groups.items():
        if imports:
            test = f"is_{library}_available"
            missing.append(test)
            others.append(Candidate("", [_bare(entry) for entry in imports], f"{test}()"))
    return _with_tests(others, missing) if missing else kept


def _library(candidate: Candidate) -> str | None:
    if candidate.test is not None:
        found = next((lib for lib in LIBRARIES if candidate.test.strip() == f"is_{lib}_available()"), None)
        return found if not candidate.rest else None
    entry = candidate.imports[0]
    modules = [alias.name for alias in entry.aliases] if entry.module is None else [entry.module]
    if entry.level:
        return None
    top = modules[0].partition(".")[0]
    return top if top in LIBRARIES else None


def _bare(entry: Import) -> Import:
    return Import("", entry.level, entry.module, entry.aliases, entry.trail, entry.origin)


def _with_tests(kept: list[Candidate], tests: list[str]) -> list[Candidate]:
    """The imports with the functions that the blocks ask added to the first import from `utils` without them, or to a new one."""
    for candidate in kept:
        entry = candidate.imports[0]
        if candidate.test is None and entry.level and entry.module and entry.module.rpartition(".")[2] == "utils":
            present = {alias.local for alias in entry.aliases}
            new = [Alias(test, None) for test in tests if test not in present]
            if new:
                entry = Import(
                    entry.lead, entry.level, entry.module, [*entry.aliases, *new], entry.trail, entry.origin
                )
                return [Candidate(candidate.lead, [entry]) if c is candidate else c for c in kept]
    return [Candidate("", [Import("", 3, "utils", [Alias(test, None) for test in tests], "")]), *kept]
