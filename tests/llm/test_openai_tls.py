"""TLS contexts of the adapter: loaded once, lent to one exchange at a time, and still checking."""

from __future__ import annotations

import shutil
import ssl
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from fake_openai import FakeOpenAI, Held, Reply, Status
from pydantic import SecretStr

from rdagent_ft.llm import openai_client
from rdagent_ft.llm.endpoint import Endpoint
from rdagent_ft.llm.openai_client import OpenAiTransport
from rdagent_ft.llm.port import LlmMessage
from rdagent_ft.llm.transport import ReplyFormat, TransportError

GOOD = Reply("hello")
PLAIN = ReplyFormat(mode="none", name="", json_schema={})


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The contexts that were loaded so far."""
    made: list[Any] = []
    load = openai_client._new_tls

    def counted(trusts_env: bool) -> Any:
        made.append(load(trusts_env))
        return made[-1]

    monkeypatch.setattr(openai_client, "_new_tls", counted)
    return made


def transport(base_url: str) -> OpenAiTransport:
    return OpenAiTransport(
        Endpoint(backend="openai", model="m", base_url=base_url, api_key=SecretStr("key-1234567890"))
    )


def send(asked: OpenAiTransport, timeout_s: float = 20.0) -> str:
    return asked.send((LlmMessage(role="user", content="x"),), PLAIN, 10, timeout_s).text or ""


def test_calls_in_a_row_load_certificates_once(loaded: list[Any]) -> None:
    with FakeOpenAI(GOOD, Status(503), GOOD) as server:
        asked = transport(server.base_url)
        assert send(asked) == "hello"
        with pytest.raises(TransportError):
            send(asked)
        assert send(asked) == "hello"
    assert len(loaded) == 1
    assert loaded[0].verify_mode is ssl.CERT_REQUIRED
    assert loaded[0].check_hostname


def test_calls_at_once_have_a_context_each(loaded: list[Any]) -> None:
    release = threading.Event()
    all_there = threading.Barrier(4, action=release.set)

    def held(_: dict[str, Any]) -> Held:
        all_there.wait(20)
        return Held(release, GOOD)

    with FakeOpenAI(held) as server, ThreadPoolExecutor(4) as pool:
        asked = transport(server.base_url)
        assert list(pool.map(lambda _: send(asked), range(4))) == ["hello"] * 4
    assert len({id(context) for context in loaded}) == 4


def test_the_environments_proxy_is_for_other_machines_only(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeOpenAI(GOOD) as proxy, FakeOpenAI(GOOD) as server:
        monkeypatch.setenv("HTTP_PROXY", proxy.base_url.removesuffix("/v1"))
        assert send(transport(server.base_url)) == "hello"
        assert proxy.all_requests == []
        with pytest.raises(TransportError, match="404"):  # the server answers no absolute addresses
            send(transport("http://gateway.invalid/v1"))
        (request,) = [asked for asked in proxy.all_requests if "gateway.invalid" in asked.path]
        assert request.path == "http://gateway.invalid/v1/chat/completions"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_an_unknown_certificate_is_refused_every_time(tmp_path: Path, loaded: list[Any]) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subprocess.run(
        ("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(certificate)),
        check=True, capture_output=True,
    )  # fmt: skip
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(certificate, key)
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    server.socket = served.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    try:
        asked = transport(f"https://127.0.0.1:{server.server_address[1]}/v1")
        for _ in range(2):
            with pytest.raises(TransportError, match="certificate") as refused:
                send(asked)
            assert refused.value.kind == "connection"
            assert refused.value.is_free
    finally:
        server.shutdown()
        server.server_close()
    assert len(loaded) == 1
