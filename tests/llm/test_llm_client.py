"""The metered client against a real HTTP server: every answer and every fault of the protocol."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from fake_openai import Cut, Drip, FakeOpenAI, Hang, Held, Html, Reply, Status, Step

from rdagent_ft.errors import BudgetError, LlmError
from rdagent_ft.llm.build import build_client
from rdagent_ft.llm.memory_ledger import MemoryLedger
from rdagent_ft.llm.port import LlmMessage
from rdagent_ft.settings import Settings
from rdagent_ft.values import Frozen

KEY = "sk-very-secret-0123456789"
ASK = (LlmMessage(role="system", content="You plan."), LlmMessage(role="user", content="Say a number."))


class Answer(Frozen):
    """What the tests ask for."""

    n: int
    why: str


GOOD = Reply('{"n": 7, "why": "because"}')


class Case:
    """One server, one ledger, one client."""

    def __init__(self, server: FakeOpenAI, **settings: object) -> None:
        values: dict[str, object] = {
            "planner_model": "test-model",
            "llm_api_base": server.base_url,
            "llm_api_key": KEY,
            "llm_timeout": 5.0,
            "llm_max_wait": 0.4,
            "llm_price_input": 1.0,
            "llm_price_output": 10.0,
            "llm_max_output_tokens": 256,
        }
        self.server = server
        self.ledger = MemoryLedger()
        self.notes: list[str] = []
        self.settings = Settings.model_validate({**values, **settings})
        self.client = build_client(self.settings, self.ledger, self.notes.append)

    def ask(self, salt: str = "1") -> Answer:
        return self.client.complete("propose", ASK, Answer, salt=salt)[0]

    def fail(self) -> LlmError:
        with pytest.raises(LlmError) as caught:
            self.ask()
        return caught.value


def kind_of(*steps: Step, **settings: object) -> tuple[str, Case]:
    with FakeOpenAI(*steps) as server:
        case = Case(server, **settings)
        return case.fail().kind, case


def test_good_reply_is_validated_and_booked_as_the_server_counts() -> None:
    with FakeOpenAI(Reply('{"n": 7, "why": "because"}', input_tokens=1000, output_tokens=50)) as server:
        case = Case(server)
        value, usage = case.client.complete("propose", ASK, Answer, salt="1")
    assert value == Answer(n=7, why="because")
    assert (usage.input_tokens, usage.output_tokens) == (1000, 50)
    assert usage.usd == pytest.approx((1000 * 1.0 + 50 * 10.0) / 1e6)
    assert case.ledger.spent_usd == pytest.approx(usage.usd)
    sent = server.requests[0]
    assert sent.headers["authorization"] == f"Bearer {KEY}"
    assert sent.body["response_format"]["json_schema"]["schema"]["required"] == ["n", "why"]
    assert sent.body["max_tokens"] == 256


@pytest.mark.parametrize(
    "content",
    [
        '```json\n{"n": 7, "why": "fence"}\n```',
        '<think>maybe {"n": 1}</think>\n{"n": 7, "why": "thought"}',
        'thinking without the opening tag</think>{"n": 7, "why": "x"}',
        '<think>hm</think> Here it is:\n```json\n{"n": 7, "why": "both"}\n```',
        '{"n": 7, "why": "uses ```json\\nfences``` and </think> inside"}',
    ],
)
def test_thinking_and_one_fence_are_taken_off(content: str) -> None:
    with FakeOpenAI(Reply(content)) as server:
        assert Case(server).ask().n == 7


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        ('{"n": 7, "why": ', "not JSON"),
        ('{"n": "seven", "why": "x"}', "n: "),
        ('{"n": 7, "why": "x", "extra": 1}', "extra"),
        ('{"n": NaN, "why": "x"}', "NaN"),
        ("", "not JSON"),
    ],
)
def test_unusable_reply_is_sent_back_with_the_reason_and_both_are_paid(bad: str, told: str) -> None:
    with FakeOpenAI(Reply(bad), GOOD) as server:
        case = Case(server)
        _, usage = case.client.complete("propose", ASK, Answer, salt="1")
    assert server.n_requests == 2
    assert told in server.requests[1].body["messages"][-1]["content"]
    assert usage.input_tokens == server.input_tokens == 200


def test_malformed_for_ever_ends_after_two_reasks() -> None:
    kind, case = kind_of(Reply("I would rather chat."))
    assert kind == "malformed"
    assert case.server.n_requests == 3
    assert sum(entry.usage.output_tokens for entry in case.ledger.entries) == case.server.output_tokens


@pytest.mark.parametrize("content", ['{"n": 7, "why": "cut of', None, '{"n": 7, "why": "looks whole"}'])
def test_truncation_is_never_read_even_if_it_parses(content: str | None) -> None:
    kind, case = kind_of(Reply(content, finish_reason="length"))
    assert kind == "truncated"
    assert [request.body["max_tokens"] for request in case.server.requests] == [256, 512]
    assert all(entry.reply is None for entry in case.ledger.entries)


def test_truncation_then_room_enough() -> None:
    with FakeOpenAI(Reply(None, finish_reason="length"), GOOD) as server:
        case = Case(server)
        _, usage = case.client.complete("propose", ASK, Answer, salt="1")
    assert usage.output_tokens == server.output_tokens == 40


@pytest.mark.parametrize(
    "reply",
    [
        Reply(None, refusal="I cannot help with that"),
        Reply("partial", finish_reason="content_filter"),
    ],
)
def test_refusal_is_named_and_not_asked_again(reply: Reply) -> None:
    kind, case = kind_of(reply)
    assert kind == "refused"
    assert case.server.n_requests == 1
    assert case.ledger.spent_usd > 0


def test_retry_after_is_honoured() -> None:
    with FakeOpenAI(Status(429, headers={"Retry-After": "0.3"}), GOOD) as server:
        case = Case(server, llm_max_wait=0.5)
        started = time.monotonic()
        assert case.ask().n == 7
        assert time.monotonic() - started >= 0.3
    assert "next try in 0.3 s" in case.notes[0]
    assert [entry.status for entry in case.ledger.entries] == ["void", "settled"]


def test_retry_after_beyond_the_wait_fails_at_once() -> None:
    kind, case = kind_of(Status(429, headers={"Retry-After": "120"}))
    assert kind == "rate_limit"
    assert case.server.n_requests == 1


def test_used_up_quota_is_not_retried() -> None:
    kind, case = kind_of(Status(429, "You exceeded your current quota", "insufficient_quota"))
    assert kind == "quota"
    assert case.server.n_requests == 1


def test_server_errors_then_good() -> None:
    with FakeOpenAI(Status(500), Status(503), Status(529), Status(425), GOOD) as server:
        assert Case(server, llm_max_wait=3.0).ask().n == 7
        assert server.n_requests == 5


@pytest.mark.parametrize(("code", "kind"), [(500, "server"), (408, "timeout"), (429, "rate_limit")])
def test_retries_are_bounded(code: int, kind: str) -> None:
    found, case = kind_of(Status(code))
    assert found == kind
    assert 2 <= case.server.n_requests <= 60
    assert case.ledger.spent_usd == 0


@pytest.mark.parametrize(
    ("code", "kind"),
    [(401, "auth"), (403, "auth"), (400, "bad_request"), (404, "bad_request"), (422, "bad_request")],
)
def test_client_errors_are_sent_once(code: int, kind: str) -> None:
    found, case = kind_of(Status(code, f"wrong key {KEY}"))
    assert found == kind
    assert case.server.n_requests == 1
    assert [entry.status for entry in case.ledger.entries] == ["void"]


@pytest.mark.timeout(30)  # without the deadline both steps hold the client for minutes
@pytest.mark.parametrize("step", [Hang(), Drip()])
def test_hang_and_drip_end_at_the_deadline_and_stay_booked(step: Step) -> None:
    kind, case = kind_of(step, llm_timeout=0.3, llm_max_wait=0.05)
    assert kind == "timeout"
    assert all(entry.status == "reserved" for entry in case.ledger.entries)
    assert case.ledger.spent_usd > 0


def test_connection_cut_in_the_body_is_retried() -> None:
    with FakeOpenAI(Cut(), GOOD) as server:
        case = Case(server)
        assert case.ask().n == 7
    assert [entry.status for entry in case.ledger.entries] == ["reserved", "settled"]


def test_nobody_listens_costs_nothing() -> None:
    with FakeOpenAI() as server:
        case = Case(server)
    error = case.fail()
    assert error.kind == "connection"
    assert case.ledger.spent_usd == 0


def test_html_with_200_is_a_server_error() -> None:
    kind, case = kind_of(Html())
    assert kind == "server"
    assert "hotel" in case.notes[0]


def test_200_with_an_error_inside() -> None:
    with FakeOpenAI(Reply("x")) as server:
        case = Case(server)
        document = {"error": {"message": "upstream is busy", "code": 503}}
        server.next_behaviour = lambda request: Html(json.dumps(document))  # type: ignore[method-assign]
        assert case.fail().kind == "server"


def _refuses_formats(*modes: str) -> Step:
    def step(body: dict[str, object]) -> Reply | Status:
        mode = body.get("response_format", {"type": "none"})["type"]  # type: ignore[index]
        if mode in modes:
            return Status(400, f"response_format type {mode} is not supported by this model")
        return GOOD

    return step


@pytest.mark.parametrize(("refused", "n_first"), [(("json_schema",), 2), (("json_schema", "json_object"), 3)])
def test_unsupported_response_format_falls_back_once_and_remembers(
    refused: tuple[str, ...], n_first: int
) -> None:
    with FakeOpenAI(_refuses_formats(*refused)) as server:
        case = Case(server)
        assert case.ask("1").n == 7
        assert server.n_requests == n_first
        assert case.ask("2").n == 7
        assert server.n_requests == n_first + 1
        last = server.requests[-1].body
    assert len([note for note in case.notes if "refuses reply format" in note]) == n_first - 1
    assert "JSON Schema" in last["messages"][0]["content"]
    assert "You plan." in last["messages"][0]["content"]


def test_the_other_name_of_the_output_limit() -> None:
    def step(body: dict[str, object]) -> Reply | Status:
        if "max_tokens" in body:
            text = "Unsupported parameter: 'max_tokens' is not supported. Use 'max_completion_tokens'."
            return Status(400, text, "unsupported_parameter")
        return GOOD

    with FakeOpenAI(step) as server:
        case = Case(server)
        assert case.ask("1").n == 7
        assert case.ask("2").n == 7
        assert server.n_requests == 3


def test_a_paid_answer_is_reused_and_another_salt_is_not() -> None:
    with FakeOpenAI(GOOD) as server:
        case = Case(server)
        assert case.ask("loop 1") == case.ask("loop 1")
        assert server.n_requests == 1
        again = build_client(case.settings, case.ledger, case.notes.append)
        assert again.complete("propose", ASK, Answer, salt="loop 1")[0].n == 7
        assert server.n_requests == 1
        case.ask("loop 2")
        assert server.n_requests == 2


def test_a_reask_after_a_crash_pays_for_no_answer_twice() -> None:
    with FakeOpenAI(Reply("nonsense"), Status(401), GOOD) as server:
        case = Case(server)
        assert case.fail().kind == "auth"  # the first answer is paid, then the process "dies"
        assert case.ask().n == 7
        assert server.n_requests == 3
        assert sum(entry.usage.input_tokens for entry in case.ledger.entries) == server.input_tokens


def test_a_call_that_could_pass_the_limit_is_not_sent() -> None:
    with FakeOpenAI(Reply('{"n": 7, "why": "x"}', input_tokens=100, output_tokens=200)) as server:
        case = Case(server, max_cost=0.01)  # a reply may cost 256 x 10 $ / 1e6 = 0.00256 $ and its prompt
        n_sent, told = 0, ""
        try:
            for n_sent in range(20):
                case.ask(str(n_sent))
        except BudgetError as error:
            told = error.message
    assert "not sent" in told
    assert server.n_requests == n_sent
    assert 3 <= n_sent <= 5
    assert case.ledger.spent_usd <= 0.01


def test_reservations_of_calls_in_flight_count() -> None:
    release = threading.Event()
    with FakeOpenAI(Held(release, GOOD)) as server:
        case = Case(server, max_cost=0.006)
        with ThreadPoolExecutor(8) as pool:
            calls = [pool.submit(case.ask, str(i)) for i in range(8)]
            refused = 0
            deadline = time.monotonic() + 20
            while refused < 6 and time.monotonic() < deadline:
                refused = sum(call.done() for call in calls)
                time.sleep(0.01)
            release.set()
            errors = [call.exception() for call in calls]
    assert sum(isinstance(error, BudgetError) for error in errors) == 6
    assert server.n_requests == 2


def test_missing_usage_books_the_upper_bound_and_says_so() -> None:
    with FakeOpenAI(Reply('{"n": 7, "why": "x"}', has_usage=False)) as server:
        case = Case(server)
        case.ask()
    assert case.ledger.entries[0].usage.output_tokens == 256
    assert case.ledger.spent_usd == pytest.approx(case.ledger.entries[0].reserved_usd)
    assert any("reports no usage" in note for note in case.notes)


def test_no_request_after_the_run_is_over_and_none_longer_than_it() -> None:
    with FakeOpenAI(Hang()) as server:
        case = Case(server)
        over = build_client(case.settings, case.ledger, case.notes.append, lambda: 0.0)
        with pytest.raises(LlmError, match="time is over"):
            over.complete("propose", ASK, Answer, salt="1")
        assert server.n_requests == 0
        short = build_client(case.settings, case.ledger, case.notes.append, lambda: 0.2)
        with pytest.raises(LlmError, match=r"within 0\.2 s"):
            short.complete("propose", ASK, Answer, salt="1")


@pytest.mark.parametrize(
    "step",
    [
        Status(401, f"Incorrect API key provided: {KEY}"),
        Status(400, f"header was Bearer {KEY}"),
        Status(500, f"upstream said {KEY}"),
        Html(f"<html>{KEY}</html>"),
        Reply(None, refusal="no"),
        Hang(),
    ],
)
def test_keys_are_in_no_error_note_or_ledger(step: Step) -> None:
    with FakeOpenAI(step) as server:
        case = Case(server, llm_timeout=0.3, llm_max_wait=0.02)
        error = case.fail()
    texts = [error.render(), repr(error), str(error.__cause__), *case.notes]
    texts += [entry.model_dump_json() for entry in case.ledger.entries]
    assert error.__context__ is None or KEY not in repr(error.__context__)
    assert all(KEY not in text and KEY[3:] not in text for text in texts)
