"""HTTP to a server that listens on a unix socket in a job's folder, by the standard library.

The folder is the job's, so the socket is opened without following a link and checked to be one. A
path of any length works: the kernel limits a socket's address to 107 bytes, and the descriptor's name
under /proc is short.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import stat
import time
from pathlib import Path
from typing import Any, NamedTuple

from rdagent_ft.evaluation.serving.failures import ServerError

MAX_ANSWER_BYTES = 64 << 20


class Reply(NamedTuple):
    """One answer of the server."""

    status: int
    body: bytes

    def json(self) -> Any:
        """Return the body as JSON; NaN is parsed, because a broken model answers with it."""
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError):
            raise ServerError("the server's answer is not JSON", kind="away") from None

    def text(self, n_chars: int = 400) -> str:
        """Return the beginning of the body for people."""
        return self.body[: n_chars * 4].decode("utf-8", "replace")[:n_chars]


def connect_unix(path: Path, timeout_s: float | None) -> socket.socket:
    """Return a connected socket. Raises `OSError` when nothing listens there or it is no socket."""
    descriptor = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not stat.S_ISSOCK(os.fstat(descriptor).st_mode):
            raise ConnectionRefusedError(f"{path} is not a socket")
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.settimeout(timeout_s)
            _connect(connection, f"/proc/self/fd/{descriptor}", timeout_s)
        except OSError:
            connection.close()
            raise
        return connection
    finally:
        os.close(descriptor)


def _connect(connection: socket.socket, address: str, timeout_s: float | None) -> None:
    """Connect, waiting while the server's queue is full: for a unix socket that is an error at once."""
    give_up_at = None if timeout_s is None else time.monotonic() + timeout_s
    while True:
        try:
            connection.connect(address)
        except BlockingIOError:
            if give_up_at is not None and time.monotonic() >= give_up_at:
                raise
            time.sleep(0.01)
        else:
            return


def request(path: Path, method: str, target: str, body: Any = None, *, timeout_s: float) -> Reply:
    """Send one request and return the answer, whatever its status.

    Args:
        path: the socket.
        target: path of the URL, e.g. `/v1/models`.
        body: sent as JSON; None sends none.
        timeout_s: for connecting and for each piece of the answer.

    Raises `ServerError` of the kind `away` when no whole answer comes.
    """
    connection = http.client.HTTPConnection("localhost", timeout=timeout_s)
    try:
        connection.sock = connect_unix(path, timeout_s)
        headers = {"Connection": "close"}
        payload = None
        if body is not None:
            payload = json.dumps(body).encode()
            headers["Content-Type"] = "application/json"
        connection.request(method, target, body=payload, headers=headers)
        answer = connection.getresponse()
        content = answer.read(MAX_ANSWER_BYTES + 1)
        answer.close()
    except (OSError, http.client.HTTPException) as error:
        raise ServerError(f"no answer to {method} {target}: {error!r:.200}", kind="away") from error
    finally:
        connection.close()
    if len(content) > MAX_ANSWER_BYTES:
        raise ServerError(f"the answer to {target} is larger than {MAX_ANSWER_BYTES} bytes", kind="away")
    return Reply(answer.status, content)
