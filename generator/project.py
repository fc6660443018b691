"""What a project says about itself in `[tool.unibody]` of its pyproject.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .diagnostics import CompileError, Diagnostic
from .transformers.quirks import Quirks

HERE = Path(__file__).parent  # <site-packages>/unibody/generator, or the checkout's link to it
KEYS = {
    "sources": list,
    "output": str,
    "layout": dict,
    "core": str,
    "core-package": str,
    "formatter": str,
    "line-length": int,
    "license": str,
    "required-version": str,
    "stub": str,
    "stub-bases": dict,
    "dialect": str,
    "quirks": dict,
}
NO_PROJECT = "no pyproject.toml here or above has a [tool.unibody] table"
DIALECTS = ("unibody", "transformers")
TREE_KEYS = ("dialect", "sources", "quirks", "formatter", "line-length", "required-version")  # meant in the second one
KINDS = ("config", "model", "quantization-config", "quantizer")  # of classes in the registry
SOURCES_REMEDY = 'list the folders with definitions, as in ["modular"]'
WIDEST = 320  # columns of a line that ruff allows
BASES_REMEDY = (
    f'the kinds are {", ".join(KINDS)}, and auto classes such as AutoModelForCausalLM; name the bases of each as a list, "*" for the class of the file: '
    '["library.models.Base", "*"]'
)


@dataclass(frozen=True)
class Project:
    """Where definitions are found and where and how their outputs are written; folders are relative to `root`."""

    root: Path
    sources: tuple[str, ...] = ("modular",)
    output: str = "generated"
    layout: dict[str, str] = field(
        default_factory=lambda: {"models": "modeling_{name}.py", "quantizers": "quantizer_{name}.py"}
    )
    core_package: str = "unibody.core"
    core: Path = HERE.parent / "core"
    formatter: str = "ruff==0.14.10"
    line_length: int = 119
    license: str = "Apache-2.0"
    required_version: str = ""  # versions of unibody that may compile the project; any, if empty
    options: str = ""  # with which a command was told of this project
    dialect: str = "unibody"  # or "transformers": then `root` is the folder of the models
    quirks: Quirks = field(default_factory=Quirks)  # of that dialect
    stub: str = ""  # a file in the output folder that lists the registry's classes for type checkers; none, if empty
    stub_bases: dict[str, list[str]] = field(
        default_factory=dict
    )  # of each kind in the stub, "*" for the file's class

    @property
    def packages(self) -> dict[str, Path]:
        """The packages whose modules are read and inlined, by dotted name."""
        return {self.core_package: self.core, "unibody.modular": HERE.parent / "modular"}

    def display(self, file: Path) -> str:
        """The path of a file as messages and headers show it: relative to the project, or to where its package lies."""
        real = file.resolve()
        for base in (self.root.resolve(), HERE.parent.parent.resolve()):
            if real.is_relative_to(base):
                return real.relative_to(base).as_posix()
        return real.name


def find_project(start: Path | Project) -> Project:
    """The project that holds `start`: the nearest folder upwards whose pyproject.toml has a `[tool.unibody]` table.

    A project that was chosen already is returned as it is.
    """
    if isinstance(start, Project):
        return start
    folder = start.resolve()
    for candidate in (folder, *folder.parents):
        file = candidate / "pyproject.toml"
        if file.is_file():
            table = _read(file).get("tool", {}).get("unibody")
            if table is not None and not isinstance(table, dict):
                message, remedy = f"`tool.unibody` is {table!r}", "make it a table: `[tool.unibody]`"
                raise CompileError(Diagnostic("UB020", message, remedy, "pyproject.toml"))
            if table is not None:
                return _project(candidate, table)
    remedy = "add a [tool.unibody] table to your project's pyproject.toml (an empty one will do)"
    raise CompileError(Diagnostic("UB020", NO_PROJECT, remedy, "pyproject.toml"))


def choose_project(folder: Path, dialect: str | None, root: Path | None) -> Path | Project:
    """Where `find_project` is to look, or the project itself where options say enough.

    Raises ValueError where the options do not go together.
    """
    if root is not None:
        if dialect != "transformers":
            raise ValueError("--root goes with --dialect transformers")
        options = f"--dialect transformers --root {root.as_posix()}"
        return Project(root, (".",), ".", options=options, dialect="transformers")
    if dialect is None:
        return folder
    try:
        found = find_project(folder)
    except CompileError as error:
        if dialect == "transformers" and error.diagnostics[0].message == NO_PROJECT:
            raise ValueError("name the folder of the models with --root, or `sources` in [tool.unibody]") from None
        return folder
    if found.dialect != dialect:
        raise ValueError(f"[tool.unibody] says that the dialect is {found.dialect}")
    return found


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise CompileError(Diagnostic("UB020", str(error), "mend the file", "pyproject.toml")) from None


def _project(root: Path, table: dict[str, Any]) -> Project:
    _require_version(table.get("required-version", ""))  # first: another version may know other keys
    problems = []
    for key, value in table.items():
        if key not in KEYS:
            message, remedy = f"unknown key `{key}` in [tool.unibody]", f"the keys are {', '.join(sorted(KEYS))}"
            problems.append(Diagnostic("UB020", message, remedy, "pyproject.toml"))
        elif not isinstance(value, KEYS[key]) or isinstance(value, bool):
            message = f"`{key}` in [tool.unibody] is {value!r}"
            problems.append(Diagnostic("UB020", message, f"write a {KEYS[key].__name__}", "pyproject.toml"))
        elif key == "stub" and not str(value).endswith(".pyi"):
            message = f"`stub` in [tool.unibody] is {value!r}"
            problems.append(Diagnostic("UB020", message, "give it the ending `.pyi`", "pyproject.toml"))
        elif key == "stub-bases":
            problems += [
                Diagnostic("UB020", f"`{kind}` in `stub-bases` is {bases!r}", BASES_REMEDY, "pyproject.toml")
                for kind, bases in table[key].items()
                if not (kind in KINDS or kind.startswith("Auto")) or not _are_bases(bases)
            ]
    problems += [*_check_values(table), *_check_dialect(table)] if not problems else []
    if problems:
        raise CompileError(*problems)
    options = {key.replace("-", "_"): value for key, value in table.items()}
    if "sources" in options:
        options["sources"] = tuple(options["sources"])
    if "core" in options:
        options["core"] = root / options["core"]
    if "quirks" in options:
        options["quirks"] = Quirks.read(options["quirks"])
    if options.get("dialect") == "transformers":
        return Project(root / options.pop("sources", (".",))[0], (".",), ".", **options)
    return Project(root, **options)


def _check_values(table: dict[str, Any]) -> Iterator[Diagnostic]:
    sources = table.get("sources", ["."])
    if not sources or not all(isinstance(folder, str) and folder for folder in sources):
        yield Diagnostic("UB020", f"`sources` in [tool.unibody] is {sources!r}", SOURCES_REMEDY, "pyproject.toml")
    for folder, pattern in table.get("layout", {}).items():
        rest = pattern.replace("{name}", "", 1) if isinstance(pattern, str) else "{}"
        if rest == pattern or set("{}") & set(rest) or not rest.endswith(".py"):
            message = f"`{folder}` in `layout` is {pattern!r}"
            yield Diagnostic("UB020", message, 'write `{name}` once, as in "modeling_{name}.py"', "pyproject.toml")
    length = table.get("line-length", WIDEST)
    if not 1 <= length <= WIDEST:
        message, remedy = f"`line-length` in [tool.unibody] is {length}", f"write a number from 1 to {WIDEST}"
        yield Diagnostic("UB020", message, remedy, "pyproject.toml")


def _check_dialect(table: dict[str, Any]) -> Iterator[Diagnostic]:
    dialect = table.get("dialect", "unibody")
    if dialect not in DIALECTS:
        message = f"`dialect` in [tool.unibody] is {dialect!r}"
        yield Diagnostic("UB020", message, f'write "{DIALECTS[0]}" or "{DIALECTS[1]}"', "pyproject.toml")
    if dialect == "transformers":
        for key in table.keys() - {*TREE_KEYS}:
            message = f"`{key}` in [tool.unibody] has no meaning in the transformers dialect"
            yield Diagnostic("UB020", message, f"the keys are {', '.join(TREE_KEYS)}", "pyproject.toml")
        if len(table.get("sources", ["."])) != 1:
            message = "`sources` in [tool.unibody] must be one folder in the transformers dialect"
            yield Diagnostic("UB020", message, "name the folder that all models lie in", "pyproject.toml")
        try:
            Quirks.read(table.get("quirks", {}))
        except ValueError as error:
            remedy = f"the keys are {', '.join(Quirks.names())}, each true or false"
            yield Diagnostic("UB020", f"{error} in [tool.unibody.quirks]", remedy, "pyproject.toml")
    elif "quirks" in table:
        message, remedy = "`quirks` in [tool.unibody] are those of another dialect", 'write `dialect = "transformers"`'
        yield Diagnostic("UB020", message, remedy, "pyproject.toml")


def _are_bases(bases: Any) -> bool:
    names = [name for name in bases if name != "*"] if isinstance(bases, list) else [0]
    return len(names) == len(bases) - 1 and all(isinstance(name, str) and "." in name for name in names)


def _require_version(wanted: Any) -> None:
    """Refuse a project that asks for another version of unibody; `wanted` is a specifier as PEP 440 has it."""
    if not wanted or not isinstance(wanted, str):
        return
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        allowed = SpecifierSet(wanted)
    except InvalidSpecifier:
        message, remedy = f"`required-version` is {wanted!r}", 'write versions as pip does, for example ">=0.1,<0.3"'
        raise CompileError(Diagnostic("UB020", message, remedy, "pyproject.toml")) from None
    found = own_version()
    if not allowed.contains(found, prereleases=True):
        message = f"the project needs unibody {wanted}, and this is unibody {found}"
        raise CompileError(Diagnostic("UB025", message, f'run `pip install "unibody{wanted}"`', "pyproject.toml"))


def own_version() -> str:
    """The version of unibody that runs: the installed one, or that of the checkout that it runs from."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("unibody")
    except PackageNotFoundError:
        return str(_read(HERE.parent.parent / "pyproject.toml")["project"]["version"])
