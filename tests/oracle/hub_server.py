"""A Hub on the loopback interface: serves folders as the revisions of one model repository to a real huggingface_hub."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote, urlsplit


def commit_of(revision: str) -> str:
    """The commit, 40 hexadecimal digits, that a revision's name stands for."""
    return hashlib.sha1(revision.encode()).hexdigest()


class HubRequest(BaseHTTPRequestHandler):
    """Answers repository information, file listings, and HEAD and GET of files; everything else is 404."""

    protocol_version = "HTTP/1.1"
    repository: ClassVar[str]
    revisions: ClassVar[dict[str, Path]]
    requests: ClassVar[list[str]]

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def log_message(self, *_: object) -> None:
        """Nothing: what was asked is in `requests`."""

    def answer(self, *, with_body: bool) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        self.requests.append(f"{self.command} {path}")
        if path.startswith(f"api/models/{self.repository}"):
            self.answer_information(path.removeprefix(f"api/models/{self.repository}").strip("/"), with_body)
        elif path.startswith(f"{self.repository}/resolve/"):
            revision, _, name = path.removeprefix(f"{self.repository}/resolve/").partition("/")
            self.answer_file(revision, name, with_body)
        else:
            self.send(404, b"", {"X-Error-Code": "RepoNotFound"}, with_body)

    def answer_information(self, rest: str, with_body: bool) -> None:
        kind, _, tail = rest.partition("/")
        revision = tail.partition("/")[0] or "main"
        folder = self.folder_of(revision)
        if folder is None or kind not in ("", "revision", "tree"):
            self.send(404, b"", {"X-Error-Code": "RevisionNotFound"}, with_body)
            return
        files = sorted(path.name for path in folder.iterdir())
        if kind == "tree":
            listing: object = [
                {"type": "file", "path": name, "size": (folder / name).stat().st_size, "oid": etag(folder / name)}
                for name in files
            ]
        else:
            listing = {
                "_id": "0",
                "id": self.repository,
                "sha": self.commit(revision),
                "private": False,
                "gated": False,
                "disabled": False,
                "tags": [],
                "downloads": 0,
                "likes": 0,
                "siblings": [{"rfilename": name} for name in files],
            }
        self.send(200, json.dumps(listing).encode(), {"Content-Type": "application/json"}, with_body)

    def answer_file(self, revision: str, name: str, with_body: bool) -> None:
        folder = self.folder_of(revision)
        if folder is None:
            self.send(404, b"", {"X-Error-Code": "RevisionNotFound"}, with_body)
            return
        headers = {"X-Repo-Commit": self.commit(revision)}
        if not (folder / name).is_file():
            self.send(404, b"", {**headers, "X-Error-Code": "EntryNotFound"}, with_body)
            return
        self.send(200, (folder / name).read_bytes(), {**headers, "ETag": f'"{etag(folder / name)}"'}, with_body)

    def commit(self, revision: str) -> str:
        return revision if revision in map(commit_of, self.revisions) else commit_of(revision)

    def folder_of(self, revision: str) -> Path | None:
        """The folder of a revision given by name or by commit."""
        by_commit = {commit_of(name): folder for name, folder in self.revisions.items()}
        return self.revisions.get(revision) or by_commit.get(revision)

    def send(self, status: int, body: bytes, headers: dict[str, str], with_body: bool) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)


def etag(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()


@contextmanager
def hub(repository: str, revisions: dict[str, Path]) -> Iterator[tuple[str, list[str]]]:
    """The address of a Hub with this repository, and the growing list of what was asked; stops with the block."""
    requests: list[str] = []
    handler = type("Request", (HubRequest,), {"repository": repository, "revisions": revisions, "requests": requests})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}", requests
        finally:
            server.shutdown()
            thread.join()
