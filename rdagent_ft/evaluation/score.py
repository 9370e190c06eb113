"""From answers to SampleRows: the one place that decides which scorer looks at what.

Rules run here. Scorers that need something from outside (a sandbox for code, a judge) get it through
`Outside`, so that this package starts neither containers nor requests by itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from rdagent_ft.errors import JobError, Problem
from rdagent_ft.evaluation.ifeval_answers import ifeval_problems, score_ifeval
from rdagent_ft.evaluation.items import Answer, EvalItem, read_items
from rdagent_ft.evaluation.math_answers import math_problems, score_math
from rdagent_ft.evaluation.outside import CodeCase, CodeResult, GradeCase, Outside
from rdagent_ft.evaluation.port import EvalRequest, EvalTask
from rdagent_ft.evaluation.rows import SampleRow, ScorerName
from rdagent_ft.evaluation.scorers import Scored, score_answer
from rdagent_ft.values import Frozen

TRUNCATED_PROMPT = "the prompt does not fit the model's context beside the generation limit"
NOTHING = Outside()

Samples = dict[tuple[str, str, str], list[SampleRow]]
"""(role, benchmark, split) -> rows."""


class _Pair(NamedTuple):
    item: EvalItem
    answer: Answer


def missing_outside(tasks: Sequence[EvalTask], outside: Outside) -> list[Problem]:
    """Return what the tasks' scorers need and have not: a sandbox, a package, a data file.

    To be asked before anything is generated: an answer that nobody can score is wasted work.
    """
    return missing_for([(task.benchmark, task.scorer) for task in tasks], outside)


def missing_for(wanted: Sequence[tuple[str, ScorerName]], outside: Outside) -> list[Problem]:
    """Return `missing_outside` of (benchmark, scorer) pairs, before there are tasks."""
    problems: list[Problem] = []
    scorers: dict[ScorerName, None] = dict.fromkeys(scorer for _, scorer in wanted)
    for scorer in scorers:
        named = ", ".join(benchmark for benchmark, needed in wanted if needed == scorer)
        problems += _missing(scorer, named, outside)
    return problems


def refuse_missing(tasks: Sequence[EvalTask], outside: Outside) -> None:
    """Raise `JobError` that lists all of `missing_outside`."""
    problems = missing_outside(tasks, outside)
    if problems:
        raise JobError("answers could not be scored: something is missing", problems=tuple(problems))


def score_request(
    request: EvalRequest,
    answers: dict[tuple[str, str, str], list[Answer]],
    outside: Outside = NOTHING,
) -> Samples:
    """Score everything that a harness left for one request. Raises `JobError` as `score_answers` does."""
    refuse_missing(request.tasks, outside)
    samples: Samples = {}
    for model, task in request.pairs():
        items = read_items(task.items_file, task.n_items)
        key = model.role, task.benchmark, task.split
        samples[key] = score_answers(task, items, answers[key], outside)
    return samples


def score_answers(
    task: EvalTask, items: Sequence[EvalItem], answers: Sequence[Answer], outside: Outside = NOTHING
) -> list[SampleRow]:
    """Return one row an answer, in item order and then by repeat.

    An answer that is none (a failed request, a prompt that was cut) is unscored with the reason.
    Raises `JobError` when the scorer needs what `outside` lacks.
    """
    by_item: dict[str, list[Answer]] = {}
    for answer in answers:
        by_item.setdefault(answer.item_id, []).append(answer)
    pairs = [
        _Pair(item, answer)
        for item in items
        for answer in sorted(by_item.get(item.item_id, []), key=lambda found: found.repeat)
    ]
    asked = [pair for pair in pairs if _unread(pair.answer) is None]
    scores = iter(_score(task.scorer, asked, outside) if asked else [])
    return [_row(task, pair, _unscored(pair.answer) or next(scores)) for pair in pairs]


def _score(scorer: ScorerName, pairs: Sequence[_Pair], outside: Outside) -> list[Scored]:
    """Return one score a pair, in order."""
    texts = [(pair.answer.prediction, pair.item.gold) for pair in pairs]
    match scorer:
        case "math_match":
            return score_math(texts)
        case "ifeval":
            return score_ifeval(texts, nltk_data=outside.nltk_data)
        case "code_pass":
            return _score_code(pairs, outside)
        case "rubric":
            return _score_graded(pairs, outside)
        case _:
            return [score_answer(scorer, prediction, gold) for prediction, gold in texts]


def _score_code(pairs: Sequence[_Pair], outside: Outside) -> list[Scored]:
    from rdagent_ft.evaluation.code.programs import program_of

    if outside.run_code is None:
        refuse = _missing("code_pass", "code_pass", outside)
        raise JobError("answers could not be scored", problems=tuple(refuse))
    cases = [
        CodeCase(
            case_id=f"{item.item_id}-{answer.repeat}",
            program=program_of(item.gold, item.prompt, answer.prediction),
        )
        for item, answer in pairs
    ]
    results = outside.run_code(cases)
    if [result.case_id for result in results] != [case.case_id for case in cases]:
        raise JobError(f"{len(cases)} programs were to be run, {len(results)} other results came back")
    return [_code_score(result) for result in results]


def _score_graded(pairs: Sequence[_Pair], outside: Outside) -> list[Scored]:
    """Return the judge's grades; an answer without one is unscored with the reason."""
    if outside.grade is None:
        refuse = _missing("rubric", "rubric", outside)
        raise JobError("answers could not be scored", problems=tuple(refuse))
    cases: list[GradeCase] = []
    for item, answer in pairs:
        gold = _OwnGold.model_validate_json(item.gold)
        cases.append(
            GradeCase(
                case_id=f"{item.item_id}-{answer.repeat}",
                rubric=gold.rubric,
                reference=gold.reference or "",
                question=question_text(item),
                answer=answer.prediction,
            )
        )
    return [
        Scored(score=found.score, unscored_reason=found.reason, parts=found.parts)
        for found in outside.grade(cases)
    ]


def question_text(item: EvalItem) -> str:
    """Return an item's conversation as a person reads it; its rendered prompt where it has no messages."""
    if len(item.messages) == 1:
        return item.messages[0].content
    return "\n\n".join(f"{turn.role}: {turn.content}" for turn in item.messages) or item.prompt


class _OwnGold(Frozen):
    """The reference of a rubric item, as `own_benchmark` writes it."""

    rubric: str
    reference: str | None = None


def _code_score(result: CodeResult) -> Scored:
    if result.outcome == "not_run":
        return Scored(score=None, unscored_reason=f"the program was not run: {result.detail}"[:300])
    return Scored(score=float(result.outcome == "passed"), extracted=result.outcome)


def _missing(scorer: ScorerName, named: str, outside: Outside) -> list[Problem]:
    match scorer:
        case "math_match":
            return math_problems()
        case "ifeval":
            return ifeval_problems(outside.nltk_data)
        case "code_pass" if outside.run_code is None:
            rule = "runs code that a model wrote, and no sandbox for it is at hand"
            return [_problem(named, rule, "use the docker executor, or remove the benchmark")]
        case "rubric" if outside.grade is None:
            fix = "set FT_JUDGE_MODEL and FT_JUDGE_API_KEY, or remove the benchmark"
            return [_problem(named, "needs a judge, and none is set", fix)]
        case _:
            return []


def _problem(named: str, rule: str, fix: str) -> Problem:
    return Problem(key="benchmark", value=named, rule=rule, problem_class="benchmark.unavailable", fix=fix)


def _unread(answer: Answer) -> str | None:
    """Return why the answer is none, or None."""
    return TRUNCATED_PROMPT if answer.prompt_truncated else answer.unanswered


def _unscored(answer: Answer) -> Scored | None:
    reason = _unread(answer)
    return None if reason is None else Scored(score=None, unscored_reason=reason)


def _row(task: EvalTask, pair: _Pair, scored: Scored) -> SampleRow:
    item, answer = pair
    return SampleRow(
        benchmark=task.benchmark,
        split=task.split,
        item_id=item.item_id,
        cluster=item.cluster,
        repeat=answer.repeat,
        prompt_hash=answer.prompt_hash,
        prediction=answer.prediction,
        extracted=scored.extracted,
        gold=item.gold,
        score=scored.score,
        unscored_reason=scored.unscored_reason,
        finish_reason=answer.finish_reason,
        n_tokens=answer.n_tokens,
        latency_s=answer.latency_s,
        parts=scored.parts,
    )
