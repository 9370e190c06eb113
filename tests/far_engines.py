"""Ways to the engine of the tests that look like ways to a remote one."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from pathlib import Path
from urllib.parse import urlsplit

FAKE_SSH = """#!/bin/sh
echo "$@" >> "{seen}"
unset DOCKER_HOST DOCKER_CONTEXT
exec docker --host {engine} system dial-stdio
"""


def local_socket() -> str:
    """The path of the engine's unix socket."""
    path = urlsplit(os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")).path
    assert Path(path).is_socket(), "these tests need the engine's unix socket"
    return path


class TcpForwarder:
    """A TCP port of this machine that leads to a unix socket; `url` is its DOCKER_HOST."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"tcp://127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._serve)]
        self._threads[0].start()

    def close(self) -> None:
        """Refuse new connections and cut those that are open."""
        if self._listener.fileno() < 0:
            return
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._listener.close()
        self.cut()
        for thread in self._threads:
            thread.join()

    def cut(self) -> None:
        """Cut the open connections, as a network does."""
        for end in list(self._open):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _serve(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self._threads.append(threading.Thread(target=self._relay, args=(near,)))
            self._threads[-1].start()

    def _relay(self, near: socket.socket) -> None:
        with near, socket.socket(socket.AF_UNIX) as far:
            far.connect(self._path)
            ends = {near, far}
            self._open |= ends
            back = threading.Thread(target=_pump, args=(far, near))
            back.start()
            _pump(near, far)
            back.join()
            self._open -= ends


def _pump(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(1 << 18):
            target.sendall(piece)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def put_fake_ssh(folder: Path) -> Path:
    """Put an `ssh` into a folder that leads to this machine's engine; return the file of its arguments."""
    seen = folder / "ssh-arguments.txt"
    ssh = folder / "ssh"
    ssh.write_text(FAKE_SSH.format(seen=seen, engine=f"unix://{local_socket()}"))
    ssh.chmod(0o755)
    return seen
