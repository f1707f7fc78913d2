"""The Hub on loopback: as much of its HTTP interface as creating, uploading to and reading a model repository takes.

It speaks to the real huggingface_hub client (``HF_ENDPOINT``), keeps files in memory, checks tokens, hashes and the card's
metadata, and refuses what a test tells it to refuse.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

USER, TOKEN = "somebody", "hf_loopback"
LARGE = (".safetensors", ".bin", ".pt", ".pth")


@dataclass
class Repository:
    files: dict[str, bytes] = field(default_factory=dict)
    commits: list[str] = field(default_factory=list)
    through_lfs: set[str] = field(default_factory=set)

    @property
    def sha(self) -> str:
        return hashlib.sha1("\n".join(["", *self.commits]).encode()).hexdigest()


class Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class LocalHub(ThreadingHTTPServer):
    """``with LocalHub(lfs=True) as hub:`` … ``hub.url``, ``hub.repositories``.

    Args:
        lfs: whether large files go through git LFS, or all files into the commit itself.

    Attributes:
        refuse: pattern, sought in "METHOD path start-of-body" → how often to answer 403 before giving way.
        calls: "METHOD path" of every request.
    """

    daemon_threads = True

    def __init__(self, lfs: bool) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.lfs = lfs
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.refuse: dict[str, int] = {}
        self.calls: list[str] = []
        self.lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> LocalHub:
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    # --- the calls ----------------------------------------------------------------------------------------------------

    def answer(self, call: str, token: str | None, body: bytes) -> tuple[int, Any]:
        self.calls.append(call)
        for pattern, left in self.refuse.items():
            if left and re.search(pattern, f"{call} {body[:300]!r}"):
                self.refuse[pattern] -= 1
                raise Refused(403, "You may not write here.")
        for pattern, method in ROUTES:
            if found := re.fullmatch(pattern, call):
                if method not in (LocalHub.validate_yaml, LocalHub.put_object) and token != f"Bearer {TOKEN}":
                    raise Refused(401, "Invalid username or password.")
                return method(self, body, *found.groups())
        raise Refused(404, f"No such call: {call}")

    def create(self, body: bytes) -> tuple[int, Any]:
        asked = json.loads(body)
        name = f"{asked.get('organization') or USER}/{asked['name']}"
        known = name in self.repositories
        self.repositories.setdefault(name, Repository())
        url = {"url": f"{self.url}/{name}", "name": name}
        return (409, {**url, "error": "You already created this model repo"}) if known else (200, url)

    def validate_yaml(self, body: bytes) -> tuple[int, Any]:
        errors = card_errors(json.loads(body)["content"])
        return 400 if errors else 200, {"errors": [{"message": error} for error in errors], "warnings": []}

    def preupload(self, body: bytes, name: str) -> tuple[int, Any]:
        repository = self._repository(name)
        files = []
        for asked in json.loads(body)["files"]:
            path = asked["path"]
            large = self.lfs and path.endswith(LARGE)
            files.append({"path": path, "uploadMode": "lfs" if large else "regular", "shouldIgnore": False})
            if path in repository.files:
                content = repository.files[path]
                git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
                files[-1]["oid"] = hashlib.sha256(content).hexdigest() if large else git
        return 200, {"files": files}

    def lfs_batch(self, body: bytes, name: str) -> tuple[int, Any]:
        self._repository(name)
        wanted = json.loads(body)["objects"]
        put = [o if o["oid"] in self.objects else {**o, "actions": self._actions(o["oid"])} for o in wanted]
        return 200, {"transfer": "basic", "objects": put}

    def _actions(self, oid: str) -> dict[str, Any]:
        return {"upload": {"href": f"{self.url}/lfs/{oid}"}, "verify": {"href": f"{self.url}/lfs/{oid}/verify"}}

    def put_object(self, body: bytes, oid: str) -> tuple[int, Any]:
        if hashlib.sha256(body).hexdigest() != oid:
            raise Refused(400, "The content does not have that hash.")
        self.objects[oid] = body
        return 200, {}

    def verify_object(self, body: bytes, oid: str) -> tuple[int, Any]:
        asked = json.loads(body)
        if asked["oid"] != oid or len(self.objects.get(oid, b"")) != asked["size"]:
            raise Refused(400, "Not uploaded.")
        return 200, {}

    def commit(self, body: bytes, name: str) -> tuple[int, Any]:
        repository, message, files = self._repository(name), "", {}
        for line in body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "header":
                message = value["summary"]
            elif item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                if value["oid"] not in self.objects:
                    raise Refused(400, f"{value['path']} points to an object that was not uploaded.")
                files[value["path"]] = self.objects[value["oid"]]
                repository.through_lfs.add(value["path"])
            else:
                raise Refused(400, f"Unknown operation {item['key']}")
        repository.files |= files
        repository.commits.append(message)
        return 200, {"success": True, "commitOid": repository.sha, "commitUrl": f"{self.url}/{name}/commit/{repository.sha}"}

    def info(self, body: bytes, name: str) -> tuple[int, Any]:
        repository = self._repository(name)
        return 200, {"id": name, "sha": repository.sha, "siblings": [{"rfilename": path} for path in repository.files]}

    def download(self, body: bytes, name: str, path: str) -> tuple[int, Any]:
        repository = self._repository(name)
        if path not in repository.files:
            raise Refused(404, "Entry not found")
        return 200, repository.files[path]

    def _repository(self, name: str) -> Repository:
        if name not in self.repositories:
            raise Refused(404, "Repository not found")
        return self.repositories[name]


NAME = r"([\w.-]+/[\w.-]+)"
ROUTES = [
    ("POST /api/repos/create", LocalHub.create),
    ("POST /api/validate-yaml", LocalHub.validate_yaml),
    (f"POST /api/models/{NAME}/preupload/main", LocalHub.preupload),
    (rf"POST /{NAME}\.git/info/lfs/objects/batch", LocalHub.lfs_batch),
    (r"PUT /lfs/(\w+)", LocalHub.put_object),
    (r"POST /lfs/(\w+)/verify", LocalHub.verify_object),
    (f"POST /api/models/{NAME}/commit/main", LocalHub.commit),
    (f"GET /api/models/{NAME}(?:/revision/[^/]+)?", LocalHub.info),
    (rf"(?:GET|HEAD) /{NAME}/resolve/(?:main|[0-9a-f]{{40}})/(.+)", LocalHub.download),
]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: LocalHub

    def _answer(self) -> None:
        body = self._body()
        call = f"{self.command} {self.path.split('?')[0]}"
        headers = {}
        try:
            with self.server.lock:
                status, content = self.server.answer(call, self.headers.get("Authorization"), body)
        except Refused as refused:
            status, content = refused.status, {"error": str(refused)}
            if status == 404 and "Entry" in str(refused):
                headers["X-Error-Code"] = "EntryNotFound"
        if isinstance(content, bytes):
            headers |= {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": "0" * 40}
        else:
            content = json.dumps(content).encode()
            headers["Content-Type"] = "application/json"
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    do_GET = do_HEAD = do_POST = do_PUT = _answer

    def log_message(self, *_: Any) -> None:
        pass


def card_errors(content: str) -> list[str]:
    """What the Hub would refuse in a card's metadata, after the public specification of model cards."""
    found = re.match(r"---\n(.*?)\n---\n", content, re.DOTALL)
    try:
        data = yaml.safe_load(found[1]) if found else None
    except yaml.YAMLError as error:
        return [f"The metadata is not YAML: {error}"]
    if not isinstance(data, dict):
        return ["There is no metadata."]
    errors = []
    for name in ("license", "library_name", "pipeline_tag"):
        if not isinstance(data.get(name, ""), str):
            errors.append(f'"{name}" must be a string')
    for name in ("language", "base_model", "datasets", "tags", "metrics"):
        values = data.get(name, [])
        if not all(isinstance(value, str) and value for value in (values if isinstance(values, list) else [values])):
            errors.append(f'"{name}" must be a string or a list of strings')
    for model in data.get("model-index", []):
        if not isinstance(model.get("name"), str):
            errors.append('"model-index[0].name" is required')
        for result in model.get("results", []):
            errors += [
                f'"results.{a}.{b}" is required' for a, b in REQUIRED if not isinstance(result.get(a, {}).get(b), str)
            ]
            for metric in result.get("metrics", []):
                if not isinstance(metric.get("type"), str) or not isinstance(metric.get("value"), (int, float, str)):
                    errors.append('"results.metrics" needs type and value')
    return errors


REQUIRED = (("task", "type"), ("dataset", "type"), ("dataset", "name"))
