"""Prices, endpoint choice, redaction, reply reading, deadline, ledger, recordings, reachability."""

from __future__ import annotations

import contextlib
import json
import threading
from pathlib import Path
from typing import Any, Literal

import pytest
from fake_openai import FakeOpenAI, Reply, Status
from hypothesis import given
from hypothesis import strategies as st

from rdagent_ft.errors import BudgetError, LlmError, PreflightError, UserError
from rdagent_ft.llm.build import build_client, check_reachable
from rdagent_ft.llm.endpoint import OPENAI_URL, is_loopback, resolve_endpoint
from rdagent_ft.llm.memory_ledger import MemoryLedger
from rdagent_ft.llm.openai_client import retry_after_s
from rdagent_ft.llm.policy import prompt_token_bound
from rdagent_ft.llm.port import LedgerEntry, LlmMessage, Usage
from rdagent_ft.llm.prices import price_of
from rdagent_ft.llm.redact import MASK, redact, secrets_of_environment
from rdagent_ft.llm.replay import RecordingClient, ReplayClient
from rdagent_ft.llm.reply import ReplyProblem, parse_reply, strict_schema
from rdagent_ft.llm.transport import ReplyFormat, TransportError, error_of_status, read_completion
from rdagent_ft.llm.within import call_within
from rdagent_ft.settings import Settings
from rdagent_ft.values import Frozen


def _settings(**values: Any) -> Settings:
    return Settings.model_validate({"planner_model": "gpt-5-mini", **values})


class Inner(Frozen):
    path: str
    value: int | float | str | None = None


class Outer(Frozen):
    kind: Literal["a", "b"] = "a"
    items: tuple[Inner, ...] = ()


# Prices


def test_price_order_settings_then_loopback_then_table() -> None:
    given = _settings(llm_price_input=3, llm_price_output=4)
    assert price_of(given, "gpt-5-mini", "http://127.0.0.1:1/v1").input_usd == 3  # type: ignore[union-attr]
    assert price_of(_settings(), "gpt-5-mini", "http://localhost:1/v1").output_usd == 0  # type: ignore[union-attr]
    table = price_of(_settings(), "gpt-5-mini", OPENAI_URL)
    assert table is not None
    assert 0 < table.input_usd < table.output_usd
    assert table.cost_usd(1_000_000, 0) == pytest.approx(table.input_usd)
    assert table.cost_usd(1_000_000, 0, 1_000_000) < table.cost_usd(1_000_000, 0)


@pytest.mark.parametrize(
    ("model", "base"), [("no-such-model", OPENAI_URL), ("gpt-5-mini", "https://gw.corp/v1")]
)
def test_unknown_price_is_refused_unless_allowed(model: str, base: str) -> None:
    with pytest.raises(PreflightError, match="is not known"):
        price_of(_settings(), model, base)
    assert price_of(_settings(llm_price_unknown="ok"), model, base) is None


def test_half_a_price_is_refused() -> None:
    with pytest.raises(PreflightError, match="together"):
        price_of(_settings(llm_price_input=1), "m", None)


def test_provider_names_are_priced() -> None:
    price = price_of(_settings(), "anthropic/claude-sonnet-4-5", None)
    assert price is not None
    assert price.output_usd > 0


# Endpoint


def test_endpoint_key_and_base_come_from_one_place() -> None:
    env = {"OPENAI_API_KEY": "sk-env-1234", "OPENAI_BASE_URL": "https://gw.corp/v1"}
    assert resolve_endpoint(_settings(), env).base_url == "https://gw.corp/v1"
    own = resolve_endpoint(_settings(llm_api_key="sk-own-1234"), env)
    assert own.base_url == OPENAI_URL
    assert own.secrets == ("sk-own-1234",)


@pytest.mark.parametrize(
    ("values", "backend"),
    [
        ({"planner_model": "anthropic/claude-sonnet-5"}, "litellm"),
        ({"planner_model": "org/model", "llm_api_base": "http://localhost:1/v1"}, "openai"),
        ({"planner_model": "gpt-5-mini", "llm_api_key": "k123"}, "openai"),
        ({"planner_model": "gpt-5-mini", "llm_backend": "litellm"}, "litellm"),
    ],
)
def test_backend_choice(values: dict[str, Any], backend: str) -> None:
    assert resolve_endpoint(_settings(**values), {}).backend == backend


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"planner_model": None}, "no LLM"),
        ({}, "no key"),
        ({"llm_api_base": "127.0.0.1:8000", "llm_api_key": "k"}, "no http"),
    ],
)
def test_endpoint_errors(values: dict[str, Any], told: str) -> None:
    with pytest.raises(PreflightError, match=told):
        resolve_endpoint(_settings(**values), {})


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1:8000/v1", True),
        ("http://127.8.9.1/v1", True),
        ("http://[::1]:80/v1", True),
        ("http://localhost/v1", True),
        ("http://localhost.evil.com/v1", False),
        ("http://127.0.0.1.evil.com/v1", False),
        ("http://127.0.0.1@evil.com/v1", False),
        ("http://10.0.0.1/v1", False),
        (None, False),
    ],
)
def test_loopback(url: str | None, expected: bool) -> None:
    assert is_loopback(url) is expected


# Redaction


def test_redaction_of_given_and_of_usual_keys() -> None:
    text = "key abcd1234, sk-proj-AAAABBBBCCCC, Bearer xyz.123, https://me:pw@host/v1, hf_ABCDEFGHIJ"
    shown = redact(text, ["abcd1234", "a", ""])
    for secret in ("abcd1234", "AAAABBBB", "xyz.123", "me:pw", "ABCDEFGHIJ"):
        assert secret not in shown
    assert shown.startswith(f"key {MASK}")


@given(st.text(min_size=4, max_size=40), st.text(max_size=50), st.text(max_size=50))
def test_a_given_secret_never_survives(secret: str, before: str, after: str) -> None:
    if secret not in MASK and not set(secret) & set(MASK):
        assert secret not in redact(before + secret + after, [secret])


def test_secrets_of_environment() -> None:
    env = {"X_API_KEY": "one1", "hf_token": "two2", "HOME": "/root", "EMPTY_TOKEN": ""}
    assert secrets_of_environment(env) == ("one1", "two2")


# Replies


def test_strict_schema_is_closed_and_complete_at_every_level() -> None:
    schema = strict_schema(Outer)
    inner = schema["$defs"]["Inner"]
    assert schema["required"] == ["kind", "items"]
    assert inner["required"] == ["path", "value"]
    assert schema["additionalProperties"] is inner["additionalProperties"] is False
    assert '"default"' not in json.dumps(schema)


class TitleField(Frozen):
    title: str
    default: int


def test_strict_schema_keeps_properties_that_are_named_like_keywords() -> None:
    assert set(strict_schema(TitleField)["properties"]) == {"title", "default"}


@given(st.text(max_size=300))
def test_any_text_is_an_object_or_a_named_problem(text: str) -> None:
    with contextlib.suppress(ReplyProblem):  # anything else that it raises fails the test
        assert isinstance(parse_reply(text, Outer), Outer)


def test_deep_nesting_and_size_are_named_problems() -> None:
    for text in ("[" * 100_000, "x" * 1_000_001):
        with pytest.raises(ReplyProblem):
            parse_reply(text, Outer)


def test_two_fences_are_not_guessed_between() -> None:
    fence = '```json\n{"kind": "a", "items": []}\n```\n'
    with pytest.raises(ReplyProblem):
        parse_reply("see\n" + fence + fence, Outer)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(
                    ["choices", "message", "content", "usage", "error", "finish_reason", "prompt_tokens"]
                ),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    )
)
def test_any_document_is_a_reply_or_a_named_failure(document: Any) -> None:
    with contextlib.suppress(TransportError):  # anything else that it raises fails the test
        reply = read_completion(document)
        assert reply.input_tokens is None or reply.input_tokens >= 0


def test_content_parts_are_joined() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}]
    assert read_completion({"choices": [{"message": {"content": parts}}]}).text == "ab"


def test_one_provider_says_quota_for_a_minute_limit() -> None:
    assert error_of_status(429, "You exceeded your current quota, retry in 20 s").kind == "rate_limit"


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Retry-After": "2"}, 2.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"Retry-After-Ms": "250"}, 0.25),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00"}, None),
        ({}, None),
    ],
)
def test_retry_after(headers: dict[str, str], expected: float | None) -> None:
    assert retry_after_s(headers) == expected


def test_the_prompt_bound_counts_bytes_and_the_schema() -> None:
    def bound(text: str, schema: dict[str, Any]) -> int:
        message = LlmMessage(role="user", content=text)
        return prompt_token_bound((message,), ReplyFormat(mode="none", name="", json_schema=schema))

    assert bound("数" * 100, {}) >= 150
    assert bound("a" * 100, {"x": "y" * 100}) >= bound("a" * 100, {}) + 50


# Deadline


def test_call_within_returns_raises_and_leaves() -> None:
    assert call_within(lambda: 3, 5) == 3
    with pytest.raises(ZeroDivisionError):
        call_within(lambda: 1 // 0, 5)
    release = threading.Event()
    with pytest.raises(TimeoutError):
        call_within(lambda: release.wait(30), 0.05)
    release.set()


# Ledger


def _entry(usd: float) -> LedgerEntry:
    return LedgerEntry(key="k", role="propose", model="m", status="reserved", reserved_usd=usd)


def test_memory_ledger_counts_open_and_settled() -> None:
    ledger = MemoryLedger()
    first = ledger.reserve(_entry(0.6), 1.0)
    with pytest.raises(BudgetError):
        ledger.reserve(_entry(0.6), 1.0)
    ledger.settle(first, Usage(usd=0.1), "text", "settled")
    second = ledger.reserve(_entry(0.6), 1.0)
    assert ledger.spent_usd == pytest.approx(0.7)
    ledger.settle(second, Usage(), None, "void")
    assert ledger.spent_usd == pytest.approx(0.1)
    found = ledger.find("k")
    assert found is not None
    assert found.reply == "text"


# Recordings

ASK = (LlmMessage(role="user", content="go"),)


def test_recording_replays_and_a_miss_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "calls.jsonl"
    content = '{"kind": "b", "items": [{"path": "p", "value": 0.5}]}'
    with FakeOpenAI(Reply(content)) as server:
        settings = _settings(llm_api_base=server.base_url, llm_api_key="sk-secret-123456")
        client = RecordingClient(build_client(settings, MemoryLedger(), lambda _: None), path)
        recorded = client.complete("propose", ASK, Outer, salt="1")
    replay = ReplayClient(path)
    assert replay.complete("propose", ASK, Outer, salt="1") == recorded
    assert replay.complete("propose", ASK, Outer, salt="1") == recorded
    with pytest.raises(LlmError, match="holds no propose call"):
        replay.complete("propose", ASK, Outer, salt="2")
    assert "sk-secret" not in path.read_text()


@pytest.mark.parametrize("line", ["{", '{"key": 1}', "[]"])
def test_broken_recording_names_the_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "calls.jsonl"
    path.write_text(line + "\n")
    with pytest.raises(UserError, match=r"calls\.jsonl:1"):
        ReplayClient(path)
    with pytest.raises(UserError, match="does not exist"):
        ReplayClient(tmp_path / "other.jsonl")


# Reachability


def test_reachable() -> None:
    assert check_reachable(Settings()) is None
    with FakeOpenAI(models=("gpt-5-mini", "other")) as server:
        assert check_reachable(_settings(llm_api_base=server.base_url)) is None
        problem = check_reachable(_settings(llm_api_base=server.base_url, planner_model="gpt-5-mimi"))
        assert problem is not None
        assert "gpt-5-mini" in problem
        assert server.n_requests == 0
    with FakeOpenAI(Reply("ok"), models=()) as server:
        assert check_reachable(_settings(llm_api_base=server.base_url)) is None
        assert server.n_requests == 1


def test_unreachable_is_one_text() -> None:
    with FakeOpenAI(Status(404, "no such model"), models=()) as server:
        assert "404" in (check_reachable(_settings(llm_api_base=server.base_url)) or "")
        wrong_path = check_reachable(_settings(llm_api_base=server.base_url.removesuffix("/v1")))
    assert "404" in (wrong_path or "")
    assert "does not answer" in (check_reachable(_settings(llm_api_base=server.base_url)) or "")
    assert "no key" in (check_reachable(_settings()) or "")
