"""First the rule, then the judge on what the rule missed; both scores stay side by side.

The judge can only add points here, so base and tuned are judged alike, the share that it rescued is told
for each, and a gain that comes from unequal rescues is named. A sample of what the rule accepted is
audited, which changes no score. For scorers whose reference is an answer in words, a number or a
formula; not for `ifeval` or code.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

from rdagent_ft.evaluation.judge.judge import Judge, health_of, joined_health, verdict_of_reply
from rdagent_ft.evaluation.judge.replies import EquivalenceReply
from rdagent_ft.evaluation.judge.sides import interleaved, item_rank, question_of, without_half_pairs
from rdagent_ft.evaluation.judge.texts import visible_text
from rdagent_ft.evaluation.judge.values import JudgeHealth, Opinion, Question
from rdagent_ft.evaluation.rows import Comparison, SampleRow
from rdagent_ft.evaluation.statistics import compare
from rdagent_ft.values import Frozen

AUDIT_SHARE = 0.05
EXPLAINED_SHARE = 0.5
"""From this share of a gain on, unequal rescues count as its explanation."""


class JudgedRows(Frozen):
    """One side: the rule's rows and the same rows with the judge's verdicts.

    Attributes:
        rule_rows: as they were given; no judge can take anything from them.
        judged_rows: misses that the judge found correct score 1, those without a verdict are unscored.
        n_missed: rows that the rule scored below 1.
        n_rescued: of those, found correct by the judge.
        rescue_share: rescued rows over all rows with a score in `judged_rows`: the judge's part of the mean.
        rescue_rate: rescued rows over misses with a verdict; None without such.
        n_audited, n_audit_disagreed: rule-accepted rows that the judge was shown, and rejected.
    """

    rule_rows: tuple[SampleRow, ...]
    judged_rows: tuple[SampleRow, ...]
    n_missed: int
    n_rescued: int
    rescue_share: float
    rescue_rate: float | None
    n_audited: int
    n_audit_disagreed: int
    health: JudgeHealth


class CascadeResult(Frozen):
    """Both sides and their differences.

    Attributes:
        rule: tuned - base by the rule alone.
        with_judge: the same with the judge's verdicts; None when no item has a score on both sides.
        n_half_pairs: rows left out because the other side had no verdict.
        rescue_difference: tuned's rescue share minus base's.
        alert: why the gain is not to be believed; None when there is no reason.
    """

    base: JudgedRows
    tuned: JudgedRows
    rule: Comparison
    with_judge: Comparison | None
    n_half_pairs: int
    rescue_difference: float
    alert: str | None
    health: JudgeHealth


def judge_rule_misses(
    rows: Sequence[SampleRow], questions: Mapping[str, str], judge: Judge, *, seed: int
) -> JudgedRows:
    """Ask the judge about one side's rule misses and about an audit sample. Costs one request a row.

    Args:
        rows: scored by a rule. Rows without a score stay so; an answer without visible text stays a miss.
        questions: item id -> the question as a person reads it.
        seed: chooses the audit sample.
    """
    missed, audited = _missed(rows), _audit_sample(rows, seed)
    opinions = judge.ask([_question(row, questions) for row in (*missed, *audited)])
    return _judged(rows, missed, audited, opinions)


def judge_both_sides(
    base: Sequence[SampleRow],
    tuned: Sequence[SampleRow],
    questions: Mapping[str, str],
    judge: Judge,
    *,
    seed: int,
    margin: float,
) -> CascadeResult:
    """Ask the judge about both sides' misses in turn, so that whatever ends, ends for both.

    `margin` as in `statistics.compare`. Raises `JobError` when the sides hold different items.
    """
    rule = compare(base, tuned, margin=margin)
    sides = (base, tuned)
    missed = [_missed(side) for side in sides]
    audited = [_audit_sample(side, seed) for side in sides]
    marked = [
        *interleaved(*([(n, row) for row in rows] for n, rows in enumerate(missed))),
        *interleaved(*([(n, row) for row in rows] for n, rows in enumerate(audited))),
    ]
    opinions = judge.ask([_question(row, questions) for _, row in marked])
    by_side = [[o for (n, _), o in zip(marked, opinions, strict=True) if n == side] for side in (0, 1)]
    judged = [_judged(sides[n], missed[n], audited[n], by_side[n]) for n in (0, 1)]
    return _paired(judged[0], judged[1], rule, margin)


def _paired(base: JudgedRows, tuned: JudgedRows, rule: Comparison, margin: float) -> CascadeResult:
    base_rows, tuned_rows, n_half = without_half_pairs(base.judged_rows, tuned.judged_rows)
    base, tuned = _with_rows(base, base_rows), _with_rows(tuned, tuned_rows)
    is_scored = any(row.score is not None for row in base_rows)
    with_judge = compare(base_rows, tuned_rows, margin=margin) if is_scored else None
    difference = tuned.rescue_share - base.rescue_share
    return CascadeResult(
        base=base,
        tuned=tuned,
        rule=rule,
        with_judge=with_judge,
        n_half_pairs=n_half,
        rescue_difference=difference,
        alert=_alert(rule, with_judge, difference),
        health=joined_health([base.health, tuned.health]),
    )


def _alert(rule: Comparison, with_judge: Comparison | None, difference: float) -> str | None:
    return None if with_judge is None else rescue_alert(rule.delta, with_judge.delta, difference)


def rescue_alert(rule_delta: float, judged_delta: float, difference: float) -> str | None:
    """Return why a gain with the judge is not to be believed, or None.

    `difference`: what the judge gave the tuned model more than the base, as a share of all answers.
    """
    if judged_delta <= 0 or difference < EXPLAINED_SHARE * judged_delta:
        return None
    return (
        f"{difference:+.1%} of the gain of {judged_delta:+.1%} comes from the judge: it accepts more of "
        f"the tuned model's rule misses than of the base model's; by the rule alone: {rule_delta:+.1%}"
    )


def _missed(rows: Sequence[SampleRow]) -> list[SampleRow]:
    return [row for row in rows if row.score is not None and row.score < 1.0 and visible_text(row.prediction)]


def _audit_sample(rows: Sequence[SampleRow], seed: int) -> list[SampleRow]:
    accepted = [row for row in rows if row.score is not None and row.score >= 1.0]
    ranked = sorted(accepted, key=lambda row: (item_rank(row.item_id, seed), row.repeat))
    return ranked[: math.ceil(AUDIT_SHARE * len(ranked))]


def _question(row: SampleRow, questions: Mapping[str, str]) -> Question:
    return equivalence_question(question_of(questions, row.item_id), row.gold, row.prediction)


def equivalence_question(question: str, reference: str, answer: str) -> Question:
    """Return the request whether `answer` says the same as `reference`."""
    return Question(
        prompt="judge_equivalence",
        texts=(
            ("question", visible_text(question)),
            ("reference", visible_text(reference)),
            ("answer", visible_text(answer)),
        ),
        reply=EquivalenceReply,
    )


def _judged(
    rows: Sequence[SampleRow],
    missed: Sequence[SampleRow],
    audited: Sequence[SampleRow],
    opinions: Sequence[Opinion],
) -> JudgedRows:
    """`opinions` are those of `missed`, then those of `audited`."""
    verdicts: Iterator[Opinion] = iter(opinions)
    by_row = {(row.item_id, row.repeat): next(verdicts) for row in missed}
    audit = [verdict_of_reply(next(verdicts)) for _ in audited]
    judged_rows = tuple(_with_verdict(row, by_row.get((row.item_id, row.repeat))) for row in rows)
    judged = JudgedRows(
        rule_rows=tuple(rows),
        judged_rows=(),
        n_missed=sum(row.score is not None and row.score < 1.0 for row in rows),
        n_rescued=0,
        rescue_share=0.0,
        rescue_rate=None,
        n_audited=sum(verdict is not None for verdict in audit),
        n_audit_disagreed=sum(verdict == "incorrect" for verdict in audit),
        health=health_of(opinions),
    )
    return _with_rows(judged, judged_rows)


def _with_verdict(row: SampleRow, opinion: Opinion | None) -> SampleRow:
    if opinion is None:
        return row
    if opinion.unscored is not None:
        return row.model_copy(update={"score": None, "unscored_reason": f"judge: {opinion.unscored}"})
    return row.model_copy(update={"score": 1.0}) if verdict_of_reply(opinion) == "correct" else row


def _with_rows(side: JudgedRows, judged_rows: tuple[SampleRow, ...]) -> JudgedRows:
    """Return the side with these rows, its rescues counted over them."""
    pairs = [p for p in zip(side.rule_rows, judged_rows, strict=True) if p[1].score is not None]
    was_missed = [(rule, judged) for rule, judged in pairs if rule.score is not None and rule.score < 1.0]
    n_rescued = sum(judged.score == 1.0 for _, judged in was_missed)
    gained = math.fsum((j.score or 0.0) - (r.score or 0.0) for r, j in was_missed)
    return side.model_copy(
        update={
            "judged_rows": judged_rows,
            "n_rescued": n_rescued,
            "rescue_share": gained / len(pairs) if pairs else 0.0,
            "rescue_rate": n_rescued / len(was_missed) if was_missed else None,
        }
    )
