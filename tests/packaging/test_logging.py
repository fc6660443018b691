"""`unibody.logging`: levels by call and by environment."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import unibody


def run(code: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


SAY = """
import unibody
log = unibody.logging.get_logger("unibody.test")
{}
log.debug("a"), log.info("b"), log.warning("c")
"""


def test_levels() -> None:
    assert run(SAY.format("")) == "c\n"
    assert run(SAY.format("unibody.logging.set_verbosity_info()")).splitlines() == [
        "INFO unibody.test: b", "WARNING unibody.test: c",
    ]  # fmt: skip
    assert run(SAY.format("unibody.logging.set_verbosity_error()")) == ""
    assert run(SAY.format(""), UNIBODY_VERBOSITY="debug").count("\n") == 3
    assert (
        run(SAY.format("unibody.logging.set_verbosity('error'); unibody.logging.set_verbosity_warning()")).count("\n")
        == 1
    )


def test_unknown_level() -> None:
    with pytest.raises(ValueError, match="verbosity 'loud' is not one of debug, info, warning, error, critical"):
        unibody.logging.set_verbosity("loud")
    assert unibody.logging.get_verbosity() == unibody.logging.WARNING
