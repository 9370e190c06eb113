"""An engine behind ssh, as a socket of this machine: `DOCKER_HOST=ssh://[user@]host[:port]`.

Each connection to the socket is one `ssh HOST docker system dial-stdio`, as the docker command itself
does it, with the user's own ssh configuration and agent. The SDK's ssh needs paramiko, starts an ssh
for every call and knows no timeouts; behind a socket its HTTP connections are reused. A key that asks
for its passphrase is not supported: nobody is there to type it.
"""

from __future__ import annotations

import contextlib
import shlex
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

from rdagent_ft.errors import PreflightError

CONNECT_TIMEOUT_S = 20
END_WITHIN_S = 2.0


class SshBridge:
    """A listening socket in a folder that only we can enter."""

    def __init__(self, url: str) -> None:
        self._argv = ssh_command(url)
        self._folder = tempfile.TemporaryDirectory(prefix="rdagent-ft-ssh-")
        self.socket_path = Path(self._folder.name) / "engine.sock"
        self._errors = (Path(self._folder.name) / "errors.txt").open("w+b")
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self.socket_path))
        self._listener.listen(64)
        self._children: list[subprocess.Popen[bytes]] = []
        self._thread = threading.Thread(target=self._serve, name=f"ssh to {url}", daemon=True)
        self._thread.start()

    def complaint(self) -> str:
        """Return the last line that an ssh printed; "" when there is none."""
        self._errors.seek(0)
        lines = self._errors.read(1 << 16).decode("utf-8", "replace").split("\n")
        return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")

    def close(self) -> None:
        """End all connections."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._listener.close()
        for child in self._children:
            child.terminate()
        give_up_at = time.monotonic() + END_WITHIN_S
        for child in self._children:
            try:
                child.wait(max(0.0, give_up_at - time.monotonic()))
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        self._errors.close()
        self._folder.cleanup()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._children = [child for child in self._children if child.poll() is None]
            # ssh reads and writes the connection itself; a session of its own keeps Ctrl-C away from it.
            with connection, contextlib.suppress(OSError):
                end = connection.fileno()
                self._children.append(
                    subprocess.Popen(
                        self._argv, stdin=end, stdout=end, stderr=self._errors, start_new_session=True
                    )
                )  # fmt: skip


def ssh_command(url: str) -> list[str]:
    """Return the command that connects to the engine of an ssh address. Raises `PreflightError`."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port, parts = None, None, urlsplit("ssh:")
    if not host or parts.password is not None or parts.query or parts.fragment:
        raise PreflightError(
            f"DOCKER_HOST={url.split('@')[-1]} is no address of an engine", hint="ssh://[user@]host[:port]"
        )
    argv = ["ssh", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_TIMEOUT_S}"]
    argv += ["-o", "ServerAliveInterval=15"]
    argv += ["-l", parts.username] if parts.username else []
    argv += ["-p", str(port)] if port else []
    other_socket = f"--host {shlex.quote('unix://' + parts.path)} " if parts.path.strip("/") else ""
    return [*argv, "--", host, f"docker {other_socket}system dial-stdio"]
