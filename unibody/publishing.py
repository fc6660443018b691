"""Putting models, configurations and what else can be saved into repositories of the Hugging Face Hub."""

from __future__ import annotations

import inspect
import os
import re
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from unibody.core.hub import read_json
from unibody.deprecation import rename_argument
from unibody.hub import explained
from unibody.model_card import model_card
from unibody.model_types import named_class

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
        **options: Any,
    ) -> Any:
        """Saves and uploads, as one commit, what is new or changed; returns huggingface_hub's CommitInfo.

        Further options are those of `save_pretrained`; what has no weights has no use for `max_shard_size`. The repository and the branch `revision` are made where there are none, and
        a model card where there is none. HubError: no right or no network; or somebody else has pushed meanwhile, and nothing was
        written.
        """
        options["token"] = token
        rename_argument(options, "use_auth_token", "token", since="0.1", removed_in="1.0")
        token = options.pop("token")
        repo_id = self._create_repo(repo_id, private=private, token=token)
        with TemporaryDirectory() as folder:
            before = self._get_files_timestamps(folder)
            save: Any = self.save_pretrained  # type: ignore[attr-defined]
            if max_shard_size is not None and takes(save, "max_shard_size"):
                options["max_shard_size"] = max_shard_size
            save(folder, **options)
            return self._upload_modified_files(
                folder, repo_id, before, commit_message=commit_message, commit_description=commit_description,
                token=token, revision=revision, create_pr=create_pr, card=self._model_card(repo_id, tags),
            )  # fmt: skip

    def _model_card(self, repo_id: str, tags: list[str] | None) -> str:
        config: Any = getattr(self, "config", self)
        found, source = named_class(type(self)), getattr(self, "name_or_path", "")
        if not hasattr(config, "to_dict"):
            return model_card(repo_id, {}, found.__name__, source, tags, usage=usage_of(found, repo_id))
        return model_card(repo_id, config.to_dict(), found.__name__, source, tags)

    def _create_repo(self, repo_id: str, private: bool | None = None, token: bool | str | None = None) -> str:
        """Makes the repository unless it exists; its full name."""
        from huggingface_hub import HfApi

        with explained(repo_id):
            return HfApi(token=token).create_repo(repo_id, private=private, exist_ok=True).repo_id

    def _get_files_timestamps(self, working_dir: str | os.PathLike[str]) -> dict[str, float]:
        """When the files of a folder were changed, by their paths in it; hidden ones do not count."""
        folder = Path(working_dir)
        paths = {file.relative_to(folder): file for file in folder.rglob("*") if file.is_file()}
        seen = {
            path.as_posix(): file for path, file in paths.items() if not any(part[0] == "." for part in path.parts)
        }
        for name, file in seen.items():
            if not file.resolve().is_relative_to(folder.resolve()):
                raise ValueError(f"{name} is a link to {file.resolve()}, out of {folder}: put the file itself there")
        return {name: file.stat().st_mtime for name, file in seen.items()}

    def _upload_modified_files(
        self,
        working_dir: str | os.PathLike[str],
        repo_id: str,
        files_timestamps: dict[str, float],
        commit_message: str | None = None,
        token: bool | str | None = None,
        create_pr: bool = False,
        revision: str | None = None,
        commit_description: str | None = None,
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
                repo_id, operations, commit_message=commit_message or f"Upload {named_class(type(self)).__name__}",
                commit_description=commit_description, revision=revision, create_pr=create_pr, parent_commit=info.sha,
            )  # fmt: skip


def takes(function: Any, option: str) -> bool:
    """Whether a function has a parameter of this name, or takes any."""
    parameters = inspect.signature(function).parameters
    return option in parameters or any(one.kind is one.VAR_KEYWORD for one in parameters.values())


def usage_of(found: type, repo_id: str) -> str:
    """Code that reads an object of a user's own class again: by the class, if it can, or else the files."""
    if hasattr(found, "from_pretrained") and found.__module__ != "__main__":
        return (
            f'from {found.__module__} import {found.__name__}\n\nfound = {found.__name__}.from_pretrained("{repo_id}")'
        )
    return f'from huggingface_hub import snapshot_download\n\nfolder = snapshot_download("{repo_id}")'


class Checkpoint(PushToHubMixin):
    """A checkpoint's folder as it is, to be pushed."""


def push(folder: Path, repo_id: str, **options: Any) -> int:
    """Uploads what is new or changed of a folder, and says where it is; the exit status."""
    try:
        config, checkpoint = read_json(folder / "config.json"), Checkpoint()
        name = checkpoint._create_repo(repo_id, private=options.pop("private", None))
        card = model_card(name, config)
        done = checkpoint._upload_modified_files(folder, name, {}, card=card, **options)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(done.pr_url or done.commit_url)
    return 0


def write_card(folder: Path, repo_id: str) -> int:
    """Writes the README.md of a checkpoint's folder, if there is none; the exit status."""
    try:
        text = model_card(repo_id, read_json(folder / "config.json"))
        with open(folder / "README.md", "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        print(f"error: {folder / 'README.md'} exists, and is left as it is", file=sys.stderr)
        return 1
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"wrote {folder / 'README.md'}")
    return 0
