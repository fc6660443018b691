"""A Hub on the loopback interface, for the real client: repositories with history, branches, tags, pull requests and LFS.

Nothing of it is a mock of the client: huggingface_hub runs as it is, with `HF_ENDPOINT` set to the address. What it asks for and
which fields it reads are facts of its version 2.4.0.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from hub.xet import xet_hashes

TOKENS = {"hf_alice": "alice", "hf_bob": "bob"}
LARGE = 5_000_000  # bytes from which an upload comes in parts
DATE = "2026-01-01T00:00:00.000Z"


@dataclass
class Repository:
    """Files by path at each commit; what branches, tags and pull requests point to."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)
    parents: dict[str, str | None] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    large: set[str] = field(default_factory=set)  # oids of files that are kept as LFS

    def resolve(self, revision: str) -> str | None:
        if revision in self.commits:
            return revision
        return self.refs.get(revision, self.tags.get(revision))

    def commit(self, files: dict[str, bytes], title: str, ref: str, parent: str | None) -> str:
        told = json.dumps([title, ref, parent, {name: sha256(data) for name, data in sorted(files.items())}])
        sha = hashlib.sha1(told.encode()).hexdigest()
        self.commits[sha], self.titles[sha], self.parents[sha], self.refs[ref] = files, title, parent, sha
        return sha


@dataclass
class Hub:
    """The state that all requests share."""

    address: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)  # LFS, by sha256
    parts: dict[str, dict[int, bytes]] = field(default_factory=dict)
    faults: list[tuple[str, Any]] = field(
        default_factory=list
    )  # pattern of "METHOD path query", status or "cut"; each happens once
    halved: list[str] = field(default_factory=list)  # paths of files whose next download stops in the middle
    resumed: list[int] = field(default_factory=list)  # from which bytes on downloads have been asked for
    asked: list[str] = field(default_factory=list)
    lock: threading.RLock = field(default_factory=threading.RLock)
    storage: Path | None = None  # the folder of Xet's storage; None: the client is not to use Xet


class Refused(Exception):  # noqa: N818  an answer, not an error of the server
    def __init__(self, status: int, code: str = "", message: str = "", **body: Any) -> None:
        self.status, self.code, self.message, self.body = status, code, message, body


class Request(BaseHTTPRequestHandler):
    """Takes a request apart and finds the method that answers it."""

    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_: object) -> None:
        """Nothing: what was asked is in the Hub's list."""

    def answer(self) -> None:
        parts = urlsplit(self.path)
        self.route, self.query = unquote(parts.path).strip("/"), parse_qs(parts.query)
        self.raw = parts.path.strip("/")
        self.data = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        self.user = TOKENS.get(token)
        with self.hub.lock:
            self.hub.asked.append(f"{self.command} {self.route}")
            asked = f"{self.command} {self.route} {parts.query}".rstrip()
            for fault in self.hub.faults:
                if re.search(fault[0], asked):
                    self.hub.faults.remove(fault)
                    if fault[1] == "cut":
                        self.close_connection = True
                        self.connection.close()
                        return
                    self.send(fault[1], {"error": "as asked"})
                    return
            try:
                self.dispatch()
            except Refused as error:
                headers = {"X-Error-Code": error.code} if error.code else {}
                headers |= {"X-Error-Message": error.message} if error.message else {}
                self.send(error.status, {"error": error.message, **error.body}, headers)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = answer  # noqa: N815  names that http.server looks for

    def dispatch(self) -> None:
        route = self.route
        if route == "api/whoami-v2":
            self.need_user()
            role = {"accessToken": {"displayName": "test", "role": "write"}}
            self.send(200, {"name": self.user, "type": "user", "orgs": [], "auth": role})
        elif route == "api/repos/create":
            self.create()
        elif route == "api/validate-yaml":
            self.send(200, {"errors": [], "warnings": []})
        elif found := re.match(r"api/(?:models|datasets)/([^/]+/[^/]+)(?:/(\w[\w-]*)(?:/(.*))?)?$", route):
            self.api(found[1], found[2] or "", found[3] or "")
        elif found := re.match(r"(.+/.+)\.git/info/lfs/objects/batch$", route):
            self.lfs_batch(found[1])
        elif found := re.match(r"lfs/(\w+)(?:/(complete|verify))?$", route):
            self.lfs_object(found[1], found[2])
        elif found := re.match(r"([^/]+/[^/]+)/resolve/(refs/pr/\d+|[^/]+)/(.+)$", route):
            self.resolve(found[1], found[2], found[3])
        else:
            raise Refused(404, "RepoNotFound")

    def need_user(self) -> None:
        if self.user is None:
            raise Refused(401, message="Invalid credentials")

    def repository(self, name: str, write: bool = False) -> Repository:
        found = self.hub.repositories.get(name)
        if found is None or (found.private and self.user != name.partition("/")[0]):
            raise Refused(401 if self.user is None else 404, "RepoNotFound", "Repository not found")
        if write:
            self.need_user()
            if self.user != name.partition("/")[0]:
                raise Refused(403, message="You have no right to write here")
        return found

    def create(self) -> None:
        self.need_user()
        told = json.loads(self.data)
        name = f"{told.get('organization') or self.user}/{told['name']}"
        url = f"{self.hub.address}/{name}"
        if name.partition("/")[0] != self.user:
            raise Refused(403, message="You have no right to create it")
        if name in self.hub.repositories:
            raise Refused(409, message="You already created this", url=url)
        made = self.hub.repositories[name] = Repository(private=told.get("visibility") == "private")
        made.commit({".gitattributes": b"*.safetensors filter=lfs\n"}, "initial commit", "main", None)
        self.send(200, {"url": url, "name": name})

    def api(self, name: str, action: str, rest: str) -> None:
        if action in ("xet-write-token", "xet-read-token"):
            self.xet_token(name, write="write" in action)
            return
        if action in ("commit", "preupload", "branch", "tag"):
            repository = self.repository(name, write=True)
            {"commit": self.commit, "preupload": self.preupload, "branch": self.branch, "tag": self.tag}[action](
                name, repository, rest
            )
            return
        repository = self.repository(name)
        if action == "refs":
            refs = [
                {"name": ref, "ref": f"refs/heads/{ref}", "targetCommit": sha} for ref, sha in repository.refs.items()
            ]
            tags = [
                {"name": tag, "ref": f"refs/tags/{tag}", "targetCommit": sha} for tag, sha in repository.tags.items()
            ]
            branches = [ref for ref in refs if not ref["name"].startswith("refs/")]
            self.send(200, {"branches": branches, "tags": tags, "converts": [], "pullRequests": []})
            return
        revision = (
            rest if action in ("revision", "commits") else rest.partition("/")[0] if action == "tree" else "main"
        )
        sha = repository.resolve(revision or "main")
        if sha is None:
            raise Refused(404, "RevisionNotFound", "Revision not found")
        files = repository.commits[sha]
        if action == "tree":
            self.send(200, [self.entry(repository, path, data) for path, data in sorted(files.items())])
        elif action == "commits":
            history, at = [], sha
            while at is not None:
                entry = {"id": at, "title": repository.titles[at], "message": "", "authors": [], "date": DATE}
                history.append(entry)
                at = repository.parents[at]
            self.send(200, history)
        else:
            self.send(
                200,
                {
                    "_id": "0", "id": name, "sha": sha, "private": repository.private, "gated": repository.gated,
                    "disabled": False, "tags": [], "downloads": 0, "likes": 0, "lastModified": DATE, "createdAt": DATE,
                    "siblings": [{"rfilename": path} for path in sorted(files)],
                },
            )  # fmt: skip

    def entry(self, repository: Repository, path: str, data: bytes) -> dict[str, Any]:
        found: dict[str, Any] = {"type": "file", "oid": git_oid(data), "size": len(data), "path": path}
        if sha256(data) in repository.large:
            found["lfs"] = {"oid": sha256(data), "size": len(data), "pointerSize": 134}
        return found

    def preupload(self, _: str, repository: Repository, rest: str) -> None:
        sha, answers = repository.resolve(rest) or repository.refs["main"], []
        for told in json.loads(self.data)["files"]:
            old, large = repository.commits[sha].get(told["path"]), told["path"].endswith(".safetensors")
            oid = None if old is None else sha256(old) if large else git_oid(old)
            mode = "lfs" if large else "regular"
            answers.append({"path": told["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        self.send(200, {"files": answers})

    def lfs_batch(self, name: str) -> None:
        self.repository(name, write=True)
        answers = []
        for told in json.loads(self.data)["objects"]:
            oid, size = told["oid"], told["size"]
            answer: dict[str, Any] = {"oid": oid, "size": size}
            if oid not in self.hub.objects:
                place = f"{self.hub.address}/lfs/{oid}"
                upload: dict[str, Any] = {"href": place}
                if size > LARGE:
                    count = -(-size // LARGE)
                    numbers = {str(i): f"{place}?part={i}" for i in range(1, count + 1)}
                    upload = {"href": f"{place}/complete", "header": {"chunk_size": str(LARGE), **numbers}}
                answer["actions"] = {"upload": upload, "verify": {"href": f"{place}/verify"}}
            answers.append(answer)
        self.send(
            200, {"transfer": "multipart" if any(o["size"] > LARGE for o in answers) else "basic", "objects": answers}
        )

    def lfs_object(self, oid: str, action: str | None) -> None:
        if action == "verify":
            if oid not in self.hub.objects:
                raise Refused(404, message="the object was not uploaded")
        elif action == "complete":
            found = b"".join(data for _, data in sorted(self.hub.parts.pop(oid).items()))
            self.keep(oid, found)
        elif "part" in self.query:
            number = int(self.query["part"][0])
            self.hub.parts.setdefault(oid, {})[number] = self.data
            self.send(200, {}, {"ETag": f'"{number}"'})
            return
        else:
            self.keep(oid, self.data)
        self.send(200, {})

    def keep(self, oid: str, data: bytes) -> None:
        if sha256(data) != oid:
            raise Refused(400, message="the bytes are not those that were announced")
        self.hub.objects[oid] = data

    def xet_token(self, name: str, write: bool) -> None:
        """Where the storage is, and the right to use it for an hour."""
        self.repository(name, write=write)
        told = {"casUrl": f"local://{self.hub.storage}", "accessToken": "for-xet", "exp": int(time.time()) + 3600}
        names = {"X-Xet-Cas-Url": "casUrl", "X-Xet-Access-Token": "accessToken", "X-Xet-Token-Expiration": "exp"}
        self.send(200, told, {header: str(told[key]) for header, key in names.items()})

    def commit(self, name: str, repository: Repository, rest: str) -> None:
        lines = [json.loads(line) for line in self.data.splitlines() if line]
        head, wants_pr = lines[0]["value"], "create_pr" in self.query
        parent = repository.resolve(rest)
        if parent is None:
            raise Refused(404, "RevisionNotFound", "Revision not found")
        if head.get("parentCommit") not in (None, parent):
            raise Refused(412, message="A commit has happened since. Please refresh and try again.")
        files = dict(repository.commits[parent])
        for line in lines[1:]:
            value, kind = line["value"], line["key"]
            if kind == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif kind == "lfsFile":
                files[value["path"]] = self.uploaded(value["oid"], value["size"])
                repository.large.add(value["oid"])
            elif kind == "deletedFile":
                del files[value["path"]]
        number = 1 + sum(ref.startswith("refs/pr/") for ref in repository.refs)
        ref = f"refs/pr/{number}" if wants_pr else rest
        sha = repository.commit(files, head["summary"], ref, parent)
        url = f"{self.hub.address}/{name}"
        answer = {"commitUrl": f"{url}/commit/{sha}", "commitOid": sha}
        self.send(200, answer | ({"pullRequestUrl": f"{url}/discussions/{number}"} if wants_pr else {}))

    def uploaded(self, oid: str, size: int) -> bytes:
        """The bytes of a large file; those that Xet has are rebuilt, as the client would."""
        if oid not in self.hub.objects and self.hub.storage is not None:
            from hf_xet import XetFileInfo, XetSession

            file = XetFileInfo(xet_hashes(self.hub.storage)[oid], size)
            with TemporaryDirectory() as folder:
                target = Path(folder, oid)
                with XetSession().new_file_download_group(endpoint=f"local://{self.hub.storage}") as group:
                    group.start_download_file(file, str(target))
                self.keep(oid, target.read_bytes())
        return self.hub.objects[oid]

    def branch(self, _: str, repository: Repository, rest: str) -> None:
        told = json.loads(self.data or b"{}")
        repository.refs[rest] = repository.resolve(told.get("startingPoint") or "main") or ""
        self.send(200, {})

    def tag(self, _: str, repository: Repository, rest: str) -> None:
        repository.tags[json.loads(self.data)["tag"]] = repository.resolve(rest) or ""
        self.send(200, {})

    def resolve(self, name: str, revision: str, path: str) -> None:
        repository = self.repository(name)
        if repository.gated and self.user != name.partition("/")[0]:
            raise Refused(403, "GatedRepo", "Access to this repository is restricted")
        sha = repository.resolve(revision)
        if sha is None:
            raise Refused(404, "RevisionNotFound", "Revision not found")
        if path not in repository.commits[sha]:
            self.send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": sha})
            return
        data = repository.commits[sha][path]
        etag = sha256(data) if sha256(data) in repository.large else git_oid(data)
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": sha}
        if self.hub.storage is not None and (name_there := xet_hashes(self.hub.storage).get(etag)):
            route = f"{self.hub.address}/api/models/{name}/xet-read-token/{sha}"
            headers |= {
                "X-Xet-Hash": name_there,
                "Link": f'<{route}>; rel="xet-auth"',
                "X-Linked-Size": str(len(data)),
                "X-Linked-Etag": f'"{etag}"',
            }
        begin = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if begin is not None and self.command == "GET":
            self.hub.resumed.append(int(begin[1]))
            headers["Content-Range"] = f"bytes {begin[1]}-{len(data) - 1}/{len(data)}"
            self.send(206, data[int(begin[1]) :], headers)
        elif path in self.hub.halved and self.command == "GET":
            self.hub.halved.remove(path)
            self.send(200, data[: len(data) // 2], {**headers, "Content-Length": str(len(data))})
            self.close_connection = True
        else:
            self.send(200, data, headers)

    def send(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for key, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@contextmanager
def loopback() -> Iterator[Hub]:
    """A Hub without repositories; it stops with the block."""
    hub = Hub()
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Request,), {"hub": hub})) as server:
        hub.address = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield hub
        finally:
            server.shutdown()
            thread.join()
