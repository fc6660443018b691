"""Stage 1: the definitions of a project, found by path."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .diagnostics import CompileError, Diagnostic
from .project import Project

PREFIX = "modular_"


@dataclass(frozen=True)
class Source:
    """One definition file: `modular/models/modular_llama.py` is `models/llama` and makes `generated/models/modeling_llama.py`."""

    key: str
    file: Path
    path: str  # relative to the project
    output: str  # relative to the project

    @property
    def name(self) -> str:
        return self.key.rpartition("/")[2]


def discover(project: Project) -> dict[str, Source]:
    """All definitions of the project by key, in order of their paths."""
    found: dict[str, Source] = {}
    outputs: dict[str, Source] = {}
    problems = []
    for folder in project.sources:
        base = project.root / folder
        if not base.is_dir():
            message, remedy = (
                f"the source folder `{folder}` does not exist",
                "create it or mend `sources` in [tool.unibody]",
            )
            problems.append(Diagnostic("UB020", message, remedy, "pyproject.toml"))
        for file in sorted(base.rglob(f"{PREFIX}*.py")):
            source = source_of(project, base, file)
            other = outputs.setdefault(source.output, source)
            if other is not source:
                message = f"`{source.path}` and `{other.path}` both make `{source.output}`"
                problems.append(Diagnostic("UB008", message, "rename one of them", source.path))
            found[source.key] = source
    if problems:
        raise CompileError(*problems)
    return found


def select(sources: dict[str, Source], names: list[str]) -> list[str]:
    """The keys that the user's words mean: a name (`llama`), a key (`models/llama`), or the path of a definition or output."""
    keys: list[str] = []
    problems = []
    for word in names:
        path = word.removeprefix("./")
        hits = [k for k, s in sources.items() if path in (s.name, k, s.path, s.output)]
        if not hits:
            known = ", ".join(sources) or "none"
            problems.append(
                Diagnostic("UB023", f"no definition is called `{word}`", f"the definitions are {known}", word)
            )
        keys += [key for key in hits if key not in keys]
    if problems:
        raise CompileError(*problems)
    return keys


def source_of(project: Project, base: Path, file: Path) -> Source:
    """What a definition's path, below the source folder `base`, says of it; the file need not exist."""
    folder = file.parent.relative_to(base).as_posix()
    name = file.stem.removeprefix(PREFIX)
    key = name if folder == "." else f"{folder}/{name}"
    pattern = project.layout.get(folder.partition("/")[0], "modeling_{name}.py")
    output = pattern.format(name=name)
    parts = [project.output, output] if folder == "." else [project.output, folder, output]
    return Source(key, file, project.display(file), "/".join(parts))
