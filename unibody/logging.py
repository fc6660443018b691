"""How much the library says: levels by call (`set_verbosity_info()`) and by environment (`UNIBODY_VERBOSITY=info`).

Loggers are the standard library's, below the one named `unibody`. Until a level is set here or a handler by the program, they
behave as Python's do: warnings go to standard error.
"""

from __future__ import annotations

import logging
import os
import sys
from logging import CRITICAL, DEBUG, ERROR, INFO, WARNING

__all__ = ["CRITICAL", "DEBUG", "ERROR", "INFO", "WARNING", "get_logger", "get_verbosity", "set_verbosity"]

ROOT = "unibody"
LEVELS = {"debug": DEBUG, "info": INFO, "warning": WARNING, "error": ERROR, "critical": CRITICAL}


def get_logger(name: str | None = None) -> logging.Logger:
    """The logger of a module of the library; without a name, the one above all."""
    return logging.getLogger(ROOT if name is None else name)


def get_verbosity() -> int:
    """The level in force."""
    return get_logger().getEffectiveLevel()


def set_verbosity(level: int | str) -> None:
    """From this level on, messages are written to standard error. ValueError: there is no such level."""
    if isinstance(level, str):
        if level.lower() not in LEVELS:
            raise ValueError(f"verbosity {level!r} is not one of {', '.join(LEVELS)}")
        level = LEVELS[level.lower()]
    logger = get_logger()
    if not logger.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        logger.addHandler(handler)
        logger.propagate = False
    logger.setLevel(level)


def set_verbosity_debug() -> None:
    set_verbosity(DEBUG)


def set_verbosity_info() -> None:
    set_verbosity(INFO)


def set_verbosity_warning() -> None:
    set_verbosity(WARNING)


def set_verbosity_error() -> None:
    set_verbosity(ERROR)


if _wanted := os.environ.get("UNIBODY_VERBOSITY"):
    set_verbosity(_wanted)
