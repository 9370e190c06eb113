"""A loopback TCP port that leads to a unix socket, so that any HTTP client reaches a server without network.

Bytes are passed on as they are. The port is on 127.0.0.1 only, but it has no password: any user of this
machine can ask the server while it is open.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Generator
from pathlib import Path

from rdagent_ft.evaluation.serving.unix_http import connect_unix

MAX_CONNECTIONS = 512
CONNECT_TIMEOUT_S = 10.0
_PIECE_BYTES = 1 << 16


class Bridge:
    """An open port. The target may change while it is open: a restarted server keeps its URL.

    A connection that finds no server is closed at once, which HTTP clients report as a connection
    error. Close it when done.
    """

    def __init__(self, target: Path) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = int(self._listener.getsockname()[1])
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._closed = False
        self._acceptor = threading.Thread(target=self._accept, name="bridge", daemon=True)
        self._acceptor.start()

    def retarget(self, target: Path) -> None:
        """Lead new connections to another socket."""
        self._target = target

    def close(self) -> None:
        """Close the port and all connections; idempotent."""
        self._closed = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits in accept
        self._acceptor.join(5)
        self._listener.close()
        with self._lock:
            for connection in self._open:
                _shut(connection, socket.SHUT_RDWR)

    def _accept(self) -> None:
        while not self._closed:
            if not self._free.acquire(timeout=0.5):
                continue
            try:
                client, _ = self._listener.accept()
            except OSError:
                self._free.release()
                return
            threading.Thread(target=self._serve, args=(client,), name="bridge-client", daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        try:
            with client:
                try:
                    server = connect_unix(self._target, CONNECT_TIMEOUT_S)
                except OSError:
                    return
                with server, self._tracked(client, server):
                    for end in (client, server):
                        end.settimeout(None)
                    back = threading.Thread(target=_pump, args=(server, client), daemon=True)
                    back.start()
                    _pump(client, server, is_half=True)
                    back.join()
        finally:
            self._free.release()

    @contextlib.contextmanager
    def _tracked(self, *ends: socket.socket) -> Generator[None]:
        with self._lock:
            self._open.update(ends)
            if self._closed:
                for end in ends:
                    _shut(end, socket.SHUT_RDWR)
        try:
            yield
        finally:
            with self._lock:
                self._open.difference_update(ends)


def _pump(source: socket.socket, sink: socket.socket, *, is_half: bool = False) -> None:
    """Pass bytes on until `source` ends. A server that ends has answered: that ends both directions."""
    try:
        while piece := source.recv(_PIECE_BYTES):
            sink.sendall(piece)
    except OSError:
        is_half = False
    _shut(sink, socket.SHUT_WR)
    if not is_half:
        _shut(sink, socket.SHUT_RD)
        _shut(source, socket.SHUT_RDWR)


def _shut(end: socket.socket, how: int) -> None:
    with contextlib.suppress(OSError):
        end.shutdown(how)
