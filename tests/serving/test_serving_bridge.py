"""The way from a loopback port to a unix socket, with a real server on that socket."""

from __future__ import annotations

import http.client
import os
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer

import pytest

from rdagent_ft.evaluation.serving.bridge import Bridge
from rdagent_ft.evaluation.serving.failures import ServerError
from rdagent_ft.evaluation.serving.unix_http import request


class Echo(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        return

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        """An answer that ends with its connection."""
        self.send_response(200)
        self.end_headers()
        self.wfile.write(self.path.encode())
        self.close_connection = True


class Server(ThreadingMixIn, UnixStreamServer):
    daemon_threads = True


@pytest.fixture
def listening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A server whose socket has a path far longer than an address may be."""
    folder = tmp_path / ("deep" * 30)
    folder.mkdir()
    monkeypatch.chdir(folder)
    server = Server("s.sock", Echo)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield folder / "s.sock"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def bridge(listening: Path) -> Iterator[Bridge]:
    found = Bridge(listening)
    yield found
    found.close()


def post(port: int, body: bytes) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("POST", "/", body)
        return connection.getresponse().read()
    finally:
        connection.close()


def test_a_long_path_is_reached_directly(listening: Path) -> None:
    assert len(str(listening)) > 107
    assert request(listening, "POST", "/", {"a": 1}, timeout_s=10).json() == {"a": 1}


def test_large_bodies_come_through_whole(bridge: Bridge) -> None:
    body = os.urandom(3 << 20)
    assert post(bridge.port, body) == body


def test_one_connection_carries_several_requests(bridge: Bridge) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", bridge.port, timeout=30)
    for number in range(5):
        connection.request("POST", "/", f"{number}")
        assert connection.getresponse().read() == f"{number}".encode()
    connection.close()


def test_an_answer_that_ends_with_its_connection_ends(bridge: Bridge) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", bridge.port, timeout=30)
    connection.request("GET", "/until-closed")
    assert connection.getresponse().read() == b"/until-closed"
    connection.close()


def test_many_clients_at_once(bridge: Bridge) -> None:
    answers: list[bytes] = []
    threads = [
        threading.Thread(target=lambda n=n: answers.append(post(bridge.port, b"%d" % n))) for n in range(40)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == sorted(b"%d" % n for n in range(40))


def test_without_a_server_clients_get_a_connection_error(tmp_path: Path) -> None:
    bridge = Bridge(tmp_path / "nothing.sock")
    with pytest.raises((ConnectionError, http.client.BadStatusLine)):
        post(bridge.port, b"x")
    bridge.close()


def test_the_same_port_leads_to_the_next_server(bridge: Bridge, listening: Path) -> None:
    bridge.retarget(listening.with_name("gone.sock"))
    with pytest.raises((ConnectionError, http.client.BadStatusLine)):
        post(bridge.port, b"x")
    bridge.retarget(listening)
    assert post(bridge.port, b"back") == b"back"


def test_closing_ends_open_connections_and_the_port(listening: Path) -> None:
    bridge = Bridge(listening)
    with socket.create_connection(("127.0.0.1", bridge.port), timeout=30) as idle:
        idle.sendall(b"POST / HTTP/1.1\r\n")
        post(bridge.port, b"the other one was accepted before this")
        bridge.close()
        assert idle.recv(10) == b""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", bridge.port), timeout=30).close()
    assert not [thread for thread in threading.enumerate() if thread.name == "bridge"]


def test_what_lies_in_the_sockets_place_is_not_followed(tmp_path: Path, listening: Path) -> None:
    (tmp_path / "link.sock").symlink_to(listening)
    (tmp_path / "file.sock").write_text("no socket")
    for name in ("link.sock", "file.sock", "missing.sock"):
        with pytest.raises(ServerError) as caught:
            request(tmp_path / name, "GET", "/", timeout_s=5)
        assert caught.value.kind == "away"
