"""The canary: proof that a loaded adapter is applied, from the next token's log-probabilities.

A server that accepts an adapter and serves the base would give every candidate the base's score. So
some probe must get another distribution than from the base, by more than the base differs from itself
when it is asked twice. This says that the adapter acts, not that it acts rightly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, cast

from rdagent_ft.evaluation.serving.failures import ServerError
from rdagent_ft.values import Frozen

N_TOP = 20
"""Tokens whose log-probability is compared; the most that vLLM gives by default."""
MIN_DIFFERENCE = 1e-5
"""Nats; float32 arithmetic of one model repeats to about 1e-6."""
NOISE_FACTOR = 4.0

Ask = Callable[[dict[str, Any]], Any]
"""Sends a body to `/v1/completions` and returns the answer's JSON."""
NextTokens = dict[str, float]
"""Token -> natural log-probability of being next, of the likeliest tokens of one prompt."""


class CanaryResult(Frozen):
    """What a canary saw.

    Attributes:
        n_probes: prompts asked.
        n_differing: prompts whose next-token distribution is not the base's.
        max_difference: largest difference between adapter and base, nats; at least so large where a
            token is among the likeliest of one only.
        noise: largest difference between two answers of the base, nats.
        n_broken: prompts answered with NaN, with no tokens, or with a probability above 1.
    """

    n_probes: int
    n_differing: int
    max_difference: float
    noise: float
    n_broken: int

    @property
    def is_applied(self) -> bool:
        """Whether the adapter acts and answers with numbers."""
        return self.n_broken == 0 and self.n_differing > 0


def run_canary(ask: Ask, base: str, adapter: str, probes: Sequence[str]) -> CanaryResult:
    """Ask base, adapter and base again for the next token of each probe, and compare.

    Raises `ServerError` when an answer does not have the protocol's form.
    """
    first = next_tokens(ask, base, probes)
    tuned = next_tokens(ask, adapter, probes)
    return compare(first, tuned, next_tokens(ask, base, probes))


def compare(
    base: Sequence[NextTokens], tuned: Sequence[NextTokens], base_again: Sequence[NextTokens]
) -> CanaryResult:
    """Return the comparison of answers to the same probes, in the same order."""
    n_broken = sum(not _is_sound(answer) for answer in tuned)
    noise = max((_difference(*pair) for pair in zip(base, base_again, strict=True)), default=0.0)
    differences = [
        _difference(before, after) if _is_sound(after) else 0.0
        for before, after in zip(base, tuned, strict=True)
    ]
    limit = max(MIN_DIFFERENCE, NOISE_FACTOR * noise)
    return CanaryResult(
        n_probes=len(tuned),
        n_differing=sum(difference > limit for difference in differences),
        max_difference=max(differences, default=0.0),
        noise=noise,
        n_broken=n_broken,
    )


def next_tokens(ask: Ask, model: str, probes: Sequence[str]) -> list[NextTokens]:
    """Return the likeliest next tokens of each probe, in order; {} where the answer holds none."""
    answer = ask(
        {
            "model": model,
            "prompt": list(probes),
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": N_TOP,
            # Else tokens are keys by their text, and those that are no whole UTF-8 collide.
            "return_tokens_as_token_ids": True,
        }
    )
    try:
        choices = sorted(cast("list[dict[str, Any]]", answer["choices"]), key=lambda one: int(one["index"]))
        found = [_likeliest(choice) for choice in choices]
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise ServerError(f"the answer to a probe is malformed: {error!r:.200}", kind="away") from error
    if len(found) != len(probes):
        raise ServerError(f"{len(found)} answers came to {len(probes)} probes", kind="away")
    return found


def _likeliest(choice: dict[str, Any]) -> NextTokens:
    """Return the first position's tokens of one choice; {} where the answer holds none."""
    logprobs = cast("dict[str, Any]", choice["logprobs"] or {})
    positions = cast("list[dict[str, Any] | None]", logprobs.get("top_logprobs") or [None])
    return {token: float(value) for token, value in (positions[0] or {}).items()}


def _is_sound(answer: NextTokens) -> bool:
    # vLLM writes minus infinity as -9999; a log-probability is never above 0 but for rounding.
    return bool(answer) and all(math.isfinite(value) and value <= 1e-3 for value in answer.values())


def _difference(one: NextTokens, other: NextTokens) -> float:
    """Return the largest difference between two lists, nats.

    A token that the other list lacks is at most as likely there as the least likely one listed.
    """
    if not (_is_sound(one) and _is_sound(other)):
        return math.inf
    in_both = (abs(one[token] - other[token]) for token in one.keys() & other.keys())
    return max(*in_both, _least_gap(one, other), _least_gap(other, one))


def _least_gap(one: NextTokens, other: NextTokens) -> float:
    least = min(other.values())
    return max((value - least for token, value in one.items() if token not in other), default=0.0)


def refuse_unapplied(name: str, canary: CanaryResult) -> None:
    """Raise `ServerError`: `nan` for answers without numbers, `inert` for an adapter that changes none."""
    if canary.n_broken:
        raise ServerError(
            f"adapter {name!r} answers {canary.n_broken} of {canary.n_probes} probes with no numbers",
            kind="nan",
        )
    if not canary.is_applied:
        raise ServerError(
            f"adapter {name!r} answers all {canary.n_probes} probes as the base does"
            f" (largest difference {canary.max_difference:.2g}, noise {canary.noise:.2g} nats)",
            kind="inert",
            hint="its training changed nothing, or the server does not apply it",
        )
