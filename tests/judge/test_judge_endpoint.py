"""Which endpoint judges, with which key: borrowed keys go to their own server only."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from fake_openai import FakeOpenAI, Reply
from judge_server import built, says
from pydantic import SecretStr

from rdagent_ft.errors import PreflightError
from rdagent_ft.evaluation.judge.build import build_judge
from rdagent_ft.llm.endpoint import OPENAI_URL
from rdagent_ft.llm.judge_endpoint import resolve_judge_endpoint
from rdagent_ft.llm.locked_ledger import LockedLedger
from rdagent_ft.llm.memory_ledger import MemoryLedger
from rdagent_ft.llm.port import LedgerEntry, Usage
from rdagent_ft.settings import Settings

PLANNER = {"planner_model": "p", "llm_api_key": "planner-key", "llm_api_base": "https://plan.corp/v1"}


def found(environ: dict[str, str] | None = None, **values: Any) -> Any:
    return resolve_judge_endpoint(Settings.model_validate(values), environ or {})


def key_of(endpoint: Any) -> str | None:
    return endpoint.api_key.get_secret_value() if endpoint.api_key else None


def test_nothing_configured_is_no_judge() -> None:
    assert found() is None
    assert found(judge_model="") is None
    assert found(llm_api_base="http://127.0.0.1:1/v1") is None


def test_the_judge_has_its_own_model_key_and_server() -> None:
    endpoint = found(
        **PLANNER, judge_model="j", judge_api_key="judge-key", judge_api_base="http://10.0.0.1:88"
    )
    assert (endpoint.model, endpoint.base_url, key_of(endpoint)) == (
        "j",
        "http://10.0.0.1:88/v1",
        "judge-key",
    )
    assert endpoint.temperature == 0


def test_what_is_unset_comes_from_the_planner_then_the_environment() -> None:
    endpoint = found(**PLANNER, judge_model="j")
    assert (endpoint.base_url, key_of(endpoint)) == ("https://plan.corp/v1", "planner-key")
    env = {"OPENAI_API_KEY": "env-key"}
    assert found(env) is None, "a key that lies about asks for no judge"
    endpoint = found(env, judge_model="gpt-4o")
    assert (endpoint.model, endpoint.base_url, key_of(endpoint)) == ("gpt-4o", OPENAI_URL, "env-key")
    kept = found(env, judge_model="gpt-4", judge_api_base="https://api.openai.com/v1")
    assert (kept.model, key_of(kept)) == ("gpt-4", "env-key")
    endpoint = found({**env, "OPENAI_BASE_URL": "https://gw.corp/v1"}, judge_model="j")
    assert (endpoint.base_url, key_of(endpoint)) == ("https://gw.corp/v1", "env-key")
    endpoint = found(env, llm_api_key="planner-key", judge_model="j")
    assert (endpoint.base_url, key_of(endpoint)) == (OPENAI_URL, "planner-key")
    endpoint = found({}, **PLANNER, judge_model="j", judge_api_base="https://plan.corp:443/other")
    assert key_of(endpoint) == "planner-key"


def test_a_borrowed_key_goes_to_no_other_server() -> None:
    env = {"OPENAI_API_KEY": "env-key"}
    for base in ("https://elsewhere.example/v1", "http://plan.corp/v1", "https://plan.corp.evil.example/v1"):
        with pytest.raises(PreflightError, match="no key for the judge"):
            found(env, **PLANNER, judge_model="j", judge_api_base=base)
    local = found(env, **PLANNER, judge_model="j", judge_api_base="http://127.0.0.1:8000/v1")
    assert local.api_key is None


@pytest.mark.parametrize(
    "base", ["10.0.0.1:88", "ftp://x/v1", "http://x:port/v1", "http://", "http://[::1/v1"]
)
def test_a_broken_url_is_named(base: str) -> None:
    with pytest.raises(PreflightError, match="http"):
        found(judge_model="j", judge_api_base=base)


def test_other_providers_need_a_named_judge() -> None:
    assert found(judge_model="anthropic/claude-sonnet-5").backend == "litellm"
    assert found(llm_backend="litellm") is None


def test_no_judge_builds_nothing(tmp_path: Path) -> None:
    settings = Settings.model_validate({"file_path": tmp_path / "x"})
    assert build_judge(settings, MemoryLedger(), print) is None
    assert not (tmp_path / "x").exists()


def test_the_planners_price_is_not_the_judges_where_a_table_knows_better(tmp_path: Path) -> None:
    values = {
        "file_path": tmp_path, "judge_model": "gpt-4o-mini", "judge_api_key": "k", "planner_model": "p",
        "llm_price_input": 500.0, "llm_price_output": 500.0,
    }  # fmt: skip
    notes: list[str] = []
    assert build_judge(Settings.model_validate(values), MemoryLedger(), notes.append) is not None
    assert notes == []
    build_judge(Settings.model_validate({**values, "judge_model": "own-judge"}), MemoryLedger(), notes.append)
    assert "FT_LLM_PRICE_* are booked" in notes[0]
    with pytest.raises(PreflightError, match="is not known"):
        build_judge(
            Settings.model_validate(
                {"file_path": tmp_path, "judge_model": "own-judge", "judge_api_key": "k",
                 "judge_api_base": "https://j.corp/v1"}
            ),
            MemoryLedger(), notes.append,
        )  # fmt: skip


class OneAtATime(MemoryLedger):
    """Fails like a connection whose transactions overlap."""

    def __init__(self) -> None:
        super().__init__()
        self.busy = threading.Lock()

    def inside(self) -> None:
        assert self.busy.acquire(blocking=False), "two threads at once"
        threading.Event().wait(0.002)
        self.busy.release()

    def find(self, key: str) -> LedgerEntry | None:
        self.inside()
        return super().find(key)

    def reserve(self, entry: LedgerEntry, limit_usd: float | None) -> int:
        self.inside()
        return super().reserve(entry, limit_usd)

    def settle(self, number: int, usage: Usage, reply: str | None, status: Any) -> None:
        self.inside()
        super().settle(number, usage, reply, status)


def test_threads_reach_the_ledger_and_the_notes_one_at_a_time(tmp_path: Path) -> None:
    from rdagent_ft.evaluation.judge.cascade import equivalence_question

    ledger, notes = OneAtATime(), []

    def note(text: str) -> None:
        ledger.inside()
        notes.append(text)

    with FakeOpenAI(lambda body: Reply(says("correct").content, has_usage=False)) as server:
        settings = Settings.model_validate(
            {"file_path": tmp_path, "judge_model": "j", "judge_api_base": server.base_url}
        )
        judge = build_judge(settings, ledger, note, n_parallel=6).judge
        opinions = judge.ask([equivalence_question(f"q{n}", "4", "four") for n in range(24)])
    assert [o.unscored for o in opinions] == [None] * 24
    assert len(notes) == 24


def test_the_locked_ledger_counts_its_own_calls() -> None:
    inner = MemoryLedger()
    entry = LedgerEntry(key="k", role="propose", model="m", status="reserved", reserved_usd=5.0)
    inner.reserve(entry, None)
    locked = LockedLedger(inner)
    first = locked.reserve(entry.model_copy(update={"role": "judge", "reserved_usd": 1.0}), None)
    second = locked.reserve(entry.model_copy(update={"reserved_usd": 2.0}), None)
    locked.settle(first, Usage(usd=0.25), "reply", "settled")
    assert locked.spent_usd == 2.25
    locked.settle(second, Usage(), None, "void")
    assert locked.spent_usd == 0.25
    assert locked.find("k").reply == "reply"
    assert inner.spent_usd == 5.25


def test_the_key_of_the_judge_reaches_the_judge_only(tmp_path: Path) -> None:
    with FakeOpenAI(says("correct")) as server:
        found_judge, _, _ = built(server, tmp_path, llm_api_key=SecretStr("planner-key-123"))
        from rdagent_ft.evaluation.judge.cascade import equivalence_question

        found_judge.judge.ask([equivalence_question("q", "4", "four planner-key-123")])
    assert "planner-key-123" not in str(server.requests)
