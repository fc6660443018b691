from ..dialect import Trace
from .library import Library


def trace(library: Library, path: str) -> Trace:
    raise NotImplementedError
