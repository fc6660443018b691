"""Stage 5b: the kernel tables of a quantizer's layers. Rows with a template get its source, specialised to the format.

A row `Kernel("triton", template="dequant_gemm.triton.py.j2", …)` becomes `Kernel("triton", entry="triton_matmul", …)`, and the
template's functions become members of the output. What a row names (`entry=…`, `layout=…`) it names as a string in the output,
so that a reader meets the layer before its kernels. Children inherit the rows as they were written, so each gets kernels of its own;
only those of core layers, which stay bases, are shared.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from .diagnostics import CompileError, Diagnostic, at
from .graph import Graph
from .import_statements import Import
from .parse import Definition, Module, parse_module
from .render import TEMPLATES, render_traced
from .text import Edit, Text
from .unit import Unit

TABLE, ROW, FACTS = "kernels", "Kernel", "Packing"
NAMED = ("entry", "layout")  # keywords of a row that name a function or class of the file


class _Expansion(NamedTuple):
    """A layer whose rows name functions as strings, and what its templates make."""

    layer: Definition
    made: dict[str, Definition]
    imports: dict[str, tuple[Import, ...]]


def expand_kernels(unit: Unit) -> None:
    """Fill the family's `expanded` members: layers with their tables expanded, and the functions of the templates."""
    family = unit.family
    for name, definition in list(family.definitions.items()):
        if (found := _expand_table(definition, family.members)) is not None:
            family.expanded |= {name: found.layer, **found.made}
            family.bindings = {**found.imports, **family.bindings}


def expand_core(graph: Graph) -> None:
    """Expand the tables of core layers, which stay bases: their children have the same kernels, made once."""
    for path in sorted(graph.core - graph.errors.keys()):
        module = graph.modules[path]
        definitions = dict(module.definitions)
        try:
            for name, definition in module.definitions.items():
                if (found := _expand_table(definition, definitions)) is not None:
                    definitions |= {name: found.layer, **found.made}
                    graph.bindings[path] = {**found.imports, **graph.bindings[path]}
        except CompileError as error:
            graph.errors[path] = list(error.diagnostics)
        graph.modules[path] = replace(module, definitions=definitions)


def _expand_table(definition: Definition, known: dict[str, Definition]) -> _Expansion | None:
    """A class with its table expanded, and without the facts that only templates read; None if it has no table."""
    text, edits, names = definition.text, [], []
    made: dict[str, Definition] = {}
    imports: dict[str, tuple[Import, ...]] = {}
    rows = _rows(definition)
    for row in rows:
        for keyword in row.keywords:
            if keyword.arg == "template":
                module, entry = _expand(definition, row, keyword)
                for function in module.definitions:
                    if function in known or function in made:
                        message = f"the template of this row defines `{function}`, which is there already"
                        raise CompileError(at(text, row, "UB011", message, "give the row another name"))
                made |= module.definitions
                imports = {**module.imports, **imports}
                edits.append(Edit(*text.span(keyword), f'entry="{entry}"'))
                names += [ast.copy_location(ast.Name(n, ast.Load()), keyword.value) for n in module.definitions]
            elif keyword.arg in NAMED and isinstance(keyword.value, ast.Name):
                edits.append(Edit(*text.span(keyword.value), f'"{keyword.value.id}"'))
                names.append(keyword.value)
    if not rows:
        return None
    for node in _facts_of(definition):  # whole lines, with their comments
        rest = text.text[text.span(node)[1] :].partition("\n")[0]
        edits.append(Edit(text.starts[node.lineno - 1] - 1, text.span(node)[1] + len(rest), ""))
    return _Expansion(replace(definition, text=text.edit(edits), mentions=tuple(names)), made, imports)


def _fields(definition: Definition) -> Iterator[tuple[ast.stmt, str, ast.expr]]:
    """The fields of a class that have a value, each with its name."""
    for node in getattr(definition.node, "body", ()):
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        value = getattr(node, "value", None)
        if isinstance(target, ast.Name) and value is not None:
            yield node, target.id, value


def _rows(definition: Definition) -> list[ast.Call]:
    """The calls of `Kernel` in a class's table; one in a comprehension stands for several rows."""
    nodes = (node for _, name, value in _fields(definition) if name == TABLE for node in ast.walk(value))
    return [node for node in nodes if isinstance(node, ast.Call) and _called(node) == ROW]


def _facts_of(definition: Definition) -> list[ast.stmt]:
    """The fields that are calls of `Packing`."""
    return [node for node, _, value in _fields(definition) if isinstance(value, ast.Call) and _called(value) == FACTS]


def _expand(definition: Definition, row: ast.Call, keyword: ast.keyword) -> tuple[Module, str]:
    """The module that a row's template makes for a layer, and the name of its function."""
    template = _literal(keyword.value)
    file = TEMPLATES / "kernels" / str(template)
    if not file.is_file():
        known = ", ".join(sorted(path.name for path in file.parent.glob("*.j2"))) or "none"
        message = f"there is no kernel template {template!r}"
        raise CompileError(at(definition.text, keyword.value, "UB004", message, f"the templates are {known}"))
    name = str(_literal(row.args[0])) if row.args else definition.name.lower()
    entry = re.sub(r"\W", "_", name) + "_matmul"
    facts: dict[str, Any] = {**_facts(definition), **{k.arg: _literal(k.value) for k in row.keywords if k.arg}}
    try:
        text = render_traced(f"kernels/{file.name}", **facts, name=entry, layer=definition.name)
    except CompileError as error:
        (found,) = error.diagnostics
        said = f"{found.path}:{found.line}: {found.source.strip()}"
        message = f"the template cannot be filled for `{definition.name}`: {found.message}"
        remedy = "say it in the row, in the layer's `packing` or as an attribute of the layer, or mend the template"
        raise CompileError(at(definition.text, keyword.value, "UB028", message, remedy, said)) from error
    try:
        return parse_module(text.text, f"templates/kernels/{file.name}", text.origins), entry
    except CompileError as error:
        raise CompileError(*(_in_template(found, text) for found in error.diagnostics)) from None


def _in_template(found: Diagnostic, text: Text) -> Diagnostic:
    return replace(found, line=text.origins[found.line - 1].line if found.line else 0)


def _facts(definition: Definition) -> dict[str, Any]:
    """The literal attributes of a class, the keywords of its `packing`, and the names of its own `methods`."""
    body = getattr(definition.node, "body", ())
    found: dict[str, Any] = {"methods": {node.name for node in body if isinstance(node, ast.FunctionDef)}}
    for _, name, value in _fields(definition):
        if isinstance(value, ast.Call) and _called(value) == FACTS:
            found[name] = {keyword.arg: _literal(keyword.value) for keyword in value.keywords}
        elif (literal := _literal(value)) is not None:
            found[name] = literal
    return found


def _called(node: ast.Call) -> str:
    return node.func.id if isinstance(node.func, ast.Name) else ""


def _literal(node: ast.expr) -> Any:
    """The value of a literal; None for anything else."""
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None
