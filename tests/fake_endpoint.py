"""A real local HTTP server that imitates vLLM's OpenAI endpoint, with faults on a script.

Answers are a function of the prompt, so any number of runs agree. `/v1/completions` (also echo with
log-probabilities, one prompt or several), `/v1/chat/completions`, `/v1/models`, `/health`, `/metrics`.

Usage:

    with FakeEndpoint(answer=lambda prompt: "4", fault=lambda seen: Status(500) if seen.number > 3 else None):
        ...

`fault` is asked for each completion request, in the order of arrival, from number 1; None means a
proper answer. `kill()` drops the listening socket and every connection, `start()` brings it back on the
same port. `python tests/fake_endpoint.py --port 8000` serves until it is stopped.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from fake_faults import (
    Cut,
    Drip,
    EmptyChoices,
    Ended,
    Fault,
    HalfJson,
    Hang,
    NullContent,
    Reset,
    Seen,
    Slow,
    Status,
)

__all__ = [
    "Cut",
    "Drip",
    "EmptyChoices",
    "Ended",
    "FakeEndpoint",
    "Fault",
    "HalfJson",
    "Hang",
    "NullContent",
    "Reset",
    "Seen",
    "Slow",
    "Status",
]


def words(text: str, add_special_tokens: bool = True) -> list[int]:
    """A tokenizer for servers whose tokens nobody looks at: one id a word."""
    return [int.from_bytes(hashlib.sha256(word.encode()).digest()[:3], "big") for word in text.split()]


def number_of(text: str) -> float:
    """A log-probability between -8 and 0 that depends on the whole text."""
    return -8 * int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48


class FakeEndpoint:
    """The server as a context manager; see the module."""

    def __init__(
        self,
        *,
        answer: Callable[[str], str] = lambda prompt: prompt[::-1][:40],
        fault: Callable[[Seen], Fault | None] = lambda seen: None,
        models: tuple[str, ...] = ("tiny",),
        max_model_len: int | None = 4096,
        tokenize: Callable[..., list[int]] = words,
        logprob: Callable[[list[int], int], float] = lambda ids, place: number_of(str(ids[: place + 1])),
        returns_token_ids: bool = True,
        returns_logprobs: bool = True,
        key: str | None = None,
        healthy: bool = True,
    ) -> None:
        self.answer, self.fault, self.models, self.key = answer, fault, models, key
        self.max_model_len, self.tokenize, self.logprob = max_model_len, tokenize, logprob
        self.returns_token_ids, self.returns_logprobs = returns_token_ids, returns_logprobs
        self.healthy = healthy
        self.seen: list[Seen] = []
        self.generated = 0
        self.most_at_once = 0
        self.dead = threading.Event()
        self._at_once = 0
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._port = 0
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1"

    @property
    def n_requests(self) -> int:
        return len(self.seen)

    @property
    def prompts(self) -> list[str]:
        """What was asked, one text a request (chat: the last message)."""
        return [_prompt(seen.body) for seen in self.seen]

    def __enter__(self) -> FakeEndpoint:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Listen; after `kill` on the port of before."""
        self.dead = threading.Event()
        self._server = _Server(("127.0.0.1", self._port), _handler_for(self))
        self._port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self._thread.start()

    def kill(self) -> None:
        """Stop listening and break every open connection, as a killed process does."""
        if self._server is None or self.dead.is_set():
            return
        self.dead.set()
        self._server.shutdown()
        self._server.server_close()
        with self._lock:
            for connection in self._sockets:
                _reset(connection)
            self._sockets.clear()
        assert self._thread is not None
        self._thread.join(5)

    def opened(self, connection: socket.socket) -> None:
        with self._lock:
            self._sockets.add(connection)

    def closed(self, connection: socket.socket) -> None:
        with self._lock:
            self._sockets.discard(connection)

    def note(self, path: str, headers: dict[str, str], body: dict[str, Any]) -> Seen:
        with self._lock:
            seen = Seen(len(self.seen) + 1, path, headers, body)
            self.seen.append(seen)
            return seen

    def busy(self, change: int) -> None:
        with self._lock:
            self._at_once += change
            self.most_at_once = max(self.most_at_once, self._at_once)

    def count(self, n_tokens: int) -> None:
        with self._lock:
            self.generated += n_tokens


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections break on purpose here."""


def _handler_for(server: FakeEndpoint) -> type[BaseHTTPRequestHandler]:  # noqa: C901 - one case a fault
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def setup(self) -> None:
            super().setup()
            server.opened(self.connection)

        def finish(self) -> None:
            server.closed(self.connection)
            with contextlib.suppress(OSError):
                super().finish()

        def log_message(self, format: str, *args: object) -> None:
            """Keep test output clean."""

        def do_GET(self) -> None:
            if self.path == "/health":
                self._send(200 if server.healthy else 503, b"")
            elif self.path == "/metrics":
                self._send(200, f"vllm:generation_tokens_total {float(server.generated)}\n".encode())
            elif self.path == "/v1/models" and self._may():
                entries = [
                    {"id": name, "object": "model", "max_model_len": server.max_model_len}
                    for name in server.models
                ]
                self._json(200, {"object": "list", "data": entries})
            elif self.path != "/v1/models":
                self._error(Status(404, f"no {self.path}"))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", "0"))))
            if not self._may():
                return
            if self.path not in ("/v1/completions", "/v1/chat/completions"):
                self._error(Status(404, f"no {self.path}"))
                return
            seen = server.note(self.path, {k.lower(): v for k, v in self.headers.items()}, body)
            server.busy(1)
            try:
                self._act(seen, server.fault(seen))
            except OSError:
                self.close_connection = True
            finally:
                server.busy(-1)

        def _may(self) -> bool:
            if server.key is None or self.headers.get("Authorization") == f"Bearer {server.key}":
                return True
            self._error(Status(401, f"Incorrect API key provided: {self.headers.get('Authorization')}"))
            return False

        def _act(self, seen: Seen, fault: Fault | None) -> None:
            match fault:
                case Status():
                    self._error(fault)
                case Hang():
                    server.dead.wait()
                    self.close_connection = True
                case Drip():
                    self._headers(200, 1 << 20)
                    while not server.dead.wait(fault.interval_s):
                        self.wfile.write(b" ")
                        self.wfile.flush()
                case Cut():
                    self._headers(200, 5000)
                    self.wfile.write(b'{"choices": [{"index": 0, "te')
                    self.close_connection = True
                case HalfJson():
                    self._send(200, b'{"choices": [{"index": 0, "te')
                case Reset():
                    _reset(self.connection)
                    self.close_connection = True
                case Slow():
                    ends = time.monotonic() + fault.seconds
                    while time.monotonic() < ends and not server.dead.wait(0.02):
                        server.count(1 if fault.generates else 0)
                    self._answer(seen, None)
                case _:
                    self._answer(seen, fault)

        def _answer(self, seen: Seen, fault: Fault | None) -> None:
            body = seen.body
            if body.get("model") not in server.models:
                self._error(Status(404, f"The model `{body.get('model')}` does not exist."))
                return
            texts = _texts(body)
            ids = [server.tokenize(text, bool(body.get("add_special_tokens", True))) for text in texts]
            room, wanted = server.max_model_len, int(body.get("max_tokens") or 0)
            longest = max(map(len, ids))
            if room is not None and longest + wanted > room:
                message = f"This model's maximum context length is {room} tokens. However, you requested "
                self._error(Status(400, message + f"{longest + wanted} tokens."))
                return
            if body.get("echo"):
                document = _scored(server, body, texts, ids)
            else:
                document = _generated(server, seen, texts, ids)
            choice = document["choices"][0]
            if isinstance(fault, EmptyChoices):
                document["choices"] = []
            elif isinstance(fault, NullContent):
                choice["finish_reason"] = fault.finish_reason
                holder, key = (choice["message"], "content") if "message" in choice else (choice, "text")
                holder[key] = None
            elif isinstance(fault, Ended):
                choice["finish_reason"] = fault.finish_reason
            server.count(document["usage"]["completion_tokens"])
            self._json(200, document)

        def _error(self, status: Status) -> None:
            error = {"message": status.message, "type": "x", "param": None, "code": status.code}
            self._json(status.code, {"error": error}, status.headers)

        def _json(self, code: int, document: dict[str, Any], headers: dict[str, str] | None = None) -> None:
            self._send(code, json.dumps(document).encode(), headers)

        def _headers(self, code: int, length: int, headers: dict[str, str] | None = None) -> None:
            self.send_response(code)
            for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(length))
            self.end_headers()

        def _send(self, code: int, raw: bytes, headers: dict[str, str] | None = None) -> None:
            self._headers(code, len(raw), headers)
            self.wfile.write(raw)

    return Handler


def _texts(body: dict[str, Any]) -> list[str]:
    prompt = body.get("prompt", body.get("messages"))
    if isinstance(prompt, str):
        return [prompt]
    if isinstance(prompt[0], dict):
        return ["".join(f"<{turn['role']}>{turn['content']}" for turn in prompt)]
    return list(prompt)


def _prompt(body: dict[str, Any]) -> str:
    messages = body.get("messages")
    return messages[-1]["content"] if messages else _texts(body)[0]


def _generated(server: FakeEndpoint, seen: Seen, texts: list[str], ids: list[list[int]]) -> dict[str, Any]:
    body = seen.body
    text = server.answer(_prompt(body))
    if body.get("temperature"):
        text += f" #{body.get('seed')}"
    pieces = text.split(" ")
    limit = int(body.get("max_tokens") or 16)
    finish_reason = "length" if len(pieces) > limit else "stop"
    choice: dict[str, Any] = {"index": 0, "finish_reason": finish_reason, "logprobs": None}
    cut = " ".join(pieces[:limit])
    if seen.path == "/v1/chat/completions":
        choice["message"] = {"role": "assistant", "content": cut}
    else:
        choice["text"] = cut
    return _document(body, [choice], len(ids[0]), min(len(pieces), limit))


def _scored(
    server: FakeEndpoint, body: dict[str, Any], texts: list[str], ids: list[list[int]]
) -> dict[str, Any]:
    choices: list[dict[str, Any]] = []
    n_new = int(body["max_tokens"])
    for index, (text, own) in enumerate(zip(texts, ids, strict=True)):
        whole = [*own, *([7] * n_new)]
        values = [None, *(server.logprob(whole, place) for place in range(1, len(whole)))]
        tops = [
            None if value is None else {f"t{token}": value, "best": max(value, -4.0)}
            for value, token in zip(values, whole, strict=True)
        ]
        logprobs = {"token_logprobs": values, "top_logprobs": tops, "tokens": [f"t{t}" for t in whole]}
        choice = {"index": index, "text": text + "!" * n_new, "finish_reason": "length"}
        choice["logprobs"] = logprobs if server.returns_logprobs else None
        if server.returns_token_ids and body.get("return_token_ids"):
            choice["prompt_token_ids"] = own
        choices.append(choice)
    return _document(body, choices[::-1], sum(map(len, ids)), n_new * len(ids))


def _document(body: dict[str, Any], choices: list[dict[str, Any]], n_in: int, n_out: int) -> dict[str, Any]:
    usage = {"prompt_tokens": n_in, "completion_tokens": n_out, "total_tokens": n_in + n_out}
    return {
        "id": "x-1",
        "object": "x",
        "created": 1,
        "model": body["model"],
        "choices": choices,
        "usage": usage,
    }


def _reset(connection: socket.socket) -> None:
    """Close so that the other side sees a reset."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RD)
    with contextlib.suppress(OSError):
        connection.close()


if __name__ == "__main__":
    import argparse

    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--model", default="tiny")
    options = parser.parse_args()
    endpoint = FakeEndpoint(models=(options.model,))
    endpoint._port = options.port
    with endpoint:
        print(endpoint.base_url, flush=True)
        threading.Event().wait()
