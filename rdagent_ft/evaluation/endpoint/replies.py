"""Reading what a server answered, without believing its shape.

Servers differ: content may be null (a model that only reasoned), choices may be empty, log-probabilities
may be left out. What is no answer gets a reason; it never becomes an empty, wrong answer. What shows
that server and client do not speak of the same tokens ends the evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, cast

from rdagent_ft.evaluation.endpoint.ends import EndpointError
from rdagent_ft.evaluation.endpoint.request import Protocol

FinishReason = Literal["stop", "length"]
_BROKEN_OFF = frozenset({"abort", "error", "content_filter"})


class Generated(NamedTuple):
    """A generated answer as far as it is one.

    `unanswered` is the reason why there is none.
    """

    finish_reason: FinishReason | None
    n_tokens: int | None
    unanswered: str | None


def read_generated(body: dict[str, Any], protocol: Protocol) -> Generated:
    """Return what a completion says of itself."""
    choices = _objects(body.get("choices"))
    n_tokens = _count(body.get("usage"))
    if len(choices) != 1 or choices[0].get("index", 0) != 0:
        return Generated(None, n_tokens, f"the server sent {len(choices)} choices, one was asked for")
    ended: Any = choices[0].get("finish_reason")
    finish_reason: FinishReason | None = ended if ended in ("stop", "length") else None
    if isinstance(ended, str) and ended in _BROKEN_OFF:
        return Generated(None, n_tokens, f"the server broke the answer off: {ended}")
    holder, name = (
        (_object(choices[0].get("message")), "content") if protocol == "chat" else (choices[0], "text")
    )
    text: Any = holder.get(name)
    if not isinstance(text, str):
        return Generated(
            finish_reason, n_tokens, f"the server sent no text (finish_reason {str(ended)[:40]})"
        )
    return Generated(finish_reason, n_tokens, None)


def check_echo(body: dict[str, Any], ids: Sequence[Sequence[int]], ctxlens: Sequence[int]) -> str | None:
    """Compare the echo of a scored text with our own tokens; return why it is no answer, or None.

    Args:
        body: reply to prompts sent with echo, log-probabilities and one generated token.
        ids: our token ids of each prompt with its choice.
        ctxlens: how many of them are the prompt's.

    Raises `EndpointError`: `bad_request` when the server does not score given texts, `tokenizer` when
    it cuts them into other tokens than we do. Likelihoods would be sums over the wrong tokens.
    """
    by_index = {choice.get("index"): choice for choice in _objects(body.get("choices"))}
    if set(by_index) != set(range(len(ids))):
        return f"the server scored {len(by_index)} of {len(ids)} choices"
    for number, (own_ids, ctxlen) in enumerate(zip(ids, ctxlens, strict=True)):
        choice = by_index[number]
        logprobs = _object(choice.get("logprobs"))
        values = _list(logprobs.get("token_logprobs"))
        if not values:
            raise EndpointError(
                "bad_request",
                "the server returns no log-probabilities of a given text",
                hint="`choose` needs /v1/completions with echo and logprobs, as vLLM has",
            )
        _check_tokens(choice.get("prompt_token_ids"), own_ids, len(values))
        tops = _list(logprobs.get("top_logprobs"))
        if len(tops) != len(values):
            return "the server sent log-probabilities without the likeliest tokens"
        if not all(_is_number(value) for value in values[ctxlen:-1]):
            return "a log-probability of the choice is no number"
        if not all(_object(top) for top in tops[ctxlen:-1]):
            return "the server sent no likeliest token for a token of the choice"
    return None


def _check_tokens(echoed: Any, own: Sequence[int], n_scored: int) -> None:
    hint = "give the folder of the tokenizer that this very server uses"
    if isinstance(echoed, list) and echoed != list(own):
        raise EndpointError(
            "tokenizer",
            f"the server cuts a text into {len(cast('list[Any]', echoed))} tokens, the given tokenizer into "
            f"{len(own)}, or into others: likelihoods would be wrong",
            hint=hint,
        )
    if n_scored != len(own) + 1:
        raise EndpointError(
            "tokenizer",
            f"the server scored {n_scored} tokens of a text that has {len(own)} and one generated: "
            "likelihoods would be wrong",
            hint=hint,
        )


def _object(value: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _list(value: Any) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else []


def _objects(value: Any) -> list[dict[str, Any]]:
    return [_object(entry) for entry in _list(value) if isinstance(entry, dict)]


def _count(usage: Any) -> int | None:
    found: Any = _object(usage).get("completion_tokens")
    return found if type(found) is int and 0 <= found <= 10**9 else None


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)
