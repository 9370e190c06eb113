"""SampleRow, Score and Comparison: the only things that means and claims are computed from."""

from __future__ import annotations

from typing import Literal

from rdagent_ft.values import Frozen

RuleName = Literal["exact_match", "json_match", "numeric_match", "token_f1", "choice_match"]
"""Scorers that are plain rules: in-process and in linear time."""

ScorerName = RuleName | Literal["math_match", "ifeval", "code_pass", "rubric"]
"""All scorers. Beyond rules: children of this process (math_match, ifeval), a sandbox (code_pass), a
judge (rubric)."""

PromptFormat = Literal["plain", "chat"]
Verdict = Literal["improved", "equivalent", "inconclusive", "regressed"]


class SampleRow(Frozen):
    """One answer of one model to one item.

    Attributes:
        benchmark: registry name, e.g. `heldout`.
        split: which split the item belongs to.
        item_id: content hash of the item.
        cluster: items that share a cluster are not independent; None means its own.
        repeat: index of the sample for this item, from 0.
        prompt_hash: 16 hex digits of the exact prompt text the model saw.
        prediction: raw text of the model.
        extracted: what the scorer took from it; None when nothing could be taken.
        gold: the expected answer.
        score: 0..1, None when unscored.
        unscored_reason: why `score` is None.
        finish_reason: `stop`, `length` or None when unknown.
        n_tokens: generated tokens, None when unknown.
        latency_s: seconds for this item, None when unknown.
        parts: further measures of this answer, name -> values; a measure of the benchmark is the sum of
            its values over their number (IFEval: one value an instruction).
    """

    benchmark: str
    split: str
    item_id: str
    cluster: str | None = None
    repeat: int = 0
    prompt_hash: str
    prediction: str
    extracted: str | None = None
    gold: str
    score: float | None = None
    unscored_reason: str | None = None
    finish_reason: Literal["stop", "length"] | None = None
    n_tokens: int | None = None
    latency_s: float | None = None
    parts: dict[str, tuple[float, ...]] = {}


class Score(Frozen):
    """Mean of a split with its error. `n` counts scored items, `n_expected` all items."""

    benchmark: str
    split: str
    scorer: ScorerName
    value: float
    stderr: float
    ci95: tuple[float, float]
    n: int
    n_expected: int
    n_unscored: int = 0


class Comparison(Frozen):
    """Paired difference tuned - base on the same items.

    Attributes:
        delta, se: mean and standard error of the per-item differences.
        ci95: t interval of delta.
        p_mcnemar: exact two-sided McNemar p for binary scores, else None.
        p_value: two-sided p of no difference, the one to correct for several benchmarks: McNemar's
            for independent right-or-wrong items, else Student's t; None in records without it.
        discordant: (items only tuned has right, items only base has right) for binary scores.
        mde: smallest difference this comparison could have shown (2.8 x SE, 80 % power).
        verdict: improved | regressed | equivalent | inconclusive.
    """

    benchmark: str
    split: str
    n: int
    base: float
    tuned: float
    delta: float
    se: float
    ci95: tuple[float, float]
    p_mcnemar: float | None = None
    p_value: float | None = None
    discordant: tuple[int, int] | None = None
    mde: float
    verdict: Verdict
