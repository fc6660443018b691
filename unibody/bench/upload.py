"""Results as a dataset repository of the Hub."""

from __future__ import annotations

import sys
from pathlib import Path

from unibody.hub import explained

IGNORED = ("*.sqlite*", "*.log", ".*")  # the database, what processes wrote, and what is half written
CARD = """---
tags:
- benchmark
- unibody
---

# {name}

Results of `unibody bench`: `index.html` shows them, `summary.md`, `summary.csv` and `summary.json` hold the numbers, and each
`benchmark_report.json` every measurement of one configuration.
"""


def push_results(folder: Path, repo_id: str, path_in_repo: str = "") -> int:
    """Uploads a folder of results as one commit, makes the repository if there is none, and says where it is; the exit status."""
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi()
    try:
        with explained(repo_id):
            name = api.create_repo(repo_id, repo_type="dataset", exist_ok=True).repo_id
            files = [
                path for path in sorted(folder.rglob("*")) if path.is_file() and not any(map(path.match, IGNORED))
            ]
            places = {(Path(path_in_repo) / path.relative_to(folder)).as_posix(): path for path in files}
            operations = [CommitOperationAdd(place, str(path)) for place, path in places.items()]
            there = api.list_repo_files(name, repo_type="dataset")
            if "README.md" not in {*there, *places}:
                operations.append(CommitOperationAdd("README.md", CARD.format(name=name.rpartition("/")[2]).encode()))
            done = api.create_commit(name, operations, commit_message=f"Results of {folder.name}", repo_type="dataset")
    except (OSError, ValueError) as error:
        print(f"error: {error}; the results are in {folder}", file=sys.stderr)
        return 1
    print(f"uploaded to {done.commit_url}")
    return 0
