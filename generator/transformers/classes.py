"""The class that results where a class inherits from one of another model: one laid over the other."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable

from ..diagnostics import CompileError, point
from ..parse import is_string
from ..text import Mixed, Text, concatenate, join
from .library import Library
from .names import common_suffix
from .quirks import Quirks
from .renaming import Renamer
from .shape import NOTHING, Method, Note, Shape, Tree, split_arguments
from .unravel import unravel

SENTINEL = "no_inherit_decorator"


def second_renaming(library: Library, old: str, new: str) -> Callable[[str], str] | None:
    """What changes the strings and comments of a class that gets a name of its own: the parent's name becomes the child's."""
    if old == new:
        return None
    suffix = common_suffix(old, new)
    names = library.names
    whole = not library.quirks.renames_inside_words
    return Renamer(names, names.lower(old.removesuffix(suffix)), names.lower(new.removesuffix(suffix)), whole).prose


def inherit(library: Library, child: Tree, base: str, parent: Tree) -> Shape:
    """The class `child` with the class `parent`, which it names `base`, merged in."""
    name = child.node.name
    rename = second_renaming(library, parent.view.word(parent.node.name), name)
    shape = parent.shape(rename)
    own = child.shape()
    shape.name = name
    shape.origin = Mixed.of(own.origin, shape.origin)
    shape.decorators = _decorators(own.decorators, shape.decorators)
    shape.bases = _bases(shape.bases, [b for b in own.bases if b != base])
    shape.docstrings = own.docstrings or shape.docstrings
    _merge_attributes(shape, own, child)
    originals = dict(shape.methods)
    _merge_methods(shape, own, library.quirks)
    unravel(shape, originals, own, library.quirks)
    return shape


def _decorators(own: Text, inherited: Text) -> Text:
    if not own.text:
        return inherited
    return NOTHING if own.text.strip() == f"@{SENTINEL}" else own


def _bases(bases: list[str], extra: list[str]) -> list[str]:
    left = list(extra)
    found = []
    for base in bases:
        if base.isidentifier():
            match = next((e for e in left if _replaces(e, base)), None)
            if match is not None:
                left.remove(match)
                base = match
        found.append(base)
    found += [e for e in left if e not in found]
    if "GradientCheckpointingLayer" in found:
        found = [base for base in found if base != "nn.Module"]
    return found


def _replaces(extra: str, base: str) -> bool:
    """Whether a new base takes the place of one of the parent's: they end alike, or the new one ends with the old one."""
    suffix = common_suffix(extra, base)
    return (bool(suffix) and suffix[0].isupper()) or (extra != base and extra.endswith(base))


def _merge_attributes(shape: Shape, own: Shape, child: Tree) -> None:
    for name, text in own.attributes.items():
        if name in own.removals:
            if shape.attributes.pop(name, None) is None:
                offset = child.view.source.text.index(text.text.strip().split("\n")[-1], child.base)
                message = f"the parent has no attribute `{name}` to remove"
                raise CompileError(
                    point(child.view.source.rows, offset, len(name), "UB014", message, "take the line out")
                )
            continue
        shape.attributes[name] = text
        for key in (name, f"{name}_setter"):
            shape.methods.pop(key, None)


def _merge_methods(shape: Shape, own: Shape, quirks: Quirks) -> None:
    for key, method in own.methods.items():
        inherited = shape.methods.get(key)
        if inherited is None:
            shape.methods[key] = method
        elif is_removal(method, quirks):
            del shape.methods[key]
        else:
            if only_raises(method.node):
                offset = method.home.base + method.home.rows.offset(method.node.lineno, method.node.col_offset)
                message = f"`{method.name}` only raises, but the inherited method is not removed: it is replaced"
                shape.notes.append(Note("TD006", offset, message))
            shape.methods[key] = _override(method, inherited)


def is_removal(method: Method, quirks: Quirks) -> bool:
    """Whether a method only says that the inherited one goes: one empty line, `def`, and directly below `raise …Error(`."""
    if not quirks.removes_by_layout:
        return only_raises(method.node)
    if method.lead.text != "\n" or method.decorators.text or method.opening.text.lstrip().startswith("async"):
        return False
    return re.match(r"\n[^\n]*\n {8}raise[^\n]*Error\(", method.render().text) is not None


def only_raises(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether a method does nothing but raise an error, whatever its decorators, docstring and layout."""
    body = [part for part in node.body if not is_string(part)]
    return len(body) == 1 and isinstance(body[0], ast.Raise) and "Error" in ast.unparse(body[0])


def _override(method: Method, inherited: Method) -> Method:
    block = method.block
    body = method.node.body
    parameters = method.parameters
    if not any(piece.is_string for piece in method.pieces()[1]):
        strings = [p.text for p in inherited.pieces()[1] if p.is_string]
        if strings and body:
            end = block.text.index("\n")
            block = join([block.slice(0, end), *strings, block.slice(end + 1, len(block.text))])
    if method.node.args.kwarg is not None and method.node.args.kwarg.arg == "super_kwargs":
        parameters = _joined_parameters(method, inherited)
    return Method(
        inherited.name,
        inherited.lead,
        _decorators(method.decorators, inherited.decorators),
        inherited.gap,
        inherited.opening,
        parameters,
        method.returns if method.returns is not None else inherited.returns,
        block,
        method.node,
        method.home,
        method.change,
    )


def _joined_parameters(method: Method, inherited: Method) -> Text:
    """The parent's parameters with the child's in their places and behind them; `**` is the parent's."""
    own, theirs = parameter_texts(method), parameter_texts(inherited)
    word = inherited.home.view.word
    args = method.node.args
    plain = [word(arg.arg) for arg in [*inherited.node.args.posonlyargs, *inherited.node.args.args]]
    found = [own.get(name, theirs[name]) for name in plain]
    found += [own[arg.arg] for arg in [*args.posonlyargs, *args.args][1:] if arg.arg not in plain]
    if args.vararg:
        found.append(own[args.vararg.arg])
    elif args.kwonlyargs:
        found.append(Text("*, ", method.opening.origins[-1:]))
    found += [own[arg.arg] for arg in args.kwonlyargs]
    kwarg = inherited.node.args.kwarg
    if kwarg is not None:
        found.append(theirs[word(kwarg.arg)])
    return concatenate([*(piece for text in found[:-1] for piece in _closed(text)), *found[-1:]])


def _closed(text: Text) -> list[Text | str]:
    """A parameter with a comma behind it."""
    if re.sub(r"#[^\n]*", "", text.text).rstrip().endswith(","):
        return [text]
    return [text.slice(0, len(text.text.rstrip())), ", "]


def parameter_texts(method: Method) -> dict[str, Text]:
    """Each parameter by name: its text with the stars before it and the comma and comments behind it."""
    found: dict[str, Text] = {}
    for piece in split_arguments(method.parameters):
        match = re.search(r"[^\W\d]\w*", re.sub(r"#[^\n]*", lambda m: " " * len(m[0]), piece.text))
        if match:
            found[match[0]] = piece
    return found
