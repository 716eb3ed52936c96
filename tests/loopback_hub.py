"""A Hub on loopback: what the real `huggingface_hub` and `datasets` clients need of one, for tests.

Repositories are folders on disk. It knows revisions, private and gated repositories, tokens, ranges, slow and broken
transfers, search, and uploads (LFS). Every request is written down in `requests`.
"""

import base64
import contextlib
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

ROOT = Path(__file__).resolve().parent.parent
LARGE = (".safetensors", ".bin", ".parquet", ".pt", ".model")  # kept in LFS
BLOCK = 1 << 14  # bytes sent at a time
DATE = "2024-01-01T00:00:00.000Z"


@dataclass
class Repository:
    """One repository: its commits as folders, and the names of revisions."""

    kind: str  # model | dataset
    name: str
    commits: dict[str, Path] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    is_private: bool = False
    is_gated: bool = False
    readers: set[str] = field(default_factory=set)

    def commit(self, folder: Path, *, revision: str = "main") -> str:
        """Makes `folder` the newest commit of a revision; returns its hash."""
        digest = hashlib.sha1(f"{self.kind}/{self.name}/{len(self.commits)}".encode())
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
        sha = digest.hexdigest()
        self.commits[sha], self.refs[revision] = folder, sha
        return sha

    def files(self, sha: str) -> list[dict[str, object]]:
        """The files of a commit, as the tree API writes them."""
        folder, entries = self.commits[sha], []
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            entry = {"type": "file", "path": path.relative_to(folder).as_posix(), **described(path)}
            entries.append(entry)
        return entries

    def card(self, sha: str) -> dict[str, object]:
        """The metadata at the top of README.md."""
        path = self.commits[sha] / "README.md"
        front = re.match(r"---\n(.*?)\n---", path.read_text("utf-8"), re.DOTALL) if path.is_file() else None
        return yaml.safe_load(front[1]) if front else {}


def described(path: Path) -> dict[str, object]:
    """Size and hashes of a file."""
    content = path.read_bytes()
    oid = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    entry: dict[str, object] = {"size": len(content), "oid": oid}
    if path.name.endswith(LARGE):
        entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
    return entry


class LoopbackHub:
    """The server with its repositories, and what the tests make it do.

    `tokens` maps valid tokens to user names; any other token is refused as revoked. `breaks[file] = n` lets the next n
    transfers of that file stop at half; `seconds_per_block` slows all transfers.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.repositories: dict[tuple[str, str], Repository] = {}
        self.tokens: dict[str, str] = {"hf_tester": "tester"}
        self.breaks: dict[str, int] = {}
        self.seconds_per_block = 0.0
        self.moved: dict[str, str] = {}  # ids without an owner, and where they lead
        self.requests: list[tuple[str, str, str | None]] = []  # method, path, range
        self.sent: dict[str, int] = {}  # bytes of each file that were sent
        self.is_stopped = False
        self.is_down = False  # answers 503 to everything
        self.lock = threading.Lock()
        handler = type("Handler", (_Handler,), {"hub": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True)
        self.thread.start()

    def stop(self) -> None:
        """Ends the server: from now on there is no network."""
        self.is_stopped = True
        if self.thread.is_alive():
            self.server.shutdown()
            self.server.server_close()
            self.thread.join()

    def add(self, name: str, source: Path, *, kind: str = "model", revision: str = "main", **settings) -> Repository:
        """A repository, or a new commit of it, with a copy of the files in `source`."""
        repository = self.repositories.setdefault((kind, name), Repository(kind, name))
        for key, value in settings.items():
            setattr(repository, key, value)
        target = self.folder / kind / name.replace("/", "--") / str(len(repository.commits))
        repository.commit(shutil.copytree(source, target), revision=revision)
        return repository

    def downloads(self, file: str) -> list[str | None]:
        """The ranges of all GET requests for a file."""
        return [span for method, path, span in self.requests if method == "GET" and path.endswith(f"/{file}")]

    def environment(self, home: Path, **more: str) -> dict[str, str]:
        """The environment of a process whose Hub this is."""
        own = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        own |= {"HF_ENDPOINT": self.endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
        own |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "PYTHONPATH": str(ROOT)}
        return own | {"HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "OMP_NUM_THREADS": "1", **more}

    def in_client(self, arguments: list[str], home: Path, **environment: str) -> subprocess.CompletedProcess:
        """Runs `python ARGUMENTS` in a process whose Hub this is."""
        return subprocess.run(
            [sys.executable, *arguments],
            env=self.environment(home, **environment),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=240,
        )


@contextlib.contextmanager
def loopback_hub(folder: Path):
    """A running Hub whose repositories lie in `folder`."""
    hub = LoopbackHub(folder)
    try:
        yield hub
    finally:
        hub.stop()


def connect(monkeypatch, hub: LoopbackHub, home: Path) -> None:
    """Lets the client in this process speak to `hub` (it reads its environment only once), with a cache of its own."""
    from huggingface_hub import constants
    from huggingface_hub.utils import close_session

    close_session()
    monkeypatch.setattr(constants, "ENDPOINT", hub.endpoint)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_URL_HOSTS", constants.HF_URL_HOSTS | {"127.0.0.1"})
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)


class _Handler(BaseHTTPRequestHandler):
    hub: LoopbackHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_HEAD(self):
        self._answer()

    def do_GET(self):
        self._answer()

    def do_POST(self):
        self._answer()

    def do_PUT(self):
        self._answer()

    def _answer(self) -> None:
        if self.hub.is_stopped:  # a connection that was kept open
            self.close_connection = True
            return None
        if self.hub.is_down:
            self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            return self._refuse(503, None, "Service Unavailable")
        split = urlsplit(self.path)
        self.route, self.query = unquote(split.path), parse_qs(split.query)
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length) if length else b""
        with self.hub.lock:
            self.hub.requests.append((self.command, self.route, self.headers.get("Range")))
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        self.user = self.hub.tokens.get(token) if token else None
        if token and not self.user:
            return self._refuse(401, None, "Invalid credentials in Authorization header")
        short = re.match(r"/(?:api/models/)?([^/]+)(?=/|$)", self.route)
        if short and short[1] in self.hub.moved:
            target = self.path.replace(short[1], self.hub.moved[short[1]], 1)
            return self._refuse(307, None, "Temporary Redirect", {"Location": target})
        for method, pattern, action in _ROUTES:
            if self.command in method and (found := re.fullmatch(pattern, split.path)):
                parts = {name: part and unquote(part) for name, part in found.groupdict().items()}
                return action(self, **parts)
        return self._refuse(404, None, "Sorry, we can't find the page you are looking for.")

    # Reading ---------------------------------------------------------------------------------------------------

    def _repository(self, kind: str, name: str) -> Repository | None:
        repository = self.hub.repositories.get((kind, name))
        hidden = repository is None or (repository.is_private and self.user not in repository.readers)
        if hidden:
            self._refuse(404 if self.user else 401, "RepoNotFound", "Repository not found")
        return None if hidden else repository

    def _commit(self, repository: Repository, revision: str) -> str | None:
        sha = repository.refs.get(revision, revision)
        if sha not in repository.commits:
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return None
        return sha

    def info(self, kind: str, name: str, revision: str | None = None) -> None:
        repository = self._repository(kind[:-1], name)
        if not repository:
            return
        sha = self._commit(repository, revision or "main")
        if sha:
            self._json(self._information(repository, sha))

    def _information(self, repository: Repository, sha: str) -> dict[str, object]:
        siblings = []
        for entry in repository.files(sha):
            sibling = {"rfilename": entry["path"], "size": entry["size"], "blobId": entry["oid"]}
            if "lfs" in entry:
                lfs = entry["lfs"]
                sibling["lfs"] = {"sha256": lfs["oid"], "size": lfs["size"], "pointerSize": lfs["pointerSize"]}
            siblings.append(sibling)
        card = repository.card(sha)
        about = {"_id": "0" * 24, "id": repository.name, "modelId": repository.name, "sha": sha, "siblings": siblings}
        about |= {"author": repository.name.split("/")[0], "private": repository.is_private, "disabled": False}
        about |= {"gated": "auto" if repository.is_gated else False, "tags": card.get("tags") or [], "cardData": card}
        return about | {"downloads": 0, "likes": 0, "lastModified": DATE, "createdAt": DATE}

    def tree(self, kind: str, name: str, revision: str, path: str | None = None) -> None:
        repository = self._repository(kind[:-1], name)
        sha = repository and self._commit(repository, revision)
        if not sha:
            return
        prefix = f"{path.strip('/')}/" if path else ""
        entries: dict[str, dict[str, object]] = {}
        recursive = self.query.get("recursive", ["false"])[0].lower() == "true"
        for entry in repository.files(sha):
            if not entry["path"].startswith(prefix):
                continue
            parts = entry["path"].removeprefix(prefix).split("/")
            for depth in range(1, len(parts) if recursive else min(len(parts), 2)):
                folder = prefix + "/".join(parts[:depth])
                entries[folder] = {"type": "directory", "path": folder, "oid": "0" * 40, "size": 0}
            if recursive or len(parts) == 1:
                entries[entry["path"]] = entry
        if prefix and not entries:
            return self._refuse(404, "EntryNotFound", f"{path} does not exist on {revision}")
        return self._json(list(entries.values()))

    def paths(self, kind: str, name: str, revision: str) -> None:
        repository = self._repository(kind[:-1], name)
        sha = repository and self._commit(repository, revision)
        if not sha:
            return
        is_json = "json" in (self.headers.get("Content-Type") or "")
        wanted = json.loads(self.body)["paths"] if is_json else parse_qs(self.body.decode()).get("paths", [])
        found = [entry for entry in repository.files(sha) if entry["path"] in wanted]
        folders = {path for path in wanted for entry in repository.files(sha) if entry["path"].startswith(f"{path}/")}
        self._json(found + [{"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in folders])

    def references(self, kind: str, name: str) -> None:
        repository = self._repository(kind[:-1], name)
        if repository:
            branches = [
                {"name": ref, "ref": f"refs/heads/{ref}", "targetCommit": sha} for ref, sha in repository.refs.items()
            ]
            self._json({"branches": branches, "converts": [], "tags": []})

    def search(self, kind: str) -> None:
        words = self.query.get("search", [""])[0].lower()
        author = self.query.get("author", [None])[0]
        found = [
            self._information(repository, repository.refs["main"])
            for repository in self.hub.repositories.values()
            if repository.kind == kind[:-1]
            and words in repository.name.lower()
            and (author is None or repository.name.startswith(f"{author}/"))
            and (not repository.is_private or self.user in repository.readers)
        ]
        self._json(found[: int(self.query.get("limit", ["1000"])[0])])

    def resolve(self, name: str, revision: str, path: str, kind: str | None = None) -> None:
        repository = self._repository(kind[:-1] if kind else "model", name)
        sha = repository and self._commit(repository, revision)
        if not sha:
            return None
        if repository.is_gated and self.user not in repository.readers:
            return self._refuse(403 if self.user else 401, "GatedRepo", f"Access to model {name} is restricted.")
        file = repository.commits[sha] / path
        if not file.is_file():
            return self._refuse(404, "EntryNotFound", "Entry not found", {"X-Repo-Commit": sha})
        return self._send_file(file, sha)

    def _send_file(self, file: Path, sha: str) -> None:
        content, about = file.read_bytes(), described(file)
        headers = {"X-Repo-Commit": sha, "Accept-Ranges": "bytes", "ETag": f'"{about["oid"]}"'}
        if "lfs" in about:
            headers |= {"X-Linked-ETag": f'"{about["lfs"]["oid"]}"', "X-Linked-Size": str(len(content))}
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        status = 200
        if span:
            start, end = int(span[1]), min(int(span[2] or len(content)), len(content) - 1)
            if start >= len(content):
                return self._refuse(416, None, "Range", {"Content-Range": f"bytes */{len(content)}"})
            headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
            content, status = content[start : end + 1], 206
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(key, value)
        self.end_headers()
        return self._send_blocks(file.name, content) if self.command == "GET" else None

    def _send_blocks(self, name: str, content: bytes) -> None:
        with self.hub.lock:
            breaks = self.hub.breaks.get(name, 0) > 0
            self.hub.breaks[name] = self.hub.breaks.get(name, 0) - breaks
        if breaks:
            content = content[: len(content) // 2]
        with contextlib.suppress(ConnectionError):
            for start in range(0, len(content), BLOCK):
                block = content[start : start + BLOCK]
                self.wfile.write(block)
                self.hub.sent[name] = self.hub.sent.get(name, 0) + len(block)
                time.sleep(self.hub.seconds_per_block)
            self.wfile.flush()
        self.close_connection = self.close_connection or breaks

    # Writing ---------------------------------------------------------------------------------------------------

    def who(self) -> None:
        if self.user:
            self._json({"type": "user", "name": self.user, "orgs": [], "auth": {"type": "access_token"}})
        else:
            self._refuse(401, None, "Invalid username or password.")

    def validate(self) -> None:
        self._json({"errors": [], "warnings": []})

    def create(self) -> None:
        asked = json.loads(self.body)
        if not self.user:
            return self._refuse(401, None, "Invalid username or password.")
        name = f"{asked.get('organization') or self.user}/{asked['name']}"
        if (asked.get("type", "model"), name) in self.hub.repositories:
            return self._refuse(409, None, "You already created this model repo", {"Location": f"/{name}"})
        if name.split("/")[0] != self.user:
            return self._refuse(403, None, f"You don't have the rights to create a model under {name.split('/')[0]}")
        is_private = asked.get("visibility") == "private" or bool(asked.get("private"))
        empty = self.hub.folder / "empty"
        empty.mkdir(parents=True, exist_ok=True)
        self.hub.add(name, empty, kind=asked.get("type", "model"), is_private=is_private, readers={self.user})
        return self._json({"url": f"{self.hub.endpoint}/{name}", "name": name, "id": "0" * 24})

    def _writable(self, kind: str, name: str) -> Repository | None:
        repository = self._repository(kind[:-1], name)
        if repository and self.user != name.split("/")[0]:
            self._refuse(403, None, "Authorization error.")
            return None
        return repository

    def preupload(self, kind: str, name: str, revision: str) -> None:
        if self._writable(kind, name):
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                    "shouldIgnore": False,
                    "oid": None,
                }
                for file in json.loads(self.body)["files"]
            ]
            self._json({"files": files, "commitOid": "0" * 40})

    def batch(self, name: str, kind: str | None = None) -> None:
        if self._writable(kind or "models", name):
            objects = [
                {**entry, "actions": {"upload": {"href": f"{self.hub.endpoint}/lfs/{entry['oid']}"}}}
                for entry in json.loads(self.body)["objects"]
            ]
            self._json({"transfer": "basic", "objects": objects})

    def store(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            return self._refuse(400, None, "The content is not what its name says")
        folder = self.hub.folder / "lfs"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / oid).write_bytes(self.body)
        return self._json({})

    def write(self, kind: str, name: str, revision: str) -> None:
        repository = self._writable(kind, name)
        sha = repository and self._commit(repository, revision)
        if not sha:
            return
        target = self.hub.folder / repository.kind / name.replace("/", "--") / str(len(repository.commits))
        shutil.copytree(repository.commits[sha], target)
        for line in map(json.loads, self.body.splitlines()):
            value = line["value"]
            if line["key"] in ("file", "lfsFile"):
                path = target / value["path"]
                path.parent.mkdir(parents=True, exist_ok=True)
                content = (
                    base64.b64decode(value["content"])
                    if line["key"] == "file"
                    else (self.hub.folder / "lfs" / value["oid"]).read_bytes()
                )
                path.write_bytes(content)
            elif line["key"] == "deletedFile":
                (target / value["path"]).unlink()
        new = repository.commit(target, revision=revision)
        self._json({"success": True, "commitOid": new, "commitUrl": f"{self.hub.endpoint}/{name}/commit/{new}"})

    # Answers ---------------------------------------------------------------------------------------------------

    def _json(self, content: object) -> None:
        data = json.dumps(content, default=str).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _refuse(self, status: int, code: str | None, message: str, headers: dict[str, str] | None = None) -> None:
        data = json.dumps({"error": message}).encode()
        self.send_response(status)
        for key, value in {"X-Error-Code": code, "X-Error-Message": message, **(headers or {})}.items():
            if value is not None:
                self.send_header(key, value)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


_KIND, _NAME, _REVISION = r"(?P<kind>models|datasets)", r"(?P<name>[^/]+/[^/]+)", r"(?P<revision>[^/]+)"
_ROUTES = [
    (("GET",), rf"/api/{_KIND}", _Handler.search),
    (("GET",), r"/api/whoami-v2", _Handler.who),
    (("POST",), r"/api/validate-yaml", _Handler.validate),
    (("POST",), r"/api/repos/create", _Handler.create),
    (("GET",), rf"/api/{_KIND}/{_NAME}/refs", _Handler.references),
    (("GET", "HEAD"), rf"/api/{_KIND}/{_NAME}", _Handler.info),
    (("GET", "HEAD"), rf"/api/{_KIND}/{_NAME}/revision/{_REVISION}", _Handler.info),
    (("GET",), rf"/api/{_KIND}/{_NAME}/tree/{_REVISION}(?:/(?P<path>.*))?", _Handler.tree),
    (("POST",), rf"/api/{_KIND}/{_NAME}/paths-info/{_REVISION}", _Handler.paths),
    (("POST",), rf"/api/{_KIND}/{_NAME}/preupload/{_REVISION}", _Handler.preupload),
    (("POST",), rf"/api/{_KIND}/{_NAME}/commit/{_REVISION}", _Handler.write),
    (("POST",), rf"/(?:{_KIND}/)?{_NAME}\.git/info/lfs/objects/batch", _Handler.batch),
    (("PUT",), r"/lfs/(?P<oid>\w+)", _Handler.store),
    (("GET", "HEAD"), rf"/(?:{_KIND}/)?{_NAME}/resolve/{_REVISION}/(?P<path>.+)", _Handler.resolve),
]
