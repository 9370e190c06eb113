"""The judge: takes questions, brings opinions. Several at once, each paid once, none ever guessed.

A question goes to the cache, then through the metered client (its ledger, retries and two repairs of an
unreadable reply). Whatever brings no verdict is unscored with its reason: never wrong, never 0. What
verdicts mean is decided in `cascade.py`, `grading.py` and `pairwise.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, cast

from rdagent_ft.errors import BudgetError, LlmError
from rdagent_ft.evaluation.judge.breaker import Breaker
from rdagent_ft.evaluation.judge.replies import JudgeReply
from rdagent_ft.evaluation.judge.texts import marked_texts, shown_text
from rdagent_ft.evaluation.judge.turns import Turns
from rdagent_ft.evaluation.judge.values import (
    MAX_RATIONALE_CHARS,
    JudgeHealth,
    JudgeIdentity,
    Opinion,
    PromptName,
    Question,
    UnscoredReason,
)
from rdagent_ft.evaluation.judge.verdict_cache import VerdictCache
from rdagent_ft.llm.port import LlmClient, LlmMessage
from rdagent_ft.llm.prompts import read_prompt, render_prompt
from rdagent_ft.llm.reply import strict_schema
from rdagent_ft.values import content_hash

N_PARALLEL = 4
PROMPTS: tuple[PromptName, ...] = ("judge_equivalence", "judge_pairwise", "judge_rubric")
_REASONS: dict[str, UnscoredReason] = {
    "malformed": "malformed",
    "truncated": "truncated",
    "refused": "refused",
    "bad_request": "bad_request",
}


class Judge:
    """One judge model for one run. Share it between jobs, so that its stops hold for all of them."""

    def __init__(
        self,
        client: LlmClient,
        identity: JudgeIdentity,
        *,
        mark_key: bytes,
        cache: VerdictCache | None = None,
        hidden: Sequence[str] = (),
        n_parallel: int = N_PARALLEL,
        breaker: Breaker | None = None,
    ) -> None:
        """`hidden`: secrets that no message and no stored verdict may hold; see `build.build_judge`."""
        self._client = client
        self.identity = identity
        self._mark_key = mark_key
        self.cache = cache
        self._hidden = tuple(hidden)
        self._n_parallel = n_parallel
        self._breaker = breaker or Breaker()
        self._turns = Turns()
        self._prompt_versions = {name: prompt_version(name) for name in PROMPTS}

    @property
    def ended_by(self) -> str:
        """Why nothing is asked any more, in words; empty while the judge is at work."""
        return self._breaker.detail

    def ask(self, questions: Sequence[Question]) -> list[Opinion]:
        """Return one opinion a question, in order. Equal questions are asked once.

        Never raises for what the judge or its endpoint does. Questions are begun in the order given, so
        a budget that ends leaves the first ones judged.
        """
        prepared = [self._prepared(question) for question in questions]
        unique = {entry.key: entry for entry in prepared}
        pool = ThreadPoolExecutor(self._n_parallel, thread_name_prefix="judge")
        try:
            found = dict(zip(unique, pool.map(self._opinion, unique.values()), strict=True))
        except BaseException:
            self._breaker.stop()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        pool.shutdown()
        return [found[entry.key] for entry in prepared]

    def _prepared(self, question: Question) -> _Prepared:
        texts = [(name, shown_text(text, self._hidden)) for name, text in question.texts]
        number, data = marked_texts(texts, self._mark_key)
        values: dict[str, Any] = {"nonce": number, "data": data, **dict(question.values)}
        messages = render_prompt(question.prompt, **values)
        key = content_hash(
            {
                "judge": self.identity,
                "schema": strict_schema(question.reply),
                "version": question.version,
                "prompt": [question.prompt, self._prompt_versions[question.prompt]],
                "messages": [[message.role, message.content] for message in messages],
            },
            n_chars=64,
        )
        return _Prepared(key, messages, question)

    def _opinion(self, prepared: _Prepared) -> Opinion:
        schema = prepared.question.reply
        stored = self.cache.find(prepared.key, schema) if self.cache is not None else None
        if stored is not None:
            return _opinion_of(stored, is_cached=True)
        reason = self._breaker.open_reason
        if reason is not None:
            return Opinion(unscored=reason, detail=self._breaker.detail)
        try:
            reply, _ = self._turns.send(
                lambda: self._client.complete("judge", prepared.messages, schema, salt="judge")
            )
        except BudgetError as error:
            self._breaker.money_is_over(error.message)
            return Opinion(unscored="budget", detail=error.message)
        except LlmError as error:
            self._breaker.failed(error.kind, error.message)
            return Opinion(unscored=_REASONS.get(error.kind, "outage"), detail=error.message)
        self._breaker.succeeded()
        kept = self._keepable(reply)
        if self.cache is not None:
            text = kept.model_dump_json()
            self.cache.store(prepared.key, text, kind=prepared.question.prompt, model=self.identity.model)
        return _opinion_of(kept)

    def _keepable(self, reply: JudgeReply) -> JudgeReply:
        rationale = shown_text(str(getattr(reply, "rationale", "")), self._hidden)[:MAX_RATIONALE_CHARS]
        return reply.model_copy(update={"rationale": rationale})


class _Prepared(NamedTuple):
    key: str
    messages: tuple[LlmMessage, ...]
    question: Question


def prompt_version(name: PromptName) -> str:
    """Return a hash over a prompt file's text: a changed wording is another judge."""
    return content_hash(read_prompt(name)[1])


def verdict_of_reply(opinion: Opinion) -> str | None:
    """Return the verdict of a scored opinion, else None."""
    if opinion.unscored is not None or opinion.reply is None:
        return None
    return cast(str, getattr(opinion.reply, "verdict"))  # noqa: B009 - replies are made from rubrics too


def health_of(opinions: Sequence[Opinion]) -> JudgeHealth:
    """Return how many of the opinions are none, and why."""
    reasons: Counter[UnscoredReason] = Counter(o.unscored for o in opinions if o.unscored is not None)
    return JudgeHealth(
        n_asked=len(opinions),
        n_unscored=sum(reasons.values()),
        unscored=dict(reasons),
        n_cached=sum(opinion.is_cached for opinion in opinions),
    )


def joined_health(parts: Sequence[JudgeHealth]) -> JudgeHealth:
    """Return the sum of several jobs."""
    reasons: Counter[UnscoredReason] = Counter()
    for part in parts:
        reasons.update(part.unscored)
    return JudgeHealth(
        n_asked=sum(part.n_asked for part in parts),
        n_unscored=sum(part.n_unscored for part in parts),
        unscored=dict(reasons),
        n_cached=sum(part.n_cached for part in parts),
    )


def _opinion_of(reply: JudgeReply, *, is_cached: bool = False) -> Opinion:
    """`cannot_judge` as the verdict, or for one criterion, leaves the whole question unscored."""
    values = reply.model_dump()
    open_keys = [k for k, value in values.items() if value == "cannot_judge" and k != "rationale"]
    if open_keys:
        return Opinion(
            reply=reply, unscored="cannot_judge", detail=str(values.get("rationale", "")), is_cached=is_cached
        )
    return Opinion(reply=reply, is_cached=is_cached)
