"""The hub path against a real HTTP server on loopback that speaks the hub's protocol.

In a subprocess, because huggingface_hub reads its endpoint and offline switch once, at import.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

COMMIT = "a" * 40
ROWS = b'{"prompt": "p", "completion": "c"}\n'
DATASET = {
    "README.md": b"# x",
    "main/train-0.jsonl": ROWS,
    "main/test-0.jsonl": ROWS,
    "hard/train-0.jsonl": ROWS * 2,
    "script.py": b"boom",
}
CARD = {
    "configs": [
        {"config_name": name, "data_files": [{"split": "train", "path": f"{name}/train-*"}]}
        for name in ("main", "hard")
    ]
}


class FakeHub(BaseHTTPRequestHandler):
    """Serves one dataset, one model, one gated and one broken repository; records what was asked."""

    repos: dict[str, dict[str, bytes]]
    asked: list[str]

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        self.asked.append(f"{self.command} {self.path}")
        kind, name, rest = self._parts()
        files = self.repos.get(f"{kind}/{name}")
        if name == "acme/broken":
            self._send(500, b"{}", body)
        elif name == "acme/gated":
            self._send(403, b"{}", body, {"X-Error-Code": "GatedRepo"})
        elif files is None:
            self._send(404, b"{}", body, {"X-Error-Code": "RepoNotFound"})
        elif rest is None:
            siblings = [{"rfilename": path, "size": len(raw)} for path, raw in files.items()]
            info: dict[str, Any] = {"id": name, "sha": COMMIT, "siblings": siblings, "tags": []}
            if kind == "datasets":
                info["cardData"] = CARD
            self._send(200, json.dumps(info).encode(), body)
        elif rest == "tree":
            tree = [
                {"type": "file", "path": path, "size": len(raw), "oid": "0"} for path, raw in files.items()
            ]
            self._send(200, json.dumps(tree).encode(), body)
        elif rest in files:
            raw = files[rest]
            self._send(
                200, raw, body, {"ETag": f'"{hashlib.sha1(raw).hexdigest()}"', "X-Repo-Commit": COMMIT}
            )
        else:
            self._send(404, b"{}", body, {"X-Error-Code": "EntryNotFound"})

    def _parts(self) -> tuple[str, str, str | None]:
        parts = self.path.split("?")[0].strip("/").split("/")
        if parts[0] == "api":
            tail = parts[4:]
            if tail[:1] == ["tree"]:
                return parts[1], "/".join(parts[2:4]), "tree"
            return parts[1], "/".join(parts[2:4]), None
        if parts[0] == "datasets":
            return "datasets", "/".join(parts[1:3]), "/".join(parts[5:])
        return "models", "/".join(parts[:2]), "/".join(parts[4:])

    def _send(self, status: int, raw: bytes, body: bool, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(raw)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(raw)

    def log_message(self, format: str, *args: Any) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def hub() -> Iterator[type[FakeHub]]:
    """A running hub; yields its handler class, with `port` set."""
    handler = type("Hub", (FakeHub,), {"repos": {"datasets/acme/tickets": DATASET}, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    handler.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield handler
    server.shutdown()
    server.server_close()
    thread.join()


SCRIPT = """
import json, sys
from pathlib import Path
from rdagent_ft.data.models import resolve_model
from rdagent_ft.data.resolve import resolve_dataset
from rdagent_ft.errors import RdagentFtError
kind, name, file_path = sys.argv[1:]
try:
    if kind == "dataset":
        found = resolve_dataset(name, Path(file_path))
    else:
        found = resolve_model(name, Path(file_path), memory_gib=8, device="cpu", gpu_memory_gib=None)
except RdagentFtError as error:
    print(json.dumps({"error": error.render(), "exit_code": error.exit_code}))
else:
    print(found.model_dump_json())
"""


def resolve(hub: type[FakeHub], kind: str, name: str, file_path: Path, **env: str) -> dict[str, Any]:
    port = env.pop("port", str(hub.port))  # type: ignore[attr-defined]
    environment = {
        **{key: value for key, value in os.environ.items() if "proxy" not in key.lower()},
        "HF_ENDPOINT": f"http://127.0.0.1:{port}",
        "HF_HUB_OFFLINE": "0",
        "HF_HOME": str(file_path / "hf"),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        **env,
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, kind, name, str(file_path)],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_subset_is_downloaded_pinned_and_used_offline_afterwards(
    hub: type[FakeHub], tmp_path: Path
) -> None:
    found = resolve(hub, "dataset", "acme/tickets:hard", tmp_path)
    assert (found.get("kind"), found.get("revision")) == ("hub", COMMIT), found
    target = tmp_path / "datasets" / "acme" / "tickets__hard"
    assert [ref["path"] for ref in found["files"]] == [str(target / "hard" / "train-0.jsonl")]
    manifest = json.loads((target / "manifest.json").read_text())
    assert manifest["files"] == {"hard/train-0.jsonl": hashlib.sha256(ROWS * 2).hexdigest()}
    assert sorted(item.name for item in target.iterdir()) == ["hard", "manifest.json"]
    assert [item.name for item in target.parent.iterdir()] == [target.name]
    assert not any("script.py" in asked or "test-0" in asked for asked in hub.asked)
    n_asked = len(hub.asked)
    assert resolve(hub, "dataset", "acme/tickets:hard", tmp_path, HF_HUB_OFFLINE="1") == found
    assert len(hub.asked) == n_asked


def test_subsets_are_listed_when_none_is_named(hub: type[FakeHub], tmp_path: Path) -> None:
    found = resolve(hub, "dataset", "acme/tickets", tmp_path)
    assert found["exit_code"] == 2
    assert "has several subsets: main, hard" in found["error"]
    assert not (tmp_path / "datasets").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("acme/nothing", "neither on this machine nor on the hub"),
        ("acme/gated", "accept its licence at https://huggingface.co/datasets/acme/gated"),
        ("acme/broken", "the hub cannot be reached"),
    ],
)
def test_what_the_hub_refuses_is_one_clear_message(
    hub: type[FakeHub], tmp_path: Path, name: str, message: str
) -> None:
    found = resolve(hub, "dataset", name, tmp_path)
    assert message in found["error"]
    assert found["exit_code"] == 2


def test_an_unreachable_hub_says_so_and_suggests(hub: type[FakeHub], tmp_path: Path) -> None:
    (tmp_path / "datasets" / "acme" / "tickets-old").mkdir(parents=True)
    found = resolve(hub, "dataset", "acme/tickets", tmp_path, port="9")
    assert "the hub cannot be reached" in found["error"]
    assert "acme/tickets-old" in found["error"]


def test_a_model_is_downloaded_without_its_pickles(
    hub: type[FakeHub], tmp_path: Path, model_folder: Any
) -> None:
    local = model_folder(tmp_path / "original", n_params=60)
    files = {path.name: path.read_bytes() for path in local.iterdir()}
    extra = {"pytorch_model.bin": b"x", "original/model.safetensors": b"x", "modeling.py": b"x"}
    hub.repos = {"models/acme/tiny": {**files, **extra}, "models/acme/pickled": {"config.json": b"{}"}}
    found = resolve(hub, "model", "acme/tiny", tmp_path)
    target = tmp_path / "models" / "acme" / "tiny"
    assert (found.get("path"), found.get("revision")) == (str(target), COMMIT), found
    assert found["n_params"] == 60
    assert {path.name for path in target.iterdir()} == {*files, "manifest.json"}
    assert "no safetensors weights" in resolve(hub, "model", "acme/pickled", tmp_path)["error"]
