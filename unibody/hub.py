"""Files of the Hugging Face Hub, through huggingface_hub; and what its errors mean, in words that say what to do."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from unibody.core.hub import require_repository
from unibody.core.loading import find_weights
from unibody.deprecation import FORMER, rename_argument
from unibody.errors import HubError
from unibody.reading import read_bounded_json

LOGIN = "log in with `hf auth login` or pass token="
REMEDIES = {  # of huggingface_hub's errors, the more special first
    "GatedRepoError": f"{{repository}} is gated: ask for access on its page on the Hub, then {LOGIN}",
    "DisabledRepoError": "{repository} is disabled by the Hub",
    "RepositoryNotFoundError": "{repository} is no repository that you can see: check the name; if it is private, "
    + LOGIN,
    "RevisionNotFoundError": "{repository} has no revision {revision}: name a branch, a tag or a commit",
    "LocalEntryNotFoundError": (
        "{file}{at} is not in the cache, and the Hub is not asked or does not answer: "
        "check the network, HF_HUB_OFFLINE and local_files_only"
    ),
    "EntryNotFoundError": "{repository}{at} has no file {file}",
    "HFValidationError": "{repository!r} is neither a folder nor the name of a repository, such as 'owner/name'",
    "OfflineModeIsEnabled": "{repository}: the network is not to be used (HF_HUB_OFFLINE is set)",
}
HUB_OPTIONS = ("cache_dir", "force_download", "token", "revision", "local_files_only", "subfolder")
SMALL_FILES = ("*.json", "*.txt", "*.model", "*.jinja")


def locate(folder_or_id: str | os.PathLike[str], options: dict[str, Any], weights: bool = True) -> Path:
    """The folder of a checkpoint, fetched if it is a repository's; takes the Hub's options out of the others.

    What JSON it has is within bounds: core may read it.
    """
    rename_argument(options, "use_auth_token", "token", **FORMER)
    hub = {name: options.pop(name) for name in HUB_OPTIONS if name in options}
    if Path(folder_or_id).is_dir():
        folder = Path(folder_or_id, hub.get("subfolder") or "")
    else:
        require_repository(Path(folder_or_id))
        folder = fetch_checkpoint(str(folder_or_id), weights=weights, **hub)
    for name in ("config.json", "model.safetensors.index.json"):
        if (folder / name).is_file():
            read_bounded_json(folder / name)
    return folder


def cached_files(
    path_or_repo_id: str | os.PathLike[str],
    filenames: Sequence[str],
    *,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    token: bool | str | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
    subfolder: str = "",
    repo_type: str | None = None,
) -> list[str]:
    """The paths of files of a folder, or of a repository at a branch, tag or commit, from the cache or fetched into it.

    All come from one commit. HubError: one of them is not there; no token, no network, or no right to it.
    """
    names = [safe_name(name, subfolder) for name in filenames]
    folder = Path(path_or_repo_id)
    if folder.is_dir():
        if missing := [name for name in names if not (folder / name).is_file()]:
            raise HubError(f"{folder} has no file {', '.join(missing)}")
        return [str(folder / name) for name in names]
    return download_files(
        str(path_or_repo_id), names, cache_dir=cache_dir, force_download=force_download, token=token, revision=revision,
        local_files_only=local_files_only, repo_type=repo_type,
    )  # fmt: skip


def download_files(
    repository: str,
    filenames: Sequence[str],
    *,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    token: bool | str | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
    repo_type: str | None = None,
) -> list[str]:
    """The paths of files of a repository in the cache, all of one commit; a folder of the repository's name is not looked at."""
    from huggingface_hub import hf_hub_download

    found, commit = [], revision
    for name in map(safe_name, filenames):
        with explained(repository, revision, name):
            path = hf_hub_download(
                repository, name, cache_dir=cache_dir, force_download=force_download, token=token, revision=commit,
                local_files_only=local_files_only, repo_type=repo_type,
            )  # fmt: skip
        found.append(str(path))
        commit = commit_of(str(path)) or commit
    return found


def cached_file(path_or_repo_id: str | os.PathLike[str], filename: str, **options: Any) -> str:
    """The path of one file; the options are those of cached_files."""
    return cached_files(path_or_repo_id, [filename], **options)[0]


def has_file(
    path_or_repo: str | os.PathLike[str],
    filename: str,
    revision: str | None = None,
    token: bool | str | None = None,
    *,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    repo_type: str | None = None,
) -> bool:
    """Whether a folder or a repository has a file, without fetching it; offline, whether the cache has it.

    HubError: the repository or revision is not there.
    """
    name = safe_name(filename)
    if Path(path_or_repo).is_dir():
        return Path(path_or_repo, name).is_file()
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, is_offline_mode, try_to_load_from_cache
    from huggingface_hub.errors import EntryNotFoundError

    repository = str(path_or_repo)
    if local_files_only or is_offline_mode():
        cached = try_to_load_from_cache(repository, name, cache_dir=cache_dir, revision=revision, repo_type=repo_type)
        return isinstance(cached, str)
    with explained(repository, revision, name):
        try:
            get_hf_file_metadata(hf_hub_url(repository, name, revision=revision, repo_type=repo_type), token=token)
        except EntryNotFoundError:
            return False
    return True


def fetch_checkpoint(
    repository: str,
    *,
    cache_dir: str | Path | None = None,
    force_download: bool = False,
    token: bool | str | None = None,
    revision: str | None = None,
    local_files_only: bool = False,
    subfolder: str = "",
    weights: bool = True,
) -> Path:
    """The folder of a repository's checkpoint: its small files and, of `weights`, those that it is read from; one commit."""
    from huggingface_hub import snapshot_download

    prefix = safe_name("config.json", subfolder).removesuffix("config.json")

    def fetch(patterns: Sequence[str], commit: str | None) -> Path:
        with explained(repository, revision):
            found = snapshot_download(
                repository, cache_dir=cache_dir, force_download=force_download, token=token, revision=commit,
                local_files_only=local_files_only, allow_patterns=[prefix + pattern for pattern in patterns],
            )  # fmt: skip
        return Path(str(found))

    folder = fetch(SMALL_FILES, revision)
    commit = commit_of(str(folder)) or revision
    inside = folder / subfolder
    if weights:
        if not (inside / "model.safetensors.index.json").is_file():
            fetch(["model.safetensors"], commit)
        else:
            fetch([path.name for path in indexed_weights(inside)], commit)
        try:
            find_weights(inside)  # says what is lacking
        except FileNotFoundError:
            name = f"{prefix}pytorch_model.bin"
            with suppress(HubError):
                if has_file(repository, name, commit, token, cache_dir=cache_dir, local_files_only=local_files_only):
                    raise ValueError(
                        f"{repository} holds only pickled weights ({name}), which run code when they are read: "
                        "convert them to safetensors, or use a revision of the repository that has them"
                    ) from None
            raise
    return inside


def indexed_weights(folder: Path) -> list[Path]:
    """The files that the index of a sharded checkpoint names; each name is checked before anything is fetched."""
    index = folder / "model.safetensors.index.json"
    places = read_bounded_json(index).get("weight_map")
    names = sorted({str(name) for name in places.values()}) if isinstance(places, dict) else []
    for name in names:
        if not name or name in (".", "..") or not {"/", "\\", "*", "?", "["}.isdisjoint(name):
            raise ValueError(f"{index} names {name!r}, which is not in its folder: refused")
    return [folder / name for name in names]


def safe_name(filename: str, subfolder: str = "") -> str:
    """The file's path in a repository. ValueError: it leads out of it."""
    name = f"{subfolder.strip('/')}/{filename}" if subfolder else filename
    if name.startswith("/") or "\\" in name or any(part in ("", ".", "..") for part in name.split("/")):
        raise ValueError(f"{name!r} does not name a file inside of a repository: write for example 'config.json'")
    return name


def commit_of(path: str) -> str | None:
    """The commit in the path of a cached file."""
    found = re.search(r"[/\\]snapshots[/\\]([0-9a-f]{40})(?:[/\\]|$)", path)
    return found[1] if found else None


@contextmanager
def explained(repository: str, revision: str | None = None, filename: str = "") -> Iterator[None]:
    """Turns the client's errors into HubError with the remedy; no message holds a token."""
    from huggingface_hub import errors

    facts = {
        "repository": repository, "revision": repr(revision), "file": filename or repository,
        "at": f" at {revision!r}" if revision else "",
    }  # fmt: skip
    try:
        yield
    except Exception as error:
        cause = error.__cause__  # of which the client says no more than that it failed
        told = cause if isinstance(cause, errors.HfHubHTTPError) else error
        kinds = (text for name, text in REMEDIES.items() if isinstance(told, getattr(errors, name)))
        if text := next(kinds, ""):
            raise HubError(text.format(**facts)) from error
        if isinstance(told, errors.HfHubHTTPError):
            raise HubError(refused(repository, getattr(told.response, "status_code", None))) from error
        for one in (error, cause):
            if isinstance(one, ConnectionError) or type(one).__module__.startswith("httpx"):
                reason = type(one).__name__
                raise HubError(f"{repository}: the Hub does not answer ({reason}): check the network") from error
        raise


def refused(repository: str, status: int | None) -> str:
    """What an answer without a name of its own means."""
    if status == 401:
        return f"{repository}: the Hub does not know you: {LOGIN}"
    if status == 403:
        return f"{repository}: you have no right to do this: use a token that has it"
    if status in (409, 412):
        return f"{repository} has been changed by someone else meanwhile; nothing was written: try again on top of it"
    if status == 429:
        return f"{repository}: too many requests: wait a minute and try again"
    return f"{repository}: the Hub answers with status {status}: try again later"
