"""The files of a tree of models: found by path, read once, seen under as many names as needed."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path, PurePosixPath

from ..diagnostics import CompileError, Diagnostic
from ..parse import read_source
from .names import Names, read_table
from .quirks import Quirks
from .renaming import Renamer, View
from .settings import style_of
from .source import Source

PACKAGE = "@"  # begins the paths of files in installed packages: @transformers/models/llama/modeling_llama.py


class Library:
    """Finds and keeps sources below a folder; `overlay` holds texts that count instead of the files on disk."""

    def __init__(
        self, root: Path, quirks: Quirks | None = None, style: tuple[str, int] = ("ruff==0.14.10", 119)
    ) -> None:
        self.root = root
        self.style = style_of(*style, self.in_tree)
        self.quirks = quirks or Quirks()
        self.overlay: dict[str, str] = {}
        self._sources: dict[str, Source] = {}
        self._views: dict[tuple[str, str, str, bool], View] = {}

    @cached_property
    def in_tree(self) -> bool:
        """Whether the folder is that of the models of transformers itself."""
        folder = self.root.resolve()
        return folder.name == "models" and folder.parent.name == "transformers"

    @cached_property
    def names(self) -> Names:
        models = self.root if self.in_tree else package_file("transformers/models")
        return Names(read_table(models) if models is not None else {})

    def shown(self, path: str) -> str:
        """The path of a file as messages show it."""
        return path.removeprefix(PACKAGE)

    def inside(self, path: str) -> bool:
        """Whether a file lies below the folder, and not in an installed package."""
        return not path.startswith(PACKAGE)

    def definitions(self) -> list[str]:
        """The paths of all definitions below the folder."""
        found = (file.relative_to(self.root) for file in self.root.rglob("modular_*.py"))
        return sorted(
            path.as_posix()
            for path in found
            if not any(part.startswith(".") or part in ("node_modules", "site-packages") for part in path.parts)
        )

    def file(self, path: str) -> Path | None:
        if path.startswith(PACKAGE):
            return package_file(path.removeprefix(PACKAGE))
        return self.root / path

    def exists(self, path: str) -> bool:
        file = self.file(path)
        return path in self.overlay or (file is not None and file.is_file())

    def resolve(self, path: str, level: int, module: str) -> str | None:
        """The path of the module that a `from` import in the file at `path` names; None where it leaves the folder."""
        pieces = module.split(".")
        if self.in_tree and "transformers.models." in module:  # with dots before it, too
            return "/".join(module.partition("transformers.models.")[2].split(".")) + ".py"
        if level == 0:
            return PACKAGE + "/".join(pieces) + ".py"
        if level == 3 and self.in_tree:
            return "/".join(pieces[1:]) + ".py"
        folders = PurePosixPath(path).parent.parts
        if level - 1 > len(folders):
            return None
        return "/".join([*folders[: len(folders) - level + 1], *pieces]) + ".py"

    def replace(self, texts: Mapping[str, str]) -> None:
        """Let some texts count instead of what is on disk, and forget what was made from the old ones."""
        self.overlay.update(texts)
        for path in texts:
            self._sources.pop(path, None)
        self._views = {key: view for key, view in self._views.items() if key[0] not in texts}

    def restore(self) -> None:
        """Let the files on disk count again."""
        for path in self.overlay:
            self._sources.pop(path, None)
        self._views = {key: view for key, view in self._views.items() if key[0] not in self.overlay}
        self.overlay = {}

    def source(self, path: str) -> Source:
        """The file; refused where it cannot be read."""
        source = self._sources.get(path)
        if source is None:
            text = self.overlay.get(path)
            if text is None:
                file = self.file(path)
                shown = self.shown(path)
                if file is None:
                    raise CompileError(Diagnostic("UB004", "there is no such file", "install its package", shown))
                text = read_source(file, shown)
            source = self._sources[path] = Source(text, self.shown(path))
        return source

    def view(self, path: str, old: str, new: str, name: str) -> View:
        """A parent's file in a new name; where that is an alias of `name`, its imports of siblings stay those of `name`."""
        new = new.replace("-", "_")
        alias = new != name
        key = (path, old, new, alias)
        view = self._views.get(key)
        if view is None:
            repaired = (new, name) if alias else None
            package = path.removeprefix(PACKAGE).split("/")[:-1] if path.startswith(PACKAGE) else None
            renamer = Renamer(self.names, old, new, whole_words=not self.quirks.renames_inside_words)
            view = self._views[key] = View(self.source(path), renamer, repaired, package)
        return view


def package_file(path: str) -> Path | None:
    """A file or folder of an installed package, found on the search path and never by importing."""
    for entry in sys.path:
        candidate = Path(entry or ".", path)
        if candidate.exists():
            return candidate
    return None
