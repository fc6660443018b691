"""The arguments of `unibody bench`, checked and handed on; and the upload at its end."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unibody.bench.errors import BenchmarkError
from unibody.bench.run import Options, default_output, run


def bench(overrides: Sequence[str], given: dict[str, Any]) -> int:
    """Runs the benchmark, and uploads its results if asked; the exit status."""
    repo_id, path_in_repo = given.pop("repo_id"), given.pop("path_in_repo")
    try:
        limit = parse_percent(given.pop("fail_on_regression"))
    except BenchmarkError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    commits = [name.strip() for name in (given.pop("commits") or "").split(",") if name.strip()]
    output: Path = given.pop("output") or default_output(given["config_name"])
    status = run(Options(overrides=overrides, commits=commits, fail_on_regression=limit, output=output, **given))
    if repo_id is None or status not in (0, 1):
        return status
    from unibody.bench.upload import push_results

    return push_results(output, repo_id, path_in_repo) or status


def parse_percent(text: str | None) -> float | None:
    """The number of `5%` or `5`. BenchmarkError: it is none."""
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%?", text.strip())
    if found is None:
        raise BenchmarkError(f"--fail-on-regression {text}: give per cent, as in 5%")
    return float(found[1])
