"""Stage 5b: the kernel tables of a quantizer's layers. Rows with a template get its source, specialised to the format.

A row `Kernel("triton", template="dequant_gemm.triton.py.j2", …)` becomes `Kernel("triton", entry="triton_matmul", …)`, and the
template's functions become members of the output. What a row names (`entry=…`, `layout=…`) it names as a string in the output,
so that a reader meets the layer before its kernels. Children inherit the rows as they were written, so each gets kernels of its own.
"""

from __future__ import annotations

import ast
import re
from dataclasses import replace
from typing import Any

from .diagnostics import CompileError, Diagnostic, at
from .parse import Definition, Module, parse_module
from .render import TEMPLATES, render_traced
from .text import Edit, Text
from .unit import Unit

TABLE, ROW, FACTS = "kernels", "Kernel", "Packing"
NAMED = ("entry", "layout")  # keywords of a row that name a function or class of the file


def expand_kernels(unit: Unit) -> None:
    """Fill the family's `expanded` members: layers with their tables expanded, and the functions of the templates."""
    family = unit.family
    for name, definition in list(family.definitions.items()):
        rows = _rows(definition)
        if not rows:
            continue
        text, edits, names = definition.text, [], []
        for row in rows:
            for keyword in row.keywords:
                if keyword.arg == "template":
                    module, entry = _expand(definition, row, keyword)
                    for made, function in module.definitions.items():
                        if made in family.definitions or made in family.expanded:
                            message = f"the template of this row defines `{made}`, which is there already"
                            raise CompileError(at(text, row, "UB011", message, "give the row another name"))
                        family.expanded[made] = function
                    family.bindings |= {n: i for n, i in module.imports.items() if n not in family.bindings}
                    edits.append(Edit(*text.span(keyword), f'entry="{entry}"'))
                    names += [
                        ast.copy_location(ast.Name(made, ast.Load()), keyword.value) for made in module.definitions
                    ]
                elif keyword.arg in NAMED and isinstance(keyword.value, ast.Name):
                    edits.append(Edit(*text.span(keyword.value), f'"{keyword.value.id}"'))
                    names.append(keyword.value)
        family.expanded[name] = replace(definition, text=text.edit(edits), mentions=tuple(names))


def _rows(definition: Definition) -> list[ast.Call]:
    """The calls of `Kernel` in a class's table."""
    found = []
    for node in getattr(definition.node, "body", ()):
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        value = getattr(node, "value", None)
        if isinstance(target, ast.Name) and target.id == TABLE and isinstance(value, (ast.Tuple, ast.List)):
            found += [row for row in value.elts if isinstance(row, ast.Call) and _called(row) == ROW]
    return found


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
    """The literal attributes of a class, and the keywords of its `packing`."""
    found: dict[str, Any] = {}
    for node in getattr(definition.node, "body", ()):
        target = node.targets[0] if isinstance(node, ast.Assign) else getattr(node, "target", None)
        value = getattr(node, "value", None)
        if isinstance(target, ast.Name) and value is not None:
            if isinstance(value, ast.Call) and _called(value) == FACTS:
                found[target.id] = {keyword.arg: _literal(keyword.value) for keyword in value.keywords}
            elif (literal := _literal(value)) is not None:
                found[target.id] = literal
    return found


def _called(node: ast.Call) -> str:
    return node.func.id if isinstance(node.func, ast.Name) else ""


def _literal(node: ast.expr) -> Any:
    """The value of a literal; None for anything else."""
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None
