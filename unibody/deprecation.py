"""How something goes: a FutureWarning at each place that uses it, with what to write instead, and an error once it is gone."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

from unibody.errors import RemovedError

FORMER = {"since": "0.1", "removed_in": "1.0"}  # spellings of the ecosystem that are still met

P = ParamSpec("P")
R = TypeVar("R")


def warn_deprecated(name: str, *, since: str, removed_in: str, instead: str) -> None:
    """Warns, where the program calls the library, that `name` is deprecated; Python shows that once for each place.

    RemovedError: this version is `removed_in` or a later one.
    """
    from packaging.version import Version

    if Version(library_version()) >= Version(removed_in):
        raise RemovedError(f"{name} was removed in unibody {removed_in}: {instead}")
    message = f"{name} is deprecated since unibody {since} and will be removed in {removed_in}: {instead}"
    warnings.warn(message, FutureWarning, stacklevel=level_of_the_caller())


def deprecated(*, since: str, removed_in: str, instead: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorates a function or method that goes."""

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @wraps(function)
        def warned(*arguments: P.args, **options: P.kwargs) -> R:
            warn_deprecated(f"{function.__qualname__}()", since=since, removed_in=removed_in, instead=instead)
            return function(*arguments, **options)

        return warned

    return decorate


def rename_argument(options: dict[str, Any], old: str, new: str, *, since: str, removed_in: str) -> None:
    """Moves the value of an argument to its present name, with a warning. TypeError: both names are given."""
    if old not in options:
        return
    if options.get(new) is not None:
        raise TypeError(f"{new}= and {old}=, its former name, are both given: leave out {old}=")
    warn_deprecated(f"{old}=", since=since, removed_in=removed_in, instead=f"write {new}=")
    options[new] = options.pop(old)


def level_of_the_caller() -> int:
    """The stack level, for who calls `warnings.warn` in the calling function, of the first frame outside of the library."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "unibody":
        frame, level = frame.f_back, level + 1
    return level


@cache
def library_version() -> str:
    import unibody

    return unibody.__version__
