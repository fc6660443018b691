"""The files of a tree of models: read once, and seen under as many names as needed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .names import Names, read_table
from .renaming import Renamer, View
from .source import Source


class Library:
    """Finds and keeps the sources of a folder `models`; `overlay` holds texts that count instead of the files on disk."""

    def __init__(self, models: Path, overlay: Mapping[str, str] | None = None) -> None:
        self.models = models
        self.overlay = dict(overlay or {})
        self.names = Names(read_table(models))
        self._sources: dict[str, Source] = {}
        self._views: dict[tuple[str, str, str, bool], View] = {}

    def text(self, path: str) -> str:
        """The text of a file, by its path below the folder."""
        found = self.overlay.get(path)
        return found if found is not None else (self.models / path).read_text(encoding="utf-8")

    def source(self, path: str) -> Source:
        source = self._sources.get(path)
        if source is None:
            source = self._sources[path] = Source(self.text(path), path)
        return source

    def exists(self, path: str) -> bool:
        return path in self.overlay or (self.models / path).is_file()

    def view(self, path: str, old: str, new: str, name: str) -> View:
        """A parent's file in a new name; where that is an alias of `name`, its imports of siblings stay those of `name`."""
        alias = new.replace("-", "_") != name
        key = (path, old, new, alias)
        view = self._views.get(key)
        if view is None:
            repaired = (new.replace("-", "_"), name) if alias else None
            view = self._views[key] = View(self.source(path), Renamer(self.names, old, new), repaired)
        return view
