"""What the last runs found, so that a definition of which nothing changed is not converted again."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from ..format import Style
from .quirks import Quirks

HERE = Path(__file__).parent


class Record:
    """Digests of definitions, their parents and their outputs, in one file that can be deleted at any time."""

    def __init__(self, root: Path, file: Path | None, style: Style, quirks: Quirks) -> None:
        self.root = root
        self.file = file
        self.style = style
        self.quirks = quirks
        self._digests: dict[str, str | None] = {}
        self._entries: dict[str, dict[str, dict[str, str]]] = self._read()

    @classmethod
    def of(cls, root: Path, style: Style, quirks: Quirks) -> Record:
        """The record for a folder of models, in the user's folder for caches."""
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        name = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]
        return cls(root, base / "unibody" / f"transformers-{name}.json", style, quirks)

    def digest(self, path: str) -> str | None:
        """The digest of a file below the root; None where there is none."""
        if path not in self._digests:
            try:
                self._digests[path] = hashlib.sha256((self.root / path).read_bytes()).hexdigest()
            except OSError:
                self._digests[path] = None
        return self._digests[path]

    def outputs(self, definition: str) -> list[str] | None:
        """The outputs of a definition, if it, its parents and they are what they were when all of them fitted."""
        entry = self._entries.get(definition)
        if entry is None:
            return None
        files = {**entry["inputs"], **entry["outputs"]}
        fresh = all(self.digest(path) == digest for path, digest in files.items())
        return list(entry["outputs"]) if fresh else None

    def inputs(self, definition: str) -> list[str]:
        """The definition and its parents, as they were when its outputs last fitted."""
        return list(self._entries.get(definition, {"inputs": {}})["inputs"])

    def changed(self, definition: str) -> list[str]:
        """The inputs of a definition that are not what they were when its outputs last fitted."""
        entry = self._entries.get(definition, {"inputs": {}})
        return [path for path, digest in entry["inputs"].items() if self.digest(path) != digest]

    def note(self, paths: Iterable[str]) -> None:
        """Take the digests of files before they are read: one that changes meanwhile will not pass for what was read."""
        for path in paths:
            self.digest(path)

    def remember(self, definition: str, inputs: Iterable[str], outputs: Mapping[str, str]) -> None:
        """Note that these outputs, which lie on disk, fit what the definition and its parents said when they were noted."""
        found = {path: self.digest(path) for path in inputs}
        if all(digest is not None for digest in found.values()):
            made = {path: hashlib.sha256(text.encode()).hexdigest() for path, text in outputs.items()}
            self._entries[definition] = {"inputs": found, "outputs": made}  # type: ignore[dict-item]

    def save(self) -> None:
        """Write the file whole or not at all; a folder that cannot be written is no error."""
        if self.file is None:
            return
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self.file.parent, prefix=".unibody-tmp-")
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                json.dump({"key": self._key(), "definitions": self._entries}, stream)
            os.replace(name, self.file)
        except OSError:
            return

    def _read(self) -> dict[str, dict[str, dict[str, str]]]:
        if self.file is None:
            return {}
        try:
            found: dict[str, Any] = json.loads(self.file.read_text(encoding="utf-8"))
            return dict(found["definitions"]) if found["key"] == self._key() else {}
        except (OSError, ValueError, KeyError, TypeError):
            return {}

    def _key(self) -> str:
        return _digest(self.root, f"{self.style} {self.quirks}")


@cache
def _digest(root: Path, settings: str) -> str:
    """A digest of everything but the files themselves that decides about the outputs: compiler, settings, case table."""
    digest = hashlib.sha256(f"{settings} {sys.version_info[:2]}".encode())
    files = [*sorted(HERE.glob("*.py")), *sorted(HERE.parent.glob("*.py"))]
    files += [root / "auto" / name for name in ("auto_mappings.py", "configuration_auto.py")]
    for file in files:
        digest.update(file.name.encode())
        digest.update(file.read_bytes() if file.is_file() else b"")
    return digest.hexdigest()
