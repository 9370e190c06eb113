"""The litellm adapter against the same server. Its own import is slow, so the cases share a file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from fake_openai import FakeOpenAI, Hang, Reply, Status, Step

from rdagent_ft.errors import LlmError
from rdagent_ft.llm.build import build_client
from rdagent_ft.llm.memory_ledger import MemoryLedger
from rdagent_ft.llm.port import LlmMessage
from rdagent_ft.settings import Settings
from rdagent_ft.values import Frozen

pytest.importorskip("litellm", reason="the extra `litellm` is not installed")

KEY = "sk-very-secret-0123456789"
ASK = (LlmMessage(role="user", content="Say a number."),)
GOOD = Reply('{"n": 7}', input_tokens=321, output_tokens=12)


class Number(Frozen):
    n: int


def _settings(server: FakeOpenAI, **values: float) -> Settings:
    return Settings.model_validate(
        {
            "planner_model": "openai/test-model",
            "llm_backend": "litellm",
            "llm_api_base": server.base_url,
            "llm_api_key": KEY,
            "llm_timeout": 2.0,
            "llm_max_wait": 0.2,
            **values,
        }
    )


def _ask(server: FakeOpenAI, ledger: MemoryLedger, **values: float) -> int:
    client = build_client(_settings(server, **values), ledger, lambda _: None)
    return client.complete("propose", ASK, Number, salt="1")[0].n


def test_good_reply_through_litellm() -> None:
    ledger = MemoryLedger()
    with FakeOpenAI(GOOD) as server:
        assert _ask(server, ledger) == 7
    assert ledger.entries[0].usage.input_tokens == server.input_tokens == 321
    assert server.requests[0].body["model"] == "test-model"


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("step", "kind", "n_requests"),
    [
        (Status(401, f"bad key {KEY}"), "auth", 1),
        (Status(404, "no such model"), "bad_request", 1),
        (Status(429, "no credit", "insufficient_quota"), "quota", 1),
        (Status(429, "slow down", headers={"Retry-After": "120"}), "rate_limit", 1),
    ],
)
def test_failures_have_the_same_kinds(step: Step, kind: str, n_requests: int) -> None:
    with FakeOpenAI(step) as server, pytest.raises(LlmError) as caught:
        _ask(server, MemoryLedger())
    assert caught.value.kind == kind
    assert KEY not in caught.value.render()
    assert server.n_requests == n_requests


@pytest.mark.timeout(60)
def test_a_hang_ends_at_the_deadline() -> None:
    with FakeOpenAI(Hang()) as server, pytest.raises(LlmError) as caught:
        _ask(server, MemoryLedger(), llm_timeout=0.5, llm_max_wait=0.0)
    assert caught.value.kind == "timeout"
    assert server.n_requests == 1


def test_server_errors_are_retried_by_us_only() -> None:
    ledger = MemoryLedger()
    with FakeOpenAI(Status(500), GOOD) as server:
        assert _ask(server, ledger) == 7
    assert server.n_requests == 2
    assert len(ledger.entries) == 2


def test_a_dotenv_file_does_not_reach_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("FT_TEST_LEAKED=1\n")
    with FakeOpenAI(GOOD) as server:
        _ask(server, MemoryLedger())
    assert "FT_TEST_LEAKED" not in os.environ
