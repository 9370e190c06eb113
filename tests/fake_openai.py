"""A real local HTTP server that speaks the OpenAI chat protocol from a script, with faults.

Usage:

    with FakeOpenAI(Reply('{"a": 1}'), Status(500), Hang()) as server:
        ... FT_LLM_API_BASE = server.base_url ...
    assert server.n_requests == 3

Steps are served in order; the last one repeats. A step may be a function of the request body, for
answers that depend on the prompt.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Reply:
    """A completed answer; `content` None is what a model that only reasoned sends."""

    content: str | None
    finish_reason: str = "stop"
    refusal: str | None = None
    input_tokens: int = 100
    output_tokens: int = 20
    has_usage: bool = True


@dataclass(frozen=True)
class Status:
    """An HTTP error with the protocol's error document."""

    code: int
    message: str = "the fake server was told to fail"
    error_code: str | None = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Html:
    """200 with a page, as gateways and captive portals send."""

    text: str = "<html><body>Welcome to the hotel network</body></html>"


@dataclass(frozen=True)
class Hang:
    """Read the request and say nothing until the server closes."""


@dataclass(frozen=True)
class Drip:
    """Send headers, then one space every `interval_s` until the server closes."""

    interval_s: float = 0.05


@dataclass(frozen=True)
class Cut:
    """Promise a long body, send a part of it, close the connection."""


@dataclass(frozen=True)
class Held:
    """Wait for `release`, then answer with `reply`."""

    release: threading.Event
    reply: Reply


Behaviour = Reply | Status | Html | Hang | Drip | Cut | Held
Step = Behaviour | Callable[[dict[str, Any]], Behaviour]


@dataclass(frozen=True)
class Request:
    """One request as the server saw it; header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: dict[str, Any]


class FakeOpenAI:
    """The server as a context manager. `requests` and the token sums count completions only."""

    def __init__(self, *steps: Step, models: tuple[str, ...] = ("test-model",)) -> None:
        self._steps = steps or (Reply("{}"),)
        self._lock = threading.Lock()
        self.models = models
        self.closing = threading.Event()
        self.requests: list[Request] = []
        self.all_requests: list[Request] = []
        self.input_tokens = 0
        self.output_tokens = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_for(self))
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    @property
    def n_requests(self) -> int:
        return len(self.requests)

    def __enter__(self) -> FakeOpenAI:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def next_behaviour(self, request: Request) -> Behaviour:
        with self._lock:
            self.requests.append(request)
            step = self._steps[min(len(self.requests), len(self._steps)) - 1]
        return step(request.body) if callable(step) else step

    def saw(self, request: Request) -> None:
        with self._lock:
            self.all_requests.append(request)

    def count(self, reply: Reply) -> None:
        with self._lock:
            self.input_tokens += reply.input_tokens
            self.output_tokens += reply.output_tokens


def completion(reply: Reply, model: str) -> dict[str, Any]:
    """Return the protocol's document for a reply."""
    document: dict[str, Any] = {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": model,
        "choices": [
            {
                "index": 0,
                "finish_reason": reply.finish_reason,
                "message": {"role": "assistant", "content": reply.content, "refusal": reply.refusal},
            }
        ],
    }
    if reply.has_usage:
        document["usage"] = {
            "prompt_tokens": reply.input_tokens,
            "completion_tokens": reply.output_tokens,
            "total_tokens": reply.input_tokens + reply.output_tokens,
        }
    return document


def _handler_for(server: FakeOpenAI) -> type[BaseHTTPRequestHandler]:  # noqa: C901 - one case a behaviour
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            """Keep test output clean."""

        def do_GET(self) -> None:
            request = Request("GET", self.path, {k.lower(): v for k, v in self.headers.items()}, {})
            server.saw(request)
            if self.path == "/v1/models" and server.models:
                entries = [
                    {"id": name, "object": "model", "created": 1, "owned_by": "x"} for name in server.models
                ]
                self._send_json(200, {"object": "list", "data": entries})
            else:
                self._send_json(404, {"error": {"message": f"no {self.path}", "code": None}})

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length", "0")))
            request = Request(
                "POST", self.path, {k.lower(): v for k, v in self.headers.items()}, json.loads(raw)
            )
            server.saw(request)
            if self.path != "/v1/chat/completions":
                self._send_json(404, {"error": {"message": f"no {self.path}", "code": None}})
                return
            try:
                self._act(server.next_behaviour(request), str(request.body.get("model")))
            except (BrokenPipeError, ConnectionResetError):
                self.close_connection = True

        def _act(self, behaviour: Behaviour, model: str) -> None:
            match behaviour:
                case Held():
                    behaviour.release.wait(30)
                    self._act(behaviour.reply, model)
                case Reply():
                    server.count(behaviour)
                    self._send_json(200, completion(behaviour, model))
                case Status():
                    error = {"message": behaviour.message, "type": "fake", "code": behaviour.error_code}
                    self._send_json(behaviour.code, {"error": error}, behaviour.headers)
                case Html():
                    self._send(200, "text/html", behaviour.text.encode())
                case Hang():
                    server.closing.wait(60)
                    self.close_connection = True
                case Drip():
                    self._start(200, "application/json", 1_000_000)
                    while not server.closing.wait(behaviour.interval_s):
                        self.wfile.write(b" ")
                        self.wfile.flush()
                    self.close_connection = True
                case Cut():
                    self._start(200, "application/json", 10_000)
                    self.wfile.write(b'{"choices": [{"index"')
                    self.wfile.flush()
                    self.close_connection = True

        def _send_json(self, code: int, document: Any, headers: dict[str, str] | None = None) -> None:
            self._send(code, "application/json", json.dumps(document).encode(), headers)

        def _send(self, code: int, kind: str, body: bytes, headers: dict[str, str] | None = None) -> None:
            self._start(code, kind, len(body), headers)
            self.wfile.write(body)

        def _start(self, code: int, kind: str, n_bytes: int, headers: dict[str, str] | None = None) -> None:
            self.send_response(code)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(n_bytes))
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.end_headers()

    return Handler
