"""A hub on loopback that takes uploads: the calls that huggingface_hub makes to publish a model.

Repositories, files and commits are kept in memory. `fail` maps the beginning of a path to a status that
is answered there; `tokens` collects every authorization header that was sent.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_rightTokenForTheFakeHub"
LARGE = (".safetensors", ".gguf")


class Hub:
    """What the server remembers."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.heads: dict[str, str] = {}
        self.commits: list[tuple[str, list[str]]] = []
        self.objects: dict[str, bytes] = {}
        self.fail: dict[str, int] = {}
        self.asked: list[str] = []
        self.tokens: set[str] = set()
        self.address = ""

    def add(self, name: str, files: dict[str, bytes], *, private: bool = True) -> None:
        """Put a repository there."""
        self.repos[name], self.private[name] = dict(files), private
        self.heads[name] = hashlib.sha1(name.encode()).hexdigest()


class _Answer(BaseHTTPRequestHandler):
    hub: Hub

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def do_POST(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the test's output clean."""

    def _serve(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.split("?")[0]
        self.hub.asked.append(f"{self.command} {path}")
        sent = self.headers.get("Authorization")
        if sent is not None:
            self.hub.tokens.add(sent)
        for beginning, status in self.hub.fail.items():
            if path.startswith(beginning):
                return self._json({"error": f"no, and your token was {sent}"}, status)
        if sent != f"Bearer {TOKEN}" and not path.startswith("/lfs/"):
            return self._json({"error": "Invalid credentials in Authorization header"}, 401)
        if path.startswith("/lfs/"):
            return self._put_object(path, body)
        if path.startswith("/api/"):
            return self._api(path.removeprefix("/api/").split("/"), body)
        if path.endswith("/info/lfs/objects/batch"):
            return self._batch(json.loads(body))
        return self._file(path.strip("/").split("/"))

    def _api(self, parts: list[str], body: bytes) -> None:
        if parts == ["validate-yaml"]:
            return self._json({"errors": [], "warnings": []})
        if parts == ["repos", "create"]:
            wanted = json.loads(body)
            name = f"{wanted['organization']}/{wanted['name']}"
            self.hub.add(name, {".gitattributes": b""}, private=wanted.get("visibility") == "private")
            return self._json({"url": f"{self.hub.address}/{name}", "name": name, "id": name})
        name = "/".join(parts[1:3])
        if name not in self.hub.repos:
            return self._json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        match parts[3:]:
            case [] | ["revision", _]:
                siblings = [{"rfilename": path} for path in self.hub.repos[name]]
                found = {"id": name, "sha": self.hub.heads[name], "siblings": siblings, "tags": []}
                return self._json({**found, "private": self.hub.private[name]})
            case ["preupload", _]:
                files = [
                    {
                        "path": file["path"],
                        "uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular",
                        "shouldIgnore": False,
                        "oid": None,
                    }
                    for file in json.loads(body)["files"]
                ]
                return self._json({"files": files})
            case ["commit", _]:
                return self._commit(name, [json.loads(line) for line in body.splitlines()])
        return self._json({"error": f"unexpected {self.path}"}, 404)

    def _commit(self, name: str, lines: list[dict[str, Any]]) -> None:
        header, entries = lines[0]["value"], lines[1:]
        if header.get("parentCommit") not in (None, self.hub.heads[name]):
            return self._json({"error": "A commit has happened since"}, 412)
        for entry in entries:
            value = entry["value"]
            content = (
                base64.b64decode(value["content"])
                if entry["key"] == "file"
                else self.hub.objects[value["oid"]]
            )
            self.hub.repos[name][value["path"]] = content
        self.hub.commits.append((header["summary"], [entry["value"]["path"] for entry in entries]))
        head = hashlib.sha1(f"{name}{len(self.hub.commits)}".encode()).hexdigest()
        self.hub.heads[name] = head
        address = f"{self.hub.address}/{name}/commit/{head}"
        return self._json({"success": True, "commitOid": head, "commitUrl": address, "hookOutput": ""})

    def _batch(self, wanted: dict[str, Any]) -> None:
        objects = [
            {**item, "actions": {"upload": {"href": f"{self.hub.address}/lfs/{item['oid']}", "header": {}}}}
            for item in wanted["objects"]
        ]
        self._json({"transfer": "basic", "objects": objects})

    def _put_object(self, path: str, body: bytes) -> None:
        oid = path.removeprefix("/lfs/")
        assert hashlib.sha256(body).hexdigest() == oid
        self.hub.objects[oid] = body
        self._json({})

    def _file(self, parts: list[str]) -> None:
        name, path = "/".join(parts[:2]), "/".join(parts[4:])
        content = self.hub.repos.get(name, {}).get(path)
        if content is None:
            return self._json({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
        tag = hashlib.sha1(content).hexdigest()
        return self._raw(content, 200, {"ETag": f'"{tag}"', "X-Repo-Commit": self.hub.heads[name]})

    def _json(self, value: Any, status: int = 200, headers: dict[str, str] | None = None) -> None:
        kind = {"Content-Type": "application/json", **(headers or {})}
        self._raw(json.dumps(value).encode(), status, kind)

    def _raw(self, raw: bytes, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(raw)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(raw)


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Yield a hub that answers on loopback."""
    hub = Hub()
    handler = type("Answer", (_Answer,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
