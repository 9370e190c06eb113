"""Part of step 2: a teacher answers training prompts, and its answers take the place of the gold answers.

Off-policy distillation. Only prompts of the train split are asked. Answers are scored by the task's own
scorer before they are trained on, and what repeats a held-out item is dropped. A teacher's text is data: it
becomes the text of a turn and nothing else. Questions, their cache and the money are in `teacher_asks.py`.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import Field

from rdagent_ft.data.contamination import held_out_copies
from rdagent_ft.data.rows import Row
from rdagent_ft.data.teacher_cache import TeacherCache
from rdagent_ft.data.think import with_answer
from rdagent_ft.data.thinking import without_thinking
from rdagent_ft.data.write import write_eval_items
from rdagent_ft.engine.bounds import StopRun
from rdagent_ft.engine.context import RunContext
from rdagent_ft.engine.outside import outside_of
from rdagent_ft.engine.sampled_pairs import RIGHT
from rdagent_ft.engine.steps.held_out import held_out_items
from rdagent_ft.engine.steps.rejection import rejected
from rdagent_ft.engine.teacher_asks import Question, Told, ask_all
from rdagent_ft.errors import JobError, LlmError, PreflightError, Problem
from rdagent_ft.evaluation.items import Answer, read_items
from rdagent_ft.evaluation.port import EvalTask
from rdagent_ft.evaluation.score import refuse_missing, score_answers
from rdagent_ft.llm.port import LlmMessage
from rdagent_ft.llm.prompts import delimited, render_prompt
from rdagent_ft.llm.teacher_endpoint import Teacher, build_teacher
from rdagent_ft.recipe.data_mix import TeacherSamples
from rdagent_ft.reporting.stage_records import Failure
from rdagent_ft.values import Frozen, write_json

RECORD_NAME = "teacher.json"
"""What was asked and kept, in a loop's `files` folder."""

MAX_ANSWER_CHARS = 200_000
N_EXAMPLES = 3
_MAX_EXAMPLE_CHARS = 1_500
FATAL_KINDS = frozenset({"auth", "quota"})


class AnswerReply(Frozen):
    """What the teacher returns."""

    answer: Annotated[str, Field(max_length=MAX_ANSWER_CHARS)]


class TeacherRecord(Frozen):
    """What the teacher was asked, and what became of its answers.

    Attributes:
        model: the teacher.
        n_prompts, n_samples: prompts asked, answers asked for each.
        n_cached: answers that were paid for before.
        n_kept: answers that are trained on.
        dropped: reason -> answers that are not.
        skipped: reason -> rows that were not asked.
        usd: dollars of this step, open reservations included.
    """

    model: str
    n_prompts: int
    n_samples: int
    n_cached: int
    n_kept: int
    dropped: dict[str, int] = {}
    skipped: dict[str, int] = {}
    usd: float = 0.0

    @property
    def words(self) -> str:
        """The record as one line for people and planners."""
        lost = ", ".join(f"{count:,} {reason}" for reason, count in sorted(self.dropped.items()))
        return (
            f"teacher {self.model}: {self.n_prompts:,} prompts asked {self.n_samples} times "
            f"({self.n_cached:,} answers from the cache, ${self.usd:.4f}), {self.n_kept:,} answers kept"
            + (f"; dropped: {lost}" if lost else "")
        )


class Taught(NamedTuple):
    """The rows that replace the selected ones, and the record of how they came about."""

    rows: list[Row]
    record: TeacherRecord


def teacher_rows(
    ctx: RunContext,
    loop: int,
    asked_for: TeacherSamples,
    rows: Sequence[Row],
    train: Sequence[Row],
    seed: int,
) -> Taught | Failure:
    """Return rows with the teacher's answers to the prompts of `rows`, or why there are none.

    Args:
        rows: the selected rows, with their gold answers.
        train: the train split: what it holds is no copy of a held-out item.
        seed: draws the prompts where there are more than `max_prompts`.

    Raises `BudgetError` when the next question cannot be paid and `StopRun` when the run has to stop: what
    was answered until then is kept, and the next try asks only the rest. Raises `PreflightError` for a
    teacher that cannot be used at all.
    """
    prompts, skipped = _prompts(rows, asked_for.max_prompts, seed)
    try:
        task = _task(ctx, loop, asked_for, prompts)
        told, teacher = _ask(ctx, asked_for, prompts, train)
        made, dropped = _distinct(ctx, prompts, told, asked_for.n_samples)
        if asked_for.keep == "correct":
            made, wrong = _correct(ctx, loop, task, made)
            dropped.update(wrong)
    except _Refused as refusal:
        return refusal.failure
    taught = [with_answer(row, answer) for row, answer in made]
    copies = held_out_copies(taught, held_out_items(ctx), train)
    kept = [row for row in taught if row.item_id not in copies]
    dropped["a copy of a held-out item"] += len(taught) - len(kept)
    record = TeacherRecord(
        model=teacher.endpoint.model,
        n_prompts=len(prompts),
        n_samples=asked_for.n_samples,
        n_cached=sum(one.is_cached for one in told),
        n_kept=len(kept),
        dropped={reason: count for reason, count in dropped.items() if count},
        skipped={reason: count for reason, count in skipped.items() if count},
        usd=teacher.ledger.spent_usd,
    )
    if not kept:
        return Failure(
            failure_class="data.teacher_empty",
            blame="candidate",
            message=f"no answer of the teacher can be trained on; {record.words}",
            fix="ask more samples or prompts, raise max_tokens, or take a better teacher",
        )
    write_json(ctx.loop_dir(loop) / "files" / RECORD_NAME, record.model_dump(mode="json"))
    return Taught(kept, record)


class _Refused(Exception):
    """Carries a failure out of a part of the step."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def _prompts(rows: Sequence[Row], max_prompts: int, seed: int) -> tuple[list[Row], Counter[str]]:
    """Return one row for each distinct prompt that is asked, in the order of `rows`."""
    skipped: Counter[str] = Counter()
    first: dict[str, Row] = {}
    for row in rows:
        if any(turn.role == "tool" for turn in row.prompt):
            skipped["a tool's turn in the prompt"] += 1
        elif first.setdefault(row.prompt_text, row) is not row:
            skipped["the same prompt again"] += 1
    prompts = list(first.values())
    if len(prompts) > max_prompts:
        skipped["max_prompts"] = len(prompts) - max_prompts
        drawn = sorted(random.Random(seed).sample(range(len(prompts)), max_prompts))
        prompts = [prompts[place] for place in drawn]
    return prompts, skipped


def _task(ctx: RunContext, loop: int, asked_for: TeacherSamples, prompts: Sequence[Row]) -> EvalTask:
    """Return how answers are scored. Refuses, before anything is paid, what could not be scored."""
    prepared = ctx.prepared
    file = ctx.run_dir / "data" / "items" / f"{loop:03d}-teacher.jsonl"
    task = EvalTask(
        benchmark=prepared.target_benchmark,
        split="train",
        items_file=file,
        n_items=len(prompts),
        scorer=prepared.scorer,
        max_new_tokens=asked_for.max_tokens,
        repeats=asked_for.n_samples,
        temperature=asked_for.temperature,
    )
    if asked_for.keep == "all":
        return task
    if prepared.scorer == "token_f1":
        rule = "keeps nothing: the task's score is a share of words in common, so no answer counts as correct"
        problem = Problem("data.teacher.keep", "correct", rule, "config.conflict", "write all")
        raise _Refused(rejected((problem,)))
    try:
        refuse_missing((task,), outside_of(ctx, _scoring_folder(ctx, loop)))
    except JobError as error:
        raise _Refused(_unscored(error)) from None
    write_eval_items(file, prompts, ctx.text_encoder, prepared.prompt_format)
    return task


def _ask(
    ctx: RunContext, asked_for: TeacherSamples, prompts: Sequence[Row], train: Sequence[Row]
) -> tuple[list[Told[AnswerReply]], Teacher]:
    """Return the teacher and its answers, `n_samples` for each prompt in a row."""

    def time_left_s() -> float | None:
        left = ctx.clock.left_s()
        return None if left is None else max(0.0, left - ctx.reserve_s)

    def check_stop() -> None:
        if ctx.stop.number is not None:
            raise StopRun("interrupted")
        if ctx.clock.expired(ctx.reserve_s):
            raise StopRun("timeout")

    teacher = build_teacher(
        ctx.settings, ctx.journal, ctx.progress.notice, time_left_s,
        temperature=asked_for.temperature, max_tokens=asked_for.max_tokens,
    )  # fmt: skip
    cache = TeacherCache(ctx.settings.file_path / "cache" / "teacher")
    shown = _examples(train)
    questions = [
        Question(messages, salt=f"teacher:{asked_for.temperature:g}:{sample}")
        for messages in (teacher_messages(row, shown) for row in prompts)
        for sample in range(asked_for.n_samples)
    ]
    ctx.progress.notice(f"teacher {teacher.endpoint.model}: {len(questions):,} answers are wanted")
    try:
        return ask_all(teacher, cache, questions, AnswerReply, check_stop=check_stop), teacher
    except LlmError as error:
        check_stop()
        if error.kind in FATAL_KINDS:
            raise PreflightError(f"the teacher cannot be asked: {error.message}", hint=error.hint) from None
        raise _Refused(
            Failure(
                failure_class=f"llm.{error.kind}", blame="environment", message=error.message, fix=error.hint
            )
        ) from None


def teacher_messages(row: Row, shown: Sequence[Row]) -> tuple[LlmMessage, ...]:
    """Return the question: how to answer, then the row's conversation up to its answer, as it is.

    `shown` are rows whose answers show the form; one with the same prompt is never among them.
    """
    examples = [one.completion for one in shown if one.prompt_text != row.prompt_text][:N_EXAMPLES]
    system_text = "\n\n".join(turn.content for turn in row.prompt if turn.role == "system")
    rules = render_prompt(
        "teacher",
        system_text=delimited("system message", system_text, salt="teacher") if system_text else "",
        examples="\n".join(
            delimited("example", text, salt="teacher", max_chars=_MAX_EXAMPLE_CHARS) for text in examples
        ),
    )
    turns: list[LlmMessage] = []
    for turn in row.prompt:
        if turn.role in ("user", "assistant"):
            turns.append(LlmMessage(role=turn.role, content=turn.content))
    return (*rules, *turns)


def _examples(train: Sequence[Row]) -> list[Row]:
    """Return one row more than is shown. The choice rests on the split alone, so that questions, and with
    them their cache, are the same for every recipe."""
    distinct = {row.prompt_text: row for row in sorted(train, key=lambda row: row.item_id)}
    return sorted(distinct.values(), key=lambda row: row.item_id)[: N_EXAMPLES + 1]


def _distinct(
    ctx: RunContext, prompts: Sequence[Row], told: Sequence[Told[AnswerReply]], n_samples: int
) -> tuple[list[tuple[Row, str]], Counter[str]]:
    """Return (row, answer) of every usable answer, equal answers to one prompt once."""
    control = _control_tokens(ctx)
    made: list[tuple[Row, str]] = []
    dropped: Counter[str] = Counter()
    for place, row in enumerate(prompts):
        seen: set[str] = set()
        for one in told[place * n_samples : (place + 1) * n_samples]:
            answer = "" if one.reply is None else one.reply.answer.strip()
            if one.lost is not None:
                dropped[one.lost] += 1
            elif not without_thinking(answer).strip():
                dropped["empty"] += 1
            elif any(token in answer for token in control):
                dropped["holding a control token of the model"] += 1
            elif answer in seen:
                dropped["repeated"] += 1
            else:
                seen.add(answer)
                made.append((row, answer))
    return made, dropped


def _control_tokens(ctx: RunContext) -> tuple[str, ...]:
    """Return the texts that the tokenizer would read as control tokens: they end or open turns."""
    added = ctx.text_encoder.tokenizer.get_added_tokens_decoder().values()
    return tuple(token.content for token in added if token.special and token.content.strip())


def _correct(
    ctx: RunContext, loop: int, task: EvalTask, made: list[tuple[Row, str]]
) -> tuple[list[tuple[Row, str]], Counter[str]]:
    """Return the answers that get the full score; a think block is no part of what is scored."""
    items = read_items(task.items_file, task.n_items)
    places: dict[tuple[str, int], tuple[Row, str]] = {}
    n_of: Counter[str] = Counter()
    for row, answer in made:
        places[row.item_id, n_of[row.item_id]] = row, answer
        n_of[row.item_id] += 1
    answers = [
        Answer(item_id=item_id, repeat=repeat, prompt_hash="", prediction=without_thinking(answer))
        for (item_id, repeat), (_, answer) in places.items()
    ]
    try:
        scored = score_answers(task, items, answers, outside_of(ctx, _scoring_folder(ctx, loop)))
    except (JobError, PreflightError) as error:
        raise _Refused(_unscored(error)) from None
    dropped: Counter[str] = Counter()
    kept: set[tuple[str, int]] = set()
    for sample in scored:
        if sample.score is None:
            dropped["not scored"] += 1
        elif sample.score < RIGHT:
            dropped["wrong"] += 1
        else:
            kept.add((sample.item_id, sample.repeat))
    return [pair for place, pair in places.items() if place in kept], dropped


def _scoring_folder(ctx: RunContext, loop: int) -> Path:
    return ctx.loop_dir(loop) / "teacher-scoring"


def _unscored(error: JobError | PreflightError) -> Failure:
    reasons = "; ".join(f"{problem.rule} ({problem.fix})" for problem in error.problems)
    message = f"the teacher's answers could not be scored: {error.message}"
    return Failure(
        failure_class="eval.incomplete",
        blame="environment",
        message=f"{message}: {reasons}" if reasons else message,
        fix=error.hint,
    )
