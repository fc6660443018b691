"""Classes whose code comes with a checkpoint; nothing of it runs unless `trust_remote_code=True`.

The code of one commit, or of one state of a local folder, is a package of its own below `unibody_modules` in the modules' cache
(`HF_MODULES_CACHE`), so that two revisions live side by side and a changed file is another module.
"""

from __future__ import annotations

import ast
import hashlib
import importlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from unibody.core.saving import write_atomically
from unibody.errors import HubError, UnibodyError
from unibody.hub import cached_file, commit_of, download_files, explained, safe_name

PACKAGE = "unibody_modules"
MAPS = ("unibody_auto_map", "auto_map")  # keys of config.json that name classes; the first goes before


class UntrustedCodeError(UnibodyError, ValueError):
    """A checkpoint needs code of its own, and it was not said that this may run."""


def resolve_trust_remote_code(
    trust_remote_code: bool | None,
    model_name: str,
    has_local_code: bool,
    has_remote_code: bool,
    files: str | Callable[[], str] = "",
) -> bool:
    """Whether code that comes with a checkpoint is to run: only if it is trusted. UntrustedCodeError: it must, and is not.

    `files` says what would run, or is called to say it.
    """
    if trust_remote_code and has_remote_code:
        return True
    if has_remote_code and not has_local_code:
        shown = files if isinstance(files, str) else files()
        raise UntrustedCodeError(
            f"{model_name} brings code of its own, which would run on this machine{f': {shown}' if shown else ''}. "
            "Read it, and if you trust it, pass trust_remote_code=True"
        )
    return False


def describe_code(
    reference: str, source: str | os.PathLike[str], code_revision: str | None, hub: dict[str, Any]
) -> str:
    """What a reference would run, for who is to read it: the class, its module, those beside it, the commit; none is fetched."""
    repository, _, named = reference.rpartition("--")
    module, _, name = named.partition(".")
    revision = code_revision or (None if repository else hub.get("revision"))
    folder, files, where = Path(source), list[str](), str(revision or "main")
    if not repository and folder.is_dir():
        files, where = [path.name for path in folder.glob("*.py")], str(folder)
    else:
        from huggingface_hub import HfApi

        with suppress(HubError), explained(repository or str(source), revision):
            info = HfApi(token=hub.get("token")).model_info(repository or str(source), revision=revision)
            where = str(info.sha)
            files = [sibling.rfilename for sibling in info.siblings or () if "/" not in sibling.rfilename]
    others = sorted(file for file in files if file.endswith(".py") and file != f"{module}.py")
    beside = f", beside {', '.join(others[:9])}{' and more' if others[9:] else ''}" if others else ""
    return f"{name} of {f'{repository}, ' if repository else ''}{module}.py{beside}, at {where}"


def find_reference(config: dict[str, Any], auto_class: str) -> str | None:
    """The reference of an auto class in a config.json, such as `modeling_mine.MineModel`. ValueError: it is no such text."""
    for key in MAPS:
        entries = config.get(key) or {}
        found = entries.get(auto_class) if isinstance(entries, dict) else entries
        if found is not None:
            if not isinstance(found, str) or not re.fullmatch(
                r"(\w[\w.-]*/\w[\w.-]*--)?[A-Za-z_]\w*\.[A-Za-z_]\w*", found
            ):
                raise ValueError(
                    f"{key} says {found!r} for {auto_class}: expected module.Class, such as 'modeling_mine.MineModel'"
                )
            return found
    return None


def get_class_from_dynamic_module(
    class_reference: str,
    pretrained_model_name_or_path: str | os.PathLike[str],
    *,
    revision: str | None = None,
    code_revision: str | None = None,
    **hub: Any,
) -> type:
    """The class `module.Class`, or `owner/name--module.Class`, of a folder or repository; its module is imported, so it runs.

    Whether that may be is asked before, by resolve_trust_remote_code. AttributeError: the module has no such class.
    """
    source: str | os.PathLike[str] = pretrained_model_name_or_path
    repository, _, reference = class_reference.rpartition("--")
    module, _, name = reference.partition(".")
    if repository:
        source = repository
        file = cache_repository_module(repository, f"{module}.py", code_revision, hub)
    else:
        file = get_cached_module_file(source, f"{module}.py", revision=code_revision or revision, **hub)
    found = getattr(import_file(Path(file)), name, None)
    if not isinstance(found, type):
        raise AttributeError(f"{source}: {module}.py has no class {name}")
    return found


def get_cached_module_file(
    pretrained_model_name_or_path: str | os.PathLike[str], module_file: str, *, revision: str | None = None, **hub: Any
) -> str:
    """The path of a module in the cache, copied there with all modules that it imports relatively; nothing is run."""
    folder = Path(pretrained_model_name_or_path)
    if not folder.is_dir():
        return cache_repository_module(str(pretrained_model_name_or_path), module_file, revision, hub)

    def fetch(name: str) -> Path:
        path = (folder / safe_name(name)).resolve()
        if not path.is_relative_to(folder.resolve()):
            raise ValueError(f"{folder / name} is a link to {path}, out of its folder: refused")
        return Path(cached_file(folder, name))

    files = list(needed_files(module_file, fetch))
    texts = {path.name: path.read_bytes() for path in files}
    state = hashlib.sha256(repr(sorted(texts.items())).encode()).hexdigest()[:40]
    return cache_modules(files, texts, f"{folder.resolve().name}/{state}", module_file)


def cache_repository_module(repository: str, module_file: str, revision: str | None, hub: dict[str, Any]) -> str:
    """The same of a repository, from one commit; a folder of its name is not looked at."""
    commit = revision

    def fetch(name: str) -> Path:
        nonlocal commit
        (path,) = download_files(repository, [name], revision=commit, **hub)
        commit = commit_of(path) or commit
        return Path(path)

    files = list(needed_files(module_file, fetch))
    return cache_modules(
        files, {path.name: path.read_bytes() for path in files}, f"{repository}/{commit}", module_file
    )


def cache_modules(files: list[Path], texts: dict[str, bytes], package: str, module_file: str) -> str:
    """Writes the texts of modules into a package in the cache, if what they need is installed; the path of one of them."""
    place = create_dynamic_module(package)
    for file in files:
        check_imports(file)
    for name, text in sorted(texts.items()):
        if not (place / name).exists():
            write_atomically(place / name, partial(Path.write_bytes, data=text))
    return str(place / module_file)


def needed_files(module_file: str, fetch: Callable[[str], Path]) -> Iterator[Path]:
    """A module and all that it imports relatively, and those import."""
    waiting, seen = [module_file], set[str]()
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            path = fetch(name)
            yield path
            waiting += [f"{module}.py" for module in get_relative_imports(path)]


def get_relative_imports(module_file: str | os.PathLike[str]) -> list[str]:
    """The modules beside it that a module imports. ValueError: it imports from further above, or from below."""
    found = []
    for node in ast.walk(parse(Path(module_file))):
        if isinstance(node, ast.ImportFrom) and node.level:
            names = [node.module] if node.module else [alias.name for alias in node.names]
            if node.level > 1 or any("." in str(name) for name in names):
                raise ValueError(f"{module_file}, line {node.lineno}: only modules of the same folder can be imported")
            found += names
    return sorted(set(map(str, found)))


def check_imports(filename: str | os.PathLike[str]) -> list[str]:
    """The modules that a module imports relatively. ImportError: another that it needs is not installed.

    What is imported under `try` or `if` may be missing.
    """
    guarded: set[ast.AST] = set()
    tree = parse(Path(filename))
    for node in ast.walk(tree):
        if isinstance(node, (ast.Try, ast.If)):
            guarded |= set(ast.walk(node))
    missing = set()
    for node in ast.walk(tree):
        if node in guarded:
            continue
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
        missing |= {name.partition(".")[0] for name in names if find_spec(name.partition(".")[0]) is None}
    if missing:
        shown = " ".join(sorted(missing))
        raise ImportError(f"{filename} imports {shown}, which is not installed: pip install {shown}")
    return get_relative_imports(filename)


def parse(file: Path) -> ast.Module:
    try:
        return ast.parse(file.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"{file} is not Python that can be read: {error}") from error


def create_dynamic_module(name: str | os.PathLike[str]) -> Path:
    """The folder of a package in the modules' cache, made with those above it."""
    place = modules_cache() / PACKAGE
    parts = [identifier(part) for part in Path(name).parts if part not in ("/", ".", "..")]
    for part in ("", *parts):
        place = place / part if part else place
        if not (place / "__init__.py").exists():
            write_atomically(place / "__init__.py", lambda temporary: temporary.write_text("", encoding="utf-8"))
    importlib.invalidate_caches()
    return place


def identifier(part: str) -> str:
    """A part of a repository's name as a name in Python; different parts stay different."""
    found = re.sub(r"\W", lambda match: f"_{ord(match[0]):x}_", part)
    return found if found.isidentifier() else f"_{found}"


def modules_cache() -> Path:
    """Where copied modules lie; Python imports from there."""
    from huggingface_hub import constants

    place = Path(os.environ.get("HF_MODULES_CACHE") or Path(constants.HF_HOME, "modules")).resolve()
    if str(place) not in sys.path:
        sys.path.append(str(place))
    return place


def import_file(file: Path) -> Any:
    """The module of a file in the cache."""
    importlib.invalidate_caches()
    return importlib.import_module(".".join(file.relative_to(modules_cache()).with_suffix("").parts))


def custom_object_save(obj: Any, folder: str | os.PathLike[str], config: Any = None) -> list[str]:
    """Copies the code of an object's class into a folder, and names its classes in a configuration; the names of the files.

    Of a generated file, that one; of a user's own class, its module and those that it imports from beside it. TypeError: the
    class is neither of a generated file nor registered.
    """
    from unibody.model_types import generated_family, own_classes

    if own := own_classes(obj):
        entries = {auto: f"{ship_module(found, folder)}.{found.__name__}" for auto, found in own.items()}
        files = sorted({f"{reference.partition('.')[0]}.py" for reference in entries.values()})
    else:
        found = generated_family(obj)
        if found is None:
            raise TypeError(
                f"{type(obj).__name__} is not a class of a generated file, whose code could be shipped: register your own "
                "class first, with register_for_auto_class"
            )
        file, classes = found
        text = file.read_bytes()
        write_atomically(Path(folder, file.name), lambda temporary: temporary.write_bytes(text))
        entries, files = {auto: f"{file.stem}.{name}" for auto, name in classes.items()}, [file.name]
    if config is not None:
        settle_references(config, folder)
        config.unibody_auto_map = {**getattr(config, MAPS[0], {}), **entries}
    return files


def settle_references(config: Any, folder: str | os.PathLike[str], source: str = "") -> None:
    """Lets a configuration name no code that is not there: a module that its folder lacks is that of `source`, if a repository's."""
    for key in MAPS:
        entries = getattr(config, key, None)
        if isinstance(entries, dict):
            away = {
                auto: reference
                for auto, reference in entries.items()
                if isinstance(reference, str)
                and "--" not in reference
                and not Path(folder, f"{reference.partition('.')[0]}.py").is_file()
            }
            named = {}
            if re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", source) and not Path(source).is_dir():
                named = {auto: f"{source}--{reference}" for auto, reference in away.items()}
            kept = {auto: reference for auto, reference in entries.items() if auto not in away} | named
            if kept:
                setattr(config, key, kept)
            else:
                delattr(config, key)


def ship_module(cls: type, folder: str | os.PathLike[str]) -> str:
    """Copies the module of a user's own class into a folder, with those that it imports from beside it; the module's name.

    TypeError: it has no file, such as one that was typed into an interpreter.
    """
    file = getattr(sys.modules.get(cls.__module__), "__file__", None)
    if file is None:
        raise TypeError(
            f"{cls.__name__} is of {cls.__module__}, which is no file that could go with it: put it into a module"
        )
    place = Path(file)
    for path in needed_files(place.name, lambda name: place.with_name(safe_name(name))):
        write_atomically(Path(folder, path.name), partial(Path.write_bytes, data=path.read_bytes()))
    return place.stem
