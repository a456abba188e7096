"""A small Hub on loopback for its genuine clients, which fails on request."""

import base64
import functools
import hashlib
import json
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import datasets
import pytest
from huggingface_hub import ModelCard, close_session, constants

from src.system import downloads, hub

_LARGE = (".parquet", ".safetensors", ".bin")  # kept on another origin, and named by their SHA-256
_API = re.compile(r"/api/(models|datasets)/(\w[\w.-]*(?:/[\w.-]+)?)(?:/revision/([^/]+))?")
_WRITE = re.compile(r"/api/models/([\w.-]+/[\w.-]+)/(tree|preupload|commit)/main")
_LARGE_FILES = re.compile(r"/([\w.-]+/[\w.-]+)\.git/info/lfs/objects/batch")
_FILE = re.compile(r"/(datasets/)?([\w.-]+(?:/[\w.-]+)?)/resolve/([^/]+)/(.+)")


@dataclass
class Request:
    """What a client has asked."""

    line: str  # "GET /path"
    host: str
    token: str | None
    range: str | None


@dataclass
class LoopbackHub:
    """Repositories and what is wrong with them.

    Attributes:
        repositories: "models/ID" or "datasets/ID": the folders of its commits, the last of which is main.
        renamed: old id to id.
        faults: each a pattern of "METHOD /path", what happens to such requests, and how often. What happens is a
            status; the body of a 200 answer, in bytes; or one of

            - hang, drop: no answer, and no end or an end
            - gated: 403 as for a repository with conditions
            - corrupt, cut, truncate, slow: other bytes; half of them; half of them, said to be all; 64 KiB a second
        token: without it nobody gets anything, if it is set.
        owners: whose repositories may be created, and written to.
        uploads: where what is uploaded is kept.
        asked: the requests so far.
    """

    repositories: dict[str, dict[str, Path]] = field(default_factory=dict)
    renamed: dict[str, str] = field(default_factory=dict)
    faults: list[tuple[str, str | bytes, float]] = field(default_factory=list)
    token: str | None = None
    owners: tuple[str, ...] = ()
    uploads: Path = Path()
    asked: list[Request] = field(default_factory=list)
    address: str = ""
    closing: threading.Event = field(default_factory=threading.Event)

    def add(self, name: str, folder: Path, commit: str | None = None) -> str:
        """Adds a commit with the files of a folder, and returns its name."""
        commit = commit or hashlib.sha1(str(folder).encode()).hexdigest()
        self.repositories.setdefault(name, {})[commit] = folder
        return commit

    def fail(self, how: str | bytes, where: str = ".", times: float = float("inf")) -> None:
        """Replaces all faults by this one."""
        self.faults = [(where, how, times)]

    @contextmanager
    def serve(self) -> Iterator[None]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Handler, self))
        server.daemon_threads = True
        self.address = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield
        finally:
            self.closing.set()
            server.shutdown()
            server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def __init__(self, served: LoopbackHub, *args: object) -> None:
        self.served = served
        super().__init__(*args)  # type: ignore[arg-type]

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        line = f"{self.command} {unquote(self.path)}"
        self.body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.served.asked.append(
            Request(line, self.headers["Host"], self.headers["Authorization"], self.headers["Range"])
        )
        try:
            self._answer(line, self._fault(line))
        except ConnectionError:
            self.close_connection = True

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

    def _fault(self, line: str) -> str | bytes:
        for i, (where, how, times) in enumerate(self.served.faults):
            if times > 0 and re.search(where, line):
                self.served.faults[i] = (where, how, times - 1)
                return how
        return ""

    def _answer(self, line: str, fault: str | bytes) -> None:
        path = line.partition(" ")[2].partition("?")[0]
        if isinstance(fault, bytes):
            return self._send(200, fault)
        if fault in ("hang", "drop"):
            self.served.closing.wait(None if fault == "hang" else 0)
            self.close_connection = True
            return None
        if fault == "gated":
            return self._refuse(403, "GatedRepo", "Access to this repository is restricted")
        if fault.isdigit():
            return self._refuse(int(fault), "", f"as asked for: {fault}")
        if path.startswith("/large/"):
            return self._send(200, Path(path.removeprefix("/large")).read_bytes(), fault=fault)
        if path.startswith("/upload/"):
            return self._keep(path.removeprefix("/upload/"))
        if self.served.token and self.headers["Authorization"] != f"Bearer {self.served.token}":
            return self._refuse(401, "RepoNotFound", "Invalid username or password.")
        if self.command == "POST" or path.startswith("/api/whoami") or "/tree/" in path:
            return self._write(path)
        if api := _API.fullmatch(path):
            return self._repository(f"{api[1]}/{api[2]}", api[3])
        if file := _FILE.fullmatch(path):
            return self._file(f"{'datasets' if file[1] else 'models'}/{file[2]}", file[3], file[4], fault)
        return self._refuse(404, "", "no such page")

    def _commit(self, name: str, revision: str | None) -> tuple[str, Path] | None:
        plain = name.partition("/")[2]
        if new := self.served.renamed.get(plain):
            self._send(307, b"", {"Location": self.path.replace(plain, new, 1)})
        elif not (commits := self.served.repositories.get(name)):
            self._refuse(404, "RepoNotFound", "Repository not found")
        else:
            commit = list(commits)[-1] if revision in (None, "main") else str(revision)
            if commit in commits:
                return commit, commits[commit]
            self._refuse(404, "RevisionNotFound", f"Invalid rev id: {commit}")
        return None

    def _repository(self, name: str, revision: str | None) -> None:
        if found := self._commit(name, revision):
            files = [str(file.relative_to(found[1])) for file in found[1].rglob("*") if file.is_file()]
            siblings = [{"rfilename": file} for file in files]
            answer = {"id": name.partition("/")[2], "sha": found[0], "siblings": siblings}
            self._tell(answer)

    def _file(self, name: str, revision: str, path: str, fault: str) -> None:
        if not (found := self._commit(name, revision)):
            return
        commit, file = found[0], found[1] / path
        head = {"X-Repo-Commit": commit}
        if not file.is_file():
            self._refuse(404, "EntryNotFound", "Entry not found")
        elif file.name.endswith(_LARGE):
            head |= {"X-Linked-Etag": f'"{_sha256(file)}"', "X-Linked-Size": str(file.stat().st_size)}
            other = self.served.address.replace("127.0.0.1", "localhost")
            self._send(302, b"", head | {"Location": f"{other}/large{file}"})
        else:
            content = file.read_bytes()
            git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            self._send(200, content, head | {"ETag": f'"{git}"'}, fault)

    # ---- uploads ----------------------------------------------------------------------------------------------------

    def _write(self, path: str) -> None:
        """Answers what a client asks for before and while it uploads a model."""
        if path.startswith("/api/whoami"):
            self._tell({"type": "user", "name": "me"})
        elif path == "/api/validate-yaml":
            _check_card(json.loads(self.body)["content"])
            self._tell({"errors": [], "warnings": []})
        elif path == "/api/repos/create":
            self._create(**json.loads(self.body))
        elif _LARGE_FILES.fullmatch(path):
            objects = json.loads(self.body)["objects"]
            href = f"{self.served.address.replace('127.0.0.1', 'localhost')}/upload/"
            self._tell({"objects": [o | {"actions": {"upload": {"href": href + o["oid"]}}} for o in objects]})
        elif not (model := _WRITE.fullmatch(path)):
            self._refuse(404, "", "no such page")
        elif model[2] == "tree":
            if found := self._commit(f"models/{model[1]}", None):
                files = [file for file in found[1].rglob("*") if file.is_file()]
                facts = {"type": "file", "size": 1, "oid": "0" * 40}
                self._tell([facts | {"path": file.relative_to(found[1]).as_posix()} for file in files])
        elif model[1].partition("/")[0] not in self.served.owners:
            self._refuse(403, "", "Forbidden: you don't have write access to this repo")
        elif model[2] == "preupload":
            names = [file["path"] for file in json.loads(self.body)["files"]]
            modes = {name: "lfs" if name.endswith((*_LARGE, ".onnx")) else "regular" for name in names}
            self._tell({"files": [{"path": n, "uploadMode": mode, "shouldIgnore": False} for n, mode in modes.items()]})
        else:
            commit = self._commit_upload(model[1], [json.loads(line) for line in self.body.splitlines()])
            self._tell({"commitUrl": f"{self.served.address}/{model[1]}/commit/{commit}", "commitOid": commit})

    def _create(self, name: str, organization: str, **_: object) -> None:
        if organization not in self.served.owners:
            return self._refuse(403, "", f"You don't have the rights to create a model under {organization}")
        known = f"models/{organization}/{name}" in self.served.repositories
        if not known:
            self._commit_upload(f"{organization}/{name}", [])
        return self._tell({"url": f"{self.served.address}/{organization}/{name}"}, 409 if known else 200)

    def _keep(self, oid: str) -> None:
        assert hashlib.sha256(self.body).hexdigest() == oid
        (self.served.uploads / oid).write_bytes(self.body)
        self._send(200, b"")

    def _commit_upload(self, name: str, operations: list[dict[str, Any]]) -> str:
        commits = self.served.repositories.setdefault(f"models/{name}", {})
        commit = hashlib.sha1(f"{name} {len(commits)}".encode()).hexdigest()
        folder = self.served.uploads / commit
        if commits:
            shutil.copytree(list(commits.values())[-1], folder)
        else:
            folder.mkdir(parents=True)
        for operation in operations:
            value = operation["value"]
            if operation["key"] == "file":
                (folder / value["path"]).write_bytes(base64.b64decode(value["content"]))
            elif operation["key"] == "lfsFile":
                shutil.copy(self.served.uploads / value["oid"], folder / value["path"])
            elif operation["key"] == "deletedFile":
                (folder / value["path"]).unlink()
        commits[commit] = folder
        return commit

    def _tell(self, answer: object, status: int = 200) -> None:
        self._send(status, json.dumps(answer).encode(), {"Content-Type": "application/json"})

    # ---- answers ----------------------------------------------------------------------------------------------------

    def _refuse(self, status: int, code: str, message: str) -> None:
        head = {"X-Error-Message": message} | ({"X-Error-Code": code} if code else {})
        self._send(status, json.dumps({"error": message}).encode(), head)

    def _send(self, status: int, body: bytes, head: dict[str, str] | None = None, fault: str = "") -> None:
        half, head = len(body) // 2, dict(head or {})
        if fault == "corrupt":
            body = body[:half] + bytes(255 - byte for byte in body[half : half + 9]) + body[half + 9 :]
        if (first := re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "")) and status == 200:
            head["Content-Range"] = f"bytes {first[1]}-{len(body) - 1}/{len(body)}"
            status, body = 206, body[int(first[1]) :]
        if fault == "truncate" and self.command == "GET":
            body = body[:half]
        self.close_connection = fault in ("cut", "truncate")
        self.send_response(status)
        for name, value in {**head, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        sent = b"" if self.command == "HEAD" else body[:half] if fault == "cut" else body
        for at in range(0, len(sent), 2**14):
            self.wfile.write(sent[at : at + 2**14])
            self.served.closing.wait(0.25 if fault == "slow" else 0)


def _check_card(content: str) -> None:
    """Fails where the Hub would refuse the metadata of a card, as far as its client knows them."""
    data = ModelCard(content).data
    assert data.eval_results is None or data.to_dict()["model-index"][0]["results"]


@functools.cache
def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def forget_the_hub() -> None:
    """Makes this process as one that has asked nothing yet, once no thread of it waits for a Hub that has gone."""
    for thread in threading.enumerate():
        if thread.name.startswith("Hub: "):
            thread.join(20)
    close_session()
    hub.find_repository.cache_clear()
    hub._endpoint.cache_clear()
    downloads._downloaded.clear()


def use(address: str, home: Path, patch: pytest.MonkeyPatch, *, offline: bool = False) -> None:
    """What HF_ENDPOINT, HF_HOME and HF_HUB_OFFLINE do at the start of a process, in this one."""
    forget_the_hub()
    patch.setattr(constants, "HF_HUB_OFFLINE", offline)
    patch.setattr(constants, "ENDPOINT", address)
    patch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # large files go by LFS, which this Hub has too
    patch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    patch.setattr(constants, "HF_HOME", str(home))
    patch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
    patch.setattr(datasets.config, "HF_DATASETS_CACHE", str(home / "datasets"))
