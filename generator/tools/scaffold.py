"""`unibody new model`: the start of a definition, and a test that compares its output with transformers."""

from __future__ import annotations

import ast
import keyword
import re
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from ..diagnostics import CompileError, Diagnostic
from ..discover import PREFIX, Source, discover, select, source_of
from ..parse import assigned_names
from ..pipeline import compile_project
from ..project import HERE, Project, find_project
from ..registry import Entry, registry_entries
from ..rename import derived_name
from ..render import render_template
from ..report import FINE, UNUSABLE, refuse
from ..session import Session
from ..unit import ENTRY, Unit
from ..write import create

NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
CLASS_PREFIX = re.compile(r"[A-Z]\w*")
BARE, FIRST_HEAD = "AutoModel", "AutoModelForCausalLM"
TINY = {  # sizes for the test, where the parent's configuration has such a field
    "vocab_size": 128,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
}


class Child(NamedTuple):
    """A class of the new definition."""

    name: str
    parent: str
    decorator: str = ""
    body: str = "pass"


def new_model(name: str, parent: str, prefix: str, all_heads: bool, project: Path) -> int:
    """Write the definition and its test; 2 when a name is wrong or a file is there, and then nothing is written."""
    try:
        found = find_project(project)
        _check(found, name, prefix)
        owner, source = _find_parent(found, parent)
        result = compile_project(owner, [source.key])
        if result.diagnostics:
            raise CompileError(*result.diagnostics)
        prefix = prefix or "".join(word[:1].upper() + word[1:] for word in name.split("_"))
        files = _files(found, owner is found, result.units[source.path], name, prefix, all_heads)
        create(found, Session().format(found, files))
    except CompileError as error:
        return refuse(error.diagnostics, UNUSABLE)
    for path in files:
        print(f"created {path}")
    print(f"next: unibody generate {name}")
    return FINE


def _check(project: Project, name: str, prefix: str) -> None:
    problems = []
    if project.dialect != "unibody":
        message = f"`new model` writes definitions of our own dialect, and this project's is {project.dialect}"
        remedy = "write the file by hand: docs/transformers-dialect.md has an example"
        problems.append(Diagnostic("UB020", message, remedy, "pyproject.toml"))
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
    """The parent and the project that it is part of: this one, or else that of the definitions that come with unibody."""
    library = replace(project, root=HERE.parent, sources=("modular",), stub="")
    try:
        sources = discover(project)
        return project, sources[select(sources, [parent])[0]]
    except CompileError:
        others = discover(library)
        if parent not in {other.name for other in others.values()}:
            raise
        return library, others[select(others, [parent])[0]]


def _files(project: Project, own: bool, unit: Unit, name: str, prefix: str, all_heads: bool) -> dict[str, str]:
    """The definition and its test, by path."""
    entry = next(iter(registry_entries(unit)), None)
    if entry is None:
        remedy = "inherit from one whose configuration has a `model_type`, and whose classes have an `auto_class`"
        raise CompileError(Diagnostic("UB027", f"`{unit.source.key}` makes no model", remedy, unit.source.path))
    heads = _heads(entry, all_heads)
    children = _children(unit, entry, heads, name, prefix)
    names = {child.parent: child.name for child in children}
    folder = unit.source.key.rpartition("/")[0]
    base = project.root / project.sources[0]
    if own:
        base = unit.source.file.parents[folder.count("/") + 1 if folder else 0]
    target = source_of(project, base, base / folder / f"{PREFIX}{name}.py")
    values = {"prefix": prefix, "parent": unit.family.prefix, "output": target.output, "model_type": name}
    fields = {key for node in _body(unit, entry.config) for key in assigned_names(node)}
    sizes = [(field, value) for field, value in TINY.items() if field in fields]
    return {
        target.path: render_template(
            "definition.py.j2", **values, imports=_imports(own, unit, children), classes=children
        ),
        f"tests/test_{name}.py": render_template(
            "parity_test.py.j2", **values, sizes=sizes, heads=[(auto, names[n]) for auto, n in heads.items()]
        ),
    }


def _heads(entry: Entry, every: bool) -> dict[str, str]:
    """The parent's class for each auto class that the new model gets: the model without a head, and its first head or all."""
    heads = dict(entry.classes)
    if every:
        return heads
    first = FIRST_HEAD if FIRST_HEAD in heads else next((auto for auto in heads if auto != BARE), BARE)
    return {auto: name for auto, name in heads.items() if auto in (BARE, first)}


def _children(unit: Unit, entry: Entry, heads: dict[str, str], name: str, prefix: str) -> list[Child]:
    """A class for the parent's configuration, for each head, and for what the heads share as their base; in its order."""
    members = unit.family.definitions
    wanted = [entry.config, *heads.values()]
    for member in wanted:
        node = members[member].node
        bases = node.bases if isinstance(node, ast.ClassDef) else []
        wanted += [base.id for base in bases if isinstance(base, ast.Name) and base.id in members]
    children = []
    for member in members:
        if member in wanted:
            new = derived_name(member, (unit.family.prefix, unit.family.model_type), (prefix, name))
            if new == member:
                message = f"`{member}` would keep its name, because it does not begin with `{unit.family.prefix}`"
                raise CompileError(Diagnostic("UB027", message, "write the definition by hand", unit.source.path))
            children.append(_configuration(unit, member, new, name) if member == entry.config else Child(new, member))
    return children


def _configuration(unit: Unit, parent: str, new: str, name: str) -> Child:
    """The child's configuration: decorated as the parent's, with a model type of its own."""
    definition = unit.family.definitions[parent]
    decorators = [definition.text.of(d).text for d in getattr(definition.node, "decorator_list", ())]
    field = next(node for node in _body(unit, parent) if assigned_names(node) == ("model_type",))
    kind = f": {definition.text.of(field.annotation).text}" if isinstance(field, ast.AnnAssign) else ""
    decorator = next((text for text in decorators if text.startswith("dataclass")), "")
    return Child(new, parent, decorator, f'model_type{kind} = "{name}"')


def _body(unit: Unit, member: str) -> list[ast.stmt]:
    node = unit.family.definitions[member].node
    return node.body if isinstance(node, ast.ClassDef) else []


def _imports(own: bool, unit: Unit, children: list[Child]) -> list[str]:
    """The import statements of the new definition: what decorates it, and its parents."""
    text = "\n".join(child.decorator + child.body for child in children)
    rows = ["from dataclasses import dataclass"] if "dataclass" in text else []
    rows += ["from typing import ClassVar"] if "ClassVar" in text else []
    module = f".{unit.module.stem}" if own else "unibody.modular." + unit.source.key.replace("/", f".{PREFIX}")
    rows += ["", f"from {module} import {', '.join(sorted(child.parent for child in children))}"]
    if ENTRY in unit.family.definitions:
        rows.append(f"from {module} import {ENTRY} as {ENTRY}")
    return rows
