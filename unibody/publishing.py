"""Putting models, configurations and what else can be saved into repositories of the Hugging Face Hub."""

from __future__ import annotations

import os
import re
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from unibody.hub import explained
from unibody.model_card import model_card

WEIGHTS = re.compile(r"model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?")


class PushToHubMixin:
    """`push_to_hub` for what has `save_pretrained`."""

    def push_to_hub(
        self,
        repo_id: str,
        *,
        commit_message: str | None = None,
        commit_description: str | None = None,
        private: bool | None = None,
        token: bool | str | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        max_shard_size: int | str | None = None,
        tags: list[str] | None = None,
    ) -> Any:
        """Saves and uploads, as one commit, what is new or changed; returns huggingface_hub's CommitInfo.

        The repository and the branch `revision` are made where there are none, and a model card where there is none. HubError:
        no right or no network; or somebody else has pushed meanwhile, and nothing was written.
        """
        repo_id = self._create_repo(repo_id, private=private, token=token)
        with TemporaryDirectory() as folder:
            before = self._get_files_timestamps(folder)
            sizes = {} if max_shard_size is None else {"max_shard_size": max_shard_size}
            self.save_pretrained(folder, **sizes)  # type: ignore[attr-defined]
            return self._upload_modified_files(
                folder, repo_id, before, commit_message=commit_message, commit_description=commit_description,
                token=token, revision=revision, create_pr=create_pr, card=model_card(self, repo_id, tags),
            )  # fmt: skip

    def _create_repo(self, repo_id: str, private: bool | None = None, token: bool | str | None = None) -> str:
        """Makes the repository unless it exists; its full name."""
        from huggingface_hub import HfApi

        with explained(repo_id):
            return HfApi(token=token).create_repo(repo_id, private=private, exist_ok=True).repo_id

    def _get_files_timestamps(self, working_dir: str | os.PathLike[str]) -> dict[str, float]:
        """When the files of a folder were changed, by name."""
        return {file.name: file.stat().st_mtime for file in Path(working_dir).iterdir() if file.is_file()}

    def _upload_modified_files(
        self,
        working_dir: str | os.PathLike[str],
        repo_id: str,
        files_timestamps: dict[str, float],
        commit_message: str | None = None,
        commit_description: str | None = None,
        token: bool | str | None = None,
        revision: str | None = None,
        create_pr: bool = False,
        card: str = "",
    ) -> Any:
        """Commits the files that are new or changed since the timestamps were taken; weights that they replace go.

        The commit is for the state of the repository that was looked at: if it has changed, the Hub refuses it.
        """
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
        from huggingface_hub.errors import RevisionNotFoundError

        api, folder = HfApi(token=token), Path(working_dir)
        now = self._get_files_timestamps(folder)
        names = sorted(name for name, changed in now.items() if files_timestamps.get(name) != changed)
        with explained(repo_id, revision):
            try:
                info = api.model_info(repo_id, revision=revision)
            except RevisionNotFoundError:
                if revision is None or revision.startswith("refs/"):
                    raise
                api.create_branch(repo_id, branch=revision)
                info = api.model_info(repo_id, revision=revision)
            there = {sibling.rfilename for sibling in info.siblings or ()}
            operations: list[Any] = [CommitOperationAdd(name, str(folder / name)) for name in names]
            if card and "README.md" not in there:
                operations.append(CommitOperationAdd("README.md", card.encode()))
            if any(WEIGHTS.fullmatch(name) for name in names):
                stale = sorted(name for name in there - now.keys() if WEIGHTS.fullmatch(name))
                operations += [CommitOperationDelete(name) for name in stale]
            return api.create_commit(
                repo_id, operations, commit_message=commit_message or f"Upload {type(self).__name__}",
                commit_description=commit_description, revision=revision, create_pr=create_pr, parent_commit=info.sha,
            )  # fmt: skip
