"""Are the rewards right? Gold answers must score best and wrong ones worse, before anything is trained.

A broken reward trains a model to be wrong and looks like success. Scored are, on some rows: the gold
answer, an empty one, the gold answer cut in half, and gold answers of other rows. What is asked of a
reward depends on its kind: a format reward need not tell one row's answer from another's, and a person's
function may judge anything (length, style), so that only the weighted sum with the others has to prefer
gold. Not covered: rewards that can be gamed in other ways. Standard library only.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from rdagent_ft.errors import Problem
from rdagent_ft.training.rewards.code_reward import tests_of
from rdagent_ft.training.rewards.reward import (
    THINK_CLOSE,
    THINK_OPEN,
    RewardError,
    RewardFunction,
    Score,
    answer_of,
    gold_of,
    text_of,
)

MAX_ROWS = 64
MAX_CODE_ROWS = 12
"""Rows that are scored when programs have to be run for them."""

MAX_BAD_SHARE = 0.05
"""Share of rows that may break a rule: real data has some wrong gold answers."""

N_OTHERS = 3
BEST = 1.0
OWN_SCALE = frozenset({"python"})
FORMATS = frozenset({"regex", "json_schema", "think_format"})
"""Kinds that judge the form of an answer, not whether it is the row's."""
WITH_REASONING = frozenset({"regex", "think_format"})
"""Kinds that see the reasoning as well: gold answers are tried with some before them, too."""

CUT_MAY_FIT = frozenset({"regex", "think_format"})

Sample = Literal["gold", "empty", "cut", "other"]


@dataclass(frozen=True, slots=True)
class RewardProblem:
    """What is wrong with one reward.

    Attributes:
        reward: its name; `sum` for the weighted sum of all.
        row: number of the first row that shows it, from 0; None when all rows together do.
        value: what it scored there.
        rule: what it breaks.
        fix: what to do.
    """

    reward: str
    row: int | None
    value: float | None
    rule: str
    fix: str

    def as_problem(self) -> Problem:
        """Return it as the problem that reports and exit messages carry; class `reward.broken`."""
        place = "rewards" if self.row is None else f"rewards on row {self.row}"
        return Problem(f"{place}: {self.reward}", self.value, self.rule, "reward.broken", self.fix)


class _Asked(NamedTuple):
    """One answer that is scored: which row, what it is, and its text in the shape of the data."""

    row: int
    sample: Sample
    completion: Any


Scores = dict[int, dict[Sample, list[float]]]
"""Row -> sample -> scores of one reward; samples that it does not apply to are left out."""


def check_rewards(
    rewards: Sequence[RewardFunction],
    rows: Sequence[Mapping[str, Any]],
    *,
    max_rows: int = MAX_ROWS,
    complete: bool = True,
) -> list[RewardProblem]:
    """Return what is wrong with the rewards on up to `max_rows` of the rows; empty when nothing is.

    Args:
        rewards: as `load_rewards` returns them; with `kinds=CHEAP_KINDS` this may run in a controller.
        rows: of the training data: `prompt`, `gold`, `tests` for code, other columns.
        max_rows: how many rows are scored, drawn from all of them; fewer when programs must be run.
        complete: these are all rewards of the stage, so that their sum is judged as well.
    """
    problems = [
        problem for reward in rewards if reward.kind == "code" for problem in _bad_tests(reward, rows)
    ]
    if problems or not rewards:
        return problems
    if not rows:
        return [
            RewardProblem("sum", None, None, "there are no rows to score", "give the stage training rows")
        ]
    runs_code = any(reward.kind == "code" for reward in rewards)
    chosen = _sampled(len(rows), min(max_rows, MAX_CODE_ROWS) if runs_code else max_rows)
    asked = [one for row in chosen for one in _answers(row, chosen, rows)]
    if not asked:
        rule = "no row has a gold answer in the column `gold`, so no reward can be tried"
        return [RewardProblem("sum", None, None, rule, "give the rows gold answers")]
    totals = [0.0] * len(asked)
    for reward in rewards:
        try:
            found = _score(reward, asked, rows)
        except RewardError as error:
            problems.append(RewardProblem(reward.name, None, None, str(error), "correct the reward"))
            continue
        problems += _judge(reward, _by_row(asked, found))
        totals = [total + reward.weight * (score or 0.0) for total, score in zip(totals, found, strict=True)]
    if problems or not complete:
        return problems
    return _judge_sum(asked, totals)


def reference_of(row: Mapping[str, Any]) -> str | None:
    """Return a row's gold answer as the text that a perfect model would write; None without one."""
    gold: object = row.get("gold")
    text = text_of(gold)
    return text if text.strip() else gold_of(gold)


def _bad_tests(reward: RewardFunction, rows: Sequence[Mapping[str, Any]]) -> list[RewardProblem]:
    """Look at the tests of all rows: in training a bad one would end the job at any hour."""
    n_with_tests = 0
    for number, row in enumerate(rows):
        try:
            n_with_tests += bool(tests_of(row.get("tests")))
        except RewardError as error:
            return [RewardProblem(reward.name, number, None, str(error), "correct the row's `tests`")]
    if rows and not n_with_tests:
        rule = "no row has tests in the column `tests`"
        return [RewardProblem(reward.name, None, None, rule, "give the rows tests, or take another reward")]
    return []


def _sampled(n_rows: int, n_wanted: int) -> list[int]:
    """Return row numbers, the same ones each time; drawn, because steps may fall in with the data's own."""
    return sorted(random.Random(0).sample(range(n_rows), min(n_rows, max(1, n_wanted))))


def _answers(row: int, chosen: Sequence[int], rows: Sequence[Mapping[str, Any]]) -> list[_Asked]:
    """Return the answers that are scored on a row; none when it has no gold answer."""
    gold = reference_of(rows[row])
    if gold is None:
        return []
    bare = answer_of(gold).strip()
    place = chosen.index(row)
    others = [reference_of(rows[other]) for other in (*chosen[place + 1 :], *chosen[:place])]
    different = [
        text for text in dict.fromkeys(filter(None, others))
        if answer_of(text).strip().casefold() != bare.casefold()
    ]  # fmt: skip
    found: list[tuple[Sample, str]] = [("gold", gold), ("empty", ""), ("cut", bare[: len(bare) // 2])]
    for text in different[:N_OTHERS]:
        found.append(("other", text))
    conversational = isinstance(rows[row].get("prompt"), list)
    return [
        _Asked(row, sample, [{"role": "assistant", "content": text}] if conversational else text)
        for sample, text in found
    ]


def _score(reward: RewardFunction, asked: Sequence[_Asked], rows: Sequence[Mapping[str, Any]]) -> list[Score]:
    """Return the scores as training would see them: one call with the columns of the rows."""
    names = sorted({name for one in asked for name in rows[one.row]} - {"prompt", "completion"})
    columns = {name: [rows[one.row].get(name) for one in asked] for name in names}
    prompts = [rows[one.row].get("prompt", "") for one in asked]

    def scores_of(completions: list[Any]) -> list[Score]:
        return reward(prompts=prompts, completions=completions, **columns)

    bare = [one.completion for one in asked]
    if reward.kind not in WITH_REASONING:
        return scores_of(bare)
    with_thought = [_with_thought(one, prompt) for one, prompt in zip(asked, prompts, strict=True)]
    better = max if reward.weight >= 0 else min
    pairs = zip(scores_of(bare), scores_of(with_thought), strict=True)
    return [better(one or 0.0, other or 0.0) for one, other in pairs]


def _with_thought(one: _Asked, prompt: object) -> Any:
    """Return the completion with reasoning before it, when it has none: gold answers seldom have one."""
    text = text_of(one.completion)
    if one.sample in {"empty", "cut"} or THINK_CLOSE in text:
        return one.completion
    opened = isinstance(prompt, str) and prompt.rstrip().endswith(THINK_OPEN)
    text = f"{'' if opened else THINK_OPEN}\nreasoning\n{THINK_CLOSE}\n{text}"
    return text if isinstance(one.completion, str) else [{"role": "assistant", "content": text}]


def _by_row(asked: Sequence[_Asked], found: Sequence[Score]) -> Scores:
    scores: Scores = {}
    for one, score in zip(asked, found, strict=True):
        if score is not None:
            scores.setdefault(one.row, {}).setdefault(one.sample, []).append(score)
    return {row: samples for row, samples in scores.items() if "gold" in samples}


def _judge(reward: RewardFunction, scores: Scores) -> list[RewardProblem]:
    if not scores:
        rule = "applies to none of the rows that were tried (their gold answers cannot be read for it)"
        fix = "give gold answers in the form that this kind reads, or take another kind"
        return [RewardProblem(reward.name, None, None, rule, fix)]
    if reward.weight < 0:
        return _judge_penalty(reward, scores)
    problems = [_constant(reward, scores)]
    if reward.weight > 0 and reward.kind not in OWN_SCALE:
        problems += [_gold_below_best(reward, scores), _no_better_than_empty(reward, scores)]
        if reward.kind not in CUT_MAY_FIT:
            problems.append(_never_better_than(reward, scores, "cut"))
        if reward.kind not in FORMATS:
            problems.append(_never_better_than(reward, scores, "other"))
    found = [problem for problem in problems if problem is not None]
    return found[:1]  # the others follow from the first


def _judge_penalty(reward: RewardFunction, scores: Scores) -> list[RewardProblem]:
    """A reward with a negative weight must spare gold answers; what it punishes may never occur here."""
    if reward.kind in OWN_SCALE:
        return []
    bad = [row for row in scores if scores[row]["gold"][0] > 0.0]
    if len(bad) <= MAX_BAD_SHARE * len(scores):
        return []
    rule = f"punishes the gold answer on {len(bad)} of {len(scores)} rows (its weight is negative)"
    fix = "turn the sign of the weight, or correct what it looks for"
    return [RewardProblem(reward.name, bad[0], scores[bad[0]]["gold"][0], rule, fix)]


def _constant(reward: RewardFunction, scores: Scores) -> RewardProblem | None:
    values = {score for samples in scores.values() for found in samples.values() for score in found}
    if len(values) > 1:
        return None
    value = values.pop()
    if value == 0.0 and reward.kind not in OWN_SCALE:
        return None  # `_gold_below_best` says more
    rule = f"gives {value:g} to every answer, right or wrong: nothing can be learnt from it"
    return RewardProblem(reward.name, min(scores), value, rule, "let it tell right answers from wrong ones")


def _gold_below_best(reward: RewardFunction, scores: Scores) -> RewardProblem | None:
    bad = [row for row in scores if scores[row]["gold"][0] < BEST]
    if len(bad) <= MAX_BAD_SHARE * len(scores):
        return None
    rule = f"gives the gold answer less than {BEST:g} on {len(bad)} of {len(scores)} rows"
    fix = "correct the reward, or the gold answers (and tests) of these rows"
    return RewardProblem(reward.name, bad[0], scores[bad[0]]["gold"][0], rule, fix)


def _no_better_than_empty(reward: RewardFunction, scores: Scores) -> RewardProblem | None:
    bad = [
        row for row, samples in scores.items() if max(samples.get("empty", [-1.0])) >= samples["gold"][0] > 0
    ]
    if len(bad) <= MAX_BAD_SHARE * len(scores):
        return None
    rule = f"scores an empty answer as high as the gold answer on {len(bad)} of {len(scores)} rows"
    return RewardProblem(reward.name, bad[0], scores[bad[0]]["empty"][0], rule, "make it stricter")


def _never_better_than(reward: RewardFunction, scores: Scores, sample: Sample) -> RewardProblem | None:
    """One row where gold is better is enough: halves and other rows' answers can be right by chance."""
    compared = [row for row, samples in scores.items() if sample in samples]
    if not compared or any(min(scores[row][sample]) < scores[row]["gold"][0] for row in compared):
        return None
    words = {"cut": "half of the gold answer", "other": "other rows' answers"}[sample]
    rule = f"scores {words} as high as the gold answer on every row"
    fix = "compare what differs between right and wrong answers"
    return RewardProblem(reward.name, compared[0], max(scores[compared[0]][sample]), rule, fix)


def _judge_sum(asked: Sequence[_Asked], totals: Sequence[float]) -> list[RewardProblem]:
    gold = [total for one, total in zip(asked, totals, strict=True) if one.sample == "gold"]
    wrong = [total for one, total in zip(asked, totals, strict=True) if one.sample != "gold"]
    mean_gold, mean_wrong = sum(gold) / len(gold), sum(wrong) / len(wrong)
    if mean_gold > mean_wrong:
        return []
    rule = f"the weighted sum is {mean_gold:.4g} for gold answers and {mean_wrong:.4g} for wrong ones (means)"
    return [RewardProblem("sum", None, mean_gold, rule, "correct the rewards or their weights")]
