"""`unibody new model`: the start of a definition, and a test that compares its output with transformers."""

from __future__ import annotations

import ast
import keyword
import re
from dataclasses import replace
from pathlib import Path

from .diagnostics import CompileError, Diagnostic
from .discover import PREFIX, Source, discover, select
from .format import format_files
from .pipeline import compile_project
from .project import HERE, Project, find_project
from .registry import Entry, registry_entries
from .rename import derived_name
from .render import render_template
from .report import FINE, UNUSABLE, refuse
from .unit import ENTRY, Unit
from .write import create

NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
CLASS_PREFIX = re.compile(r"[A-Z]\w*")
BARE, FIRST_HEAD = "AutoModel", "AutoModelForCausalLM"
TINY = {  # sizes for the test, of the fields that the parent's configuration has
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}


def new_model(name: str, parent: str, prefix: str, all_heads: bool, project: Path) -> int:
    """Write the definition and its test; 2 when a name is wrong or a file is there, and then nothing is written."""
    try:
        found = find_project(project)
        _check(found, name, prefix)
        owner, source = _find_parent(found, parent)
        result = compile_project(owner, [source.key])
        if result.diagnostics:
            raise CompileError(*result.diagnostics)
        unit = result.units[source.path]
        prefix = prefix or "".join(word[:1].upper() + word[1:] for word in name.split("_"))
        files = _files(found, owner, unit, name, prefix, all_heads)
        create(found, format_files(found, files))
    except CompileError as error:
        return refuse(error.diagnostics, UNUSABLE)
    for path in files:
        print(f"created {path}")
    print(f"next: unibody generate {name}")
    return FINE


def _check(project: Project, name: str, prefix: str) -> None:
    problems = []
    if not NAME.fullmatch(name) or keyword.iskeyword(name):
        remedy = "write lower-case words and digits, joined by underscores, such as `qwen2_moe`"
        problems.append(Diagnostic("UB027", f"`{name}` cannot be a model type", remedy, name))
    if prefix and not CLASS_PREFIX.fullmatch(prefix):
        remedy = "write what class names begin with, such as `GPTNeoX`"
        problems.append(Diagnostic("UB027", f"`{prefix}` cannot begin a class name", remedy, prefix))
    for source in discover(project).values():
        if source.name == name:
            remedy = "choose another name, or change that definition"
            problems.append(Diagnostic("UB027", f"there is a definition `{source.key}`", remedy, source.path))
    if problems:
        raise CompileError(*problems)


def _find_parent(project: Project, parent: str) -> tuple[Project, Source]:
    """The parent and the project that it is part of: this one, or the definitions that come with unibody."""
    library = replace(project, root=HERE.parent, sources=("modular",), stub="")
    problem = None
    for owner in (project, library):
        sources = discover(owner)
        try:
            keys = select(sources, [parent])
        except CompileError as error:
            problem = problem or error
            continue
        return owner, sources[keys[0]]
    assert problem is not None
    raise problem


def _files(
    project: Project, owner: Project, unit: Unit, name: str, prefix: str, all_heads: bool
) -> dict[str, str]:
    entry = next(iter(registry_entries(unit)), None)
    if entry is None:
        remedy = "inherit from a definition whose configuration has a `model_type` and whose classes have an `auto_class`"
        raise CompileError(Diagnostic("UB027", f"`{unit.source.key}` makes no model", remedy, unit.source.path))
    heads = _heads(entry, all_heads)
    kinds = {n: part.definition.kind for n, part in unit.parts.items()}
    chosen = [n for n in unit.family.definitions if n in unit.exports and kinds[n] == "class"]
    chosen = [n for n in chosen if n in heads.values() or n not in dict(entry.classes).values()]
    old, new = (unit.family.prefix, unit.family.model_type), (prefix, name)
    names = {n: derived_name(n, old, new) for n in chosen}
    same = [n for n in chosen if names[n] == n]
    if same:
        message = f"`{', '.join(same)}` would keep its name: it does not begin with `{unit.family.prefix}`"
        raise CompileError(Diagnostic("UB027", message, "write the definition by hand", unit.source.path))
    classes = [
        {"name": names[n], "parent": n, "decorator": "", "body": "pass"} | _configuration(unit, entry, n, name)
        for n in chosen
    ]
    folder = unit.source.key.rpartition("/")[0]
    path = "/".join(part for part in (project.sources[0], folder, f"{PREFIX}{name}.py") if part)
    output = next(s.output for s in [_source(project, folder, name)])
    imports = _imports(owner is project, unit, chosen, [c["decorator"] + c["body"] for c in classes])
    sizes = [(field, TINY[field]) for field in TINY if field in _fields(unit, entry.config)]
    values = {"prefix": prefix, "parent": unit.family.prefix, "output": output, "model_type": name}
    listed = [(auto, names[n]) for auto, n in heads.items()]
    return {
        path: render_template("definition.py.j2", **values, imports=imports, classes=classes),
        f"tests/test_{name}.py": render_template("parity_test.py.j2", **values, sizes=sizes, heads=listed),
    }
