"""Stage 1: the definitions of a project, found by path."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .diagnostics import CompileError, Diagnostic
from .project import Project

PREFIX = "modular_"
FEW = 20  # definitions that a message lists


@dataclass(frozen=True)
class Source:
    """One definition file: `modular/models/modular_llama.py` is `models/llama` and makes `generated/models/modeling_llama.py`."""

    key: str
    file: Path
    path: str  # relative to the project
    output: str  # relative to the project
    others: tuple[str, ...] = ()  # in a dialect with several outputs: what else it may make

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
        hits = [k for k, s in sources.items() if path in (s.name, k, s.path, s.output, *s.others)]
        if not hits and path.endswith(".py"):
            place = Path(word).resolve()
            hits = [k for k, s in sources.items() if s.file.name == place.name and s.file.resolve() == place]
        if not hits:
            problems.append(Diagnostic("UB023", f"no definition is called `{word}`", _near(sources, path), word))
        keys += [key for key in hits if key not in keys]
    if problems:
        raise CompileError(*problems)
    return keys


def _near(sources: dict[str, Source], word: str) -> str:
    if len(sources) <= FEW:
        return f"the definitions are {', '.join(sources) or 'none'}"
    from difflib import get_close_matches

    near = get_close_matches(word, [source.name for source in sources.values()], 3)
    example = f"such as `{next(iter(sources.values())).name}`"
    return f"did you mean {' or '.join(f'`{name}`' for name in near)}?" if near else f"name a definition, {example}"


def source_of(project: Project, base: Path, file: Path) -> Source:
    """What a definition's path, below the source folder `base`, says of it; the file need not exist."""
    folder = file.parent.relative_to(base).as_posix()
    name = file.stem.removeprefix(PREFIX)
    key = name if folder == "." else f"{folder}/{name}"
    pattern = project.layout.get(folder.partition("/")[0], "modeling_{name}.py")
    output = pattern.format(name=name)
    parts = [project.output, output] if folder == "." else [project.output, folder, output]
    return Source(key, file, project.display(file), "/".join(parts))
