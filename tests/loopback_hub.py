"""A Hub on the loopback interface, for pushing and pulling over real HTTP without a network."""

import base64
import hashlib
import json
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants


TOKEN = "hf_loopback"


@dataclass
class Repository:
    """Trees by commit, commits by branch. Every commit's message is in `messages`, the first excepted."""

    branches: dict[str, str]
    trees: dict[str, dict[str, bytes]]
    is_private: bool = False
    is_gated: bool = False
    messages: list[str] = field(default_factory=list)

    @property
    def files(self) -> dict[str, bytes]:
        """What is on the branch main."""
        return self.trees[self.branches["main"]]

    def commit(self, branch: str, changes: dict[str, bytes | None], message: str) -> str:
        """Adds, replaces and (for None) deletes files. Returns the new commit."""
        parent = self.branches[branch]
        merged = {**self.trees[parent], **changes}
        tree = {name: data for name, data in merged.items() if data is not None}
        commit = _sha1(parent, message, *(f"{name} {_blob_id(data)}" for name, data in sorted(tree.items())))
        self.trees[commit] = tree
        self.branches[branch] = commit
        self.messages.append(message)
        return commit


class LoopbackHub(ThreadingHTTPServer):
    """Answers what huggingface_hub asks for when it creates, commits to and downloads from model repositories."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.repositories: dict[str, Repository] = {}
        self.delay = 0.0  # seconds before an answer
        self.status: int | None = None  # of a refusal of everything

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keeps the test's output clean of clients that did not wait for an answer."""

    def create(self, repo_id: str, **settings: Any) -> Repository:
        root = _sha1(repo_id)
        self.repositories[repo_id] = Repository({"main": root}, {root: {}}, **settings)
        return self.repositories[repo_id]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[LoopbackHub]:
    """A running Hub without repositories, and an empty cache. Its user is logged in."""
    server = LoopbackHub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub_cache"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


class _Refusal(Exception):
    def __init__(self, status: int, code: str = "", message: str = "Refused") -> None:
        super().__init__(message)
        self.status = status
        self.headers = {"X-Error-Code": code, "X-Error-Message": message}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: LoopbackHub

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        time.sleep(self.server.delay)
        matches = ((re.fullmatch(pattern, path), answer) for pattern, answer in _ROUTES)
        try:
            if self.server.status is not None:
                raise _Refusal(self.server.status)
            for match, answer in matches:
                if match is not None:
                    return answer(self, *match.groups(), body)
            raise _Refusal(404, "NotImplemented", f"{self.command} {path}")
        except _Refusal as refusal:
            self.respond({"error": str(refusal)}, refusal.status, refusal.headers)

    do_HEAD = do_POST = do_GET

    def log_message(self, *args: Any) -> None:
        """Keeps the test's output clean."""

    def respond(self, content: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {**(headers or {}), "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def find(self, repo_id: str, revision: str = "main") -> tuple[Repository, str]:
        """Returns a repository and the commit of a revision."""
        repository = self.server.repositories.get(repo_id)
        has_token = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if repository is None or (repository.is_private and not has_token):
            raise _Refusal(404 if has_token else 401, "RepoNotFound", "Repository not found")
        if repository.is_gated:
            raise _Refusal(403, "GatedRepo", "Access to this repository is restricted")
        commit = repository.branches.get(revision, revision)
        if commit not in repository.trees:
            raise _Refusal(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repository, commit

    def create_repository(self, body: bytes) -> None:
        wanted = json.loads(body)
        repo_id = f"{wanted.get('organization') or 'me'}/{wanted['name']}"
        answer = {"url": f"{self.server.url}/{repo_id}", "name": repo_id, "id": repo_id}
        if repo_id in self.server.repositories:
            return self.respond({**answer, "error": "You already created this model repo"}, 409)
        self.server.create(repo_id, is_private=bool(wanted.get("private") or wanted.get("visibility") == "private"))
        self.respond(answer)

    def accept_yaml(self, body: bytes) -> None:
        self.respond({"errors": [], "warnings": []})

    def preupload(self, repo_id: str, revision: str, body: bytes) -> None:
        paths = [file["path"] for file in json.loads(body)["files"]]
        self.respond({"files": [{"path": path, "uploadMode": "regular", "shouldIgnore": False} for path in paths]})

    def commit(self, repo_id: str, branch: str, body: bytes) -> None:
        repository, parent = self.find(repo_id, branch)
        changes: dict[str, bytes | None] = {}
        message = ""
        for operation in map(json.loads, body.splitlines()):
            value = operation["value"]
            if operation["key"] == "header":
                message = value["summary"]
                if value.get("parentCommit", parent) != parent:
                    raise _Refusal(412, "", "A commit has happened since. Please refresh and try again.")
            else:
                changes[value["path"]] = base64.b64decode(value["content"]) if operation["key"] == "file" else None
        commit = repository.commit(branch, changes, message)
        url = f"{self.server.url}/{repo_id}/commit/{commit}"
        self.respond({"success": True, "commitOid": commit, "commitUrl": url, "pullRequestUrl": None})

    def create_branch(self, repo_id: str, branch: str, body: bytes) -> None:
        repository, commit = self.find(repo_id)
        if branch in repository.branches:
            return self.respond({"error": "Reference already exists"}, 409)
        repository.branches[branch] = commit
        self.respond({})

    def describe(self, repo_id: str, revision: str | None, body: bytes) -> None:
        repository, commit = self.find(repo_id, revision or "main")
        siblings = [{"rfilename": name} for name in repository.trees[commit]]
        self.respond({"_id": repo_id, "id": repo_id, "modelId": repo_id, "sha": commit, "siblings": siblings})

    def resolve(self, repo_id: str, revision: str, name: str, body: bytes) -> None:
        repository, commit = self.find(repo_id, revision)
        data = repository.trees[commit].get(name)
        if data is None:
            raise _Refusal(404, "EntryNotFound", "Entry not found")
        self.respond(data, headers={"ETag": f'"{_blob_id(data)}"', "X-Repo-Commit": commit})


_REPO_ID = "([^/]+/[^/]+)"
_ROUTES = (
    ("/api/repos/create", _Handler.create_repository),
    ("/api/validate-yaml", _Handler.accept_yaml),
    (f"/api/models/{_REPO_ID}/preupload/(.+)", _Handler.preupload),
    (f"/api/models/{_REPO_ID}/commit/(.+)", _Handler.commit),
    (f"/api/models/{_REPO_ID}/branch/(.+)", _Handler.create_branch),
    (f"/api/models/{_REPO_ID}(?:/revision/(.+))?", _Handler.describe),
    (f"/{_REPO_ID}/resolve/([^/]+)/(.+)", _Handler.resolve),
)


def _sha1(*parts: str) -> str:
    return hashlib.sha1("\n".join(parts).encode()).hexdigest()


def _blob_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
