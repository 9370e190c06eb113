"""The metered client: books money, sends, retries, reads, asks again. All bounds are in `CallLimits`.

Order for each request: a paid answer in the ledger is reused; else reserve, send, settle. Order for
each reply: HTTP class, truncation (before the content, which may be null then), refusal, JSON, schema.
Every loop here is bounded; what the adapters do is in `transport.py`.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from pydantic import BaseModel

from rdagent_ft.errors import LlmError
from rdagent_ft.llm.port import Ledger, LedgerEntry, LlmMessage, LlmRole, Usage
from rdagent_ft.llm.prices import Price
from rdagent_ft.llm.prompts import render_prompt
from rdagent_ft.llm.reply import ReplyProblem, parse_reply, parse_whole, strict_schema
from rdagent_ft.llm.transport import RawReply, ReplyFormat, ReplyMode, Transport, TransportError
from rdagent_ft.values import Frozen, canonical_json, content_hash

T = TypeVar("T", bound=BaseModel)
RETRIED_KINDS = frozenset({"rate_limit", "server", "timeout", "connection"})
REFUSAL_REASONS = frozenset({"content_filter", "refusal"})
NEXT_MODE: dict[ReplyMode, ReplyMode] = {"json_schema": "json_object", "json_object": "none"}
FORMAT_WORDS = ("response_format", "json_schema", "json_object", "structured", "guided")
MODEL_SETTINGS: dict[LlmRole, str] = {"judge": "FT_JUDGE_MODEL", "teacher": "FT_TEACHER_MODEL"}
RETRY_AFTER_CAP_S = 300.0
BACKOFF_CAP_S = 60.0
BYTES_PER_TOKEN = 2.0
"""Lower bound for the prompt estimate: prose has about 4 bytes a token, JSON about 3, digits about 2."""
TOKENS_PER_MESSAGE = 16
MAX_ECHO_CHARS = 4_000


class CallLimits(Frozen):
    """Bounds of one structured call.

    Attributes:
        timeout_s: one request as a whole.
        max_wait_s: from a request's first failure to the last retry.
        max_output_tokens: reply bound of the first try.
        output_cap_tokens: bound of the one retry after a truncated reply, which doubles the first.
        max_cost_usd: dollars that the ledger may reach; None without a limit.
        n_reasks: how often an unusable reply is sent back.
        backoff_base_s: longest first wait; doubles with every retry.
        is_whole_reply: the reply must be the JSON object and nothing else (see `reply.parse_whole`).
    """

    timeout_s: float
    max_wait_s: float
    max_output_tokens: int
    output_cap_tokens: int = 32_768
    max_cost_usd: float | None = None
    n_reasks: int = 2
    backoff_base_s: float = 1.0
    is_whole_reply: bool = False


class MeteredClient:
    """An `LlmClient` over one transport and one ledger. Threads may share it if the ledger allows it."""

    def __init__(
        self,
        transport: Transport,
        ledger: Ledger,
        price: Price | None,
        limits: CallLimits,
        note: Callable[[str], None],
        time_left_s: Callable[[], float | None] | None = None,
    ) -> None:
        """`price` None: unknown and allowed, money is booked as 0. `time_left_s`: the run's clock."""
        self._transport = transport
        self._ledger = ledger
        self._price = price
        self._limits = limits
        self._note = note
        self._time_left_s = time_left_s
        self._mode: ReplyMode = "json_schema"
        self._mode_lock = threading.Lock()

    def complete(
        self, role: LlmRole, messages: tuple[LlmMessage, ...], schema: type[T], *, salt: str
    ) -> tuple[T, Usage]:
        """See `LlmClient.complete`. The usage covers all requests that this call needed."""
        conversation, total = messages, Usage()
        problem: ReplyProblem | None = None
        parse = parse_whole if self._limits.is_whole_reply else parse_reply
        for _ in range(1 + self._limits.n_reasks):
            text, usage = self._answer(role, conversation, schema, salt)
            total = _added(total, usage)
            try:
                return parse(text, schema), total
            except ReplyProblem as error:
                problem = error
            echo = LlmMessage(role="assistant", content=text[:MAX_ECHO_CHARS] or "(empty)")
            conversation = (*conversation, echo, *render_prompt("reask", problems=str(problem)))
        raise LlmError(
            f"{self._transport.model} gave no usable reply in {1 + self._limits.n_reasks} tries: {problem}",
            kind="malformed",
            hint=f"try another {MODEL_SETTINGS.get(role, 'FT_PLANNER_MODEL')}",
        )

    def _answer(
        self, role: LlmRole, messages: tuple[LlmMessage, ...], schema: type[BaseModel], salt: str
    ) -> tuple[str, Usage]:
        """Return the reply's text and cost: from the ledger, else by a request of growing reply bound."""
        limits, total = self._limits, Usage()
        key = self._key(role, messages, schema, salt)
        paid = self._ledger.find(key)
        if paid is not None and paid.reply is not None:
            return paid.reply, paid.usage
        bounds = {limits.max_output_tokens, min(2 * limits.max_output_tokens, limits.output_cap_tokens)}
        for max_output_tokens in sorted(b for b in bounds if b >= limits.max_output_tokens):
            reply, usage = self._send_with_retries(role, key, messages, schema, max_output_tokens)
            total = _added(total, usage)
            if reply.finish_reason != "length":
                return _usable_text(reply, self._transport.model), total
            self._note(f"LLM: the reply was cut at {max_output_tokens} tokens")
        raise LlmError(
            f"{self._transport.model} did not finish its reply within {max(bounds)} tokens",
            kind="truncated",
            hint="raise FT_LLM_MAX_OUTPUT_TOKENS",
        )

    def _send_with_retries(
        self,
        role: LlmRole,
        key: str,
        messages: tuple[LlmMessage, ...],
        schema: type[BaseModel],
        max_output_tokens: int,
    ) -> tuple[RawReply, Usage]:
        first_failure: float | None = None
        n_failures = 0
        while True:
            mode = self._mode
            try:
                return self._send_booked(role, key, messages, schema, mode, max_output_tokens)
            except TransportError as error:
                failure = error
            if self._falls_back(failure, mode):
                continue
            n_failures += 1
            now = time.monotonic()
            first_failure = now if first_failure is None else first_failure
            wait_s = self._wait_s(failure, n_failures)
            if failure.kind not in RETRIED_KINDS or not self._may_wait(wait_s, now - first_failure):
                raise self._final(failure, n_failures)
            self._note(f"LLM: {failure.kind}: {failure.message}; next try in {wait_s:.1f} s")
            time.sleep(wait_s)

    def _send_booked(
        self,
        role: LlmRole,
        key: str,
        messages: tuple[LlmMessage, ...],
        schema: type[BaseModel],
        mode: ReplyMode,
        max_output_tokens: int,
    ) -> tuple[RawReply, Usage]:
        """Reserve, send once, settle. A request that may have been billed keeps its reservation."""
        reply_format = ReplyFormat(mode=mode, name=schema.__name__, json_schema=strict_schema(schema))
        sent = messages if mode == "json_schema" else _with_schema(messages, reply_format)
        n_prompt = prompt_token_bound(sent, reply_format)
        entry = LedgerEntry(
            key=key,
            role=role,
            model=self._transport.model,
            status="reserved",
            reserved_usd=self._price.cost_usd(n_prompt, max_output_tokens) if self._price else 0.0,
        )
        timeout_s = self._request_timeout_s()
        number = self._ledger.reserve(entry, self._limits.max_cost_usd)
        try:
            reply = self._transport.send(sent, reply_format, max_output_tokens, timeout_s)
        except TransportError as error:
            if error.is_free:
                self._ledger.settle(number, Usage(), None, "void")
            raise
        usage = self._usage(reply, n_prompt, max_output_tokens)
        is_answer = reply.finish_reason != "length" and not _refusal(reply) and reply.text is not None
        self._ledger.settle(number, usage, reply.text if is_answer else None, "settled")
        return reply, usage

    def _usage(self, reply: RawReply, n_prompt: int, max_output_tokens: int) -> Usage:
        n_in, n_out = reply.input_tokens, reply.output_tokens
        if n_in is None or n_out is None:
            self._note("LLM: the endpoint reports no usage; the upper bound is booked")
            n_in, n_out = n_prompt, max_output_tokens
        usd = self._price.cost_usd(n_in, n_out, reply.cached_input_tokens) if self._price else 0.0
        return Usage(input_tokens=n_in, output_tokens=n_out, usd=usd)

    def _key(
        self, role: LlmRole, messages: tuple[LlmMessage, ...], schema: type[BaseModel], salt: str
    ) -> str:
        """Return the request's identity. The reply mode is left out: it does not change the question."""
        identity = {
            "role": role,
            "model": self._transport.model,
            "base_url": self._transport.base_url,
            "max_output_tokens": self._limits.max_output_tokens,
            "messages": [[message.role, message.content] for message in messages],
            "schema": strict_schema(schema),
            "salt": salt,
        }
        return content_hash(identity, n_chars=32)

    def _falls_back(self, failure: TransportError, sent_mode: ReplyMode) -> bool:
        """Go to a weaker reply mode when the endpoint refused this one; remembered for later calls.

        Of several threads whose requests are refused together, the first one moves the mode by one step;
        the others only try again.
        """
        refused = failure.status in (400, 422) and any(word in failure.message for word in FORMAT_WORDS)
        if not refused:
            return False
        with self._mode_lock:
            if self._mode != sent_mode:
                return True
            if sent_mode not in NEXT_MODE:
                return False
            weaker = NEXT_MODE[sent_mode]
            self._note(
                f"LLM: {self._transport.model} refuses reply format {sent_mode}; using {weaker} from now on"
            )
            self._mode = weaker
        return True

    def _wait_s(self, failure: TransportError, n_failures: int) -> float:
        """Return the server's wish, else exponential back-off with full jitter."""
        if failure.retry_after_s is not None:
            return min(failure.retry_after_s, RETRY_AFTER_CAP_S)
        ceiling = min(BACKOFF_CAP_S, self._limits.backoff_base_s * 2 ** min(n_failures - 1, 16))
        return random.uniform(0.0, ceiling)

    def _may_wait(self, wait_s: float, waited_s: float) -> bool:
        left = self._time_left_s() if self._time_left_s is not None else None
        return waited_s + wait_s < self._limits.max_wait_s and (left is None or wait_s < left)

    def _request_timeout_s(self) -> float:
        left = self._time_left_s() if self._time_left_s is not None else None
        if left is not None and left <= 0:
            raise LlmError("the run's time is over, so no LLM request was sent", kind="timeout")
        return self._limits.timeout_s if left is None else min(self._limits.timeout_s, left)

    def _final(self, failure: TransportError, n_tries: int) -> LlmError:
        hints = {
            "auth": "check FT_LLM_API_KEY and that it may use this model",
            "quota": "the account has no credit left; top it up or use another key",
            "timeout": "raise FT_LLM_TIMEOUT or use a faster model",
        }
        tries = f" after {n_tries} tries" if n_tries > 1 else ""
        return LlmError(
            f"{self._transport.model}{tries}: {failure.message}",
            kind=failure.kind,
            hint=hints.get(failure.kind),
        )


def prompt_token_bound(messages: tuple[LlmMessage, ...], reply_format: ReplyFormat) -> int:
    """Return an upper estimate of a request's input tokens, its schema included.

    Over bytes, not characters: scripts with several bytes a character take a token for each.
    """
    n_bytes = sum(len(message.content.encode("utf-8", "surrogatepass")) for message in messages)
    n_bytes += len(canonical_json(reply_format.json_schema).encode())
    return int(n_bytes / BYTES_PER_TOKEN) + TOKENS_PER_MESSAGE * (len(messages) + 1)


def _usable_text(reply: RawReply, model: str) -> str:
    refusal = _refusal(reply)
    if refusal is not None:
        raise LlmError(f"{model} refused: {refusal[:300]}", kind="refused")
    return reply.text or ""


def _refusal(reply: RawReply) -> str | None:
    if reply.refusal:
        return reply.refusal
    return f"finish_reason {reply.finish_reason}" if reply.finish_reason in REFUSAL_REASONS else None


def _with_schema(messages: tuple[LlmMessage, ...], reply_format: ReplyFormat) -> tuple[LlmMessage, ...]:
    """Return the messages with the schema in the system message, for an endpoint that enforces none."""
    text = json.dumps(reply_format.json_schema, ensure_ascii=False)
    added = render_prompt("reply_schema", json_schema=text)[0].content
    if messages and messages[0].role == "system":
        first = LlmMessage(role="system", content=f"{messages[0].content}\n\n{added}")
        return (first, *messages[1:])
    return (LlmMessage(role="system", content=added), *messages)


def _added(left: Usage, right: Usage) -> Usage:
    return Usage(
        input_tokens=left.input_tokens + right.input_tokens,
        output_tokens=left.output_tokens + right.output_tokens,
        usd=left.usd + right.usd,
    )
