"""One OpenCompass run from end to end: prepare, run, read, judge how it ended.

OpenCompass exits with 0 whatever became of its tasks, so its exit code decides nothing: a run is done
when every item of every dataset has an answer to its own prompt and no log tells of a changed limit or
a missing tokenizer. What is there of an unfinished run is handed over as partial answers.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path

from rdagent_ft.errors import JobError, PreflightError
from rdagent_ft.evaluation.items import Answer, EvalItem, read_items
from rdagent_ft.evaluation.opencompass.environment import child_environment
from rdagent_ft.evaluation.opencompass.logs import FailureClass, LogFindings, read_logs
from rdagent_ft.evaluation.opencompass.place import Placed
from rdagent_ft.evaluation.opencompass.predictions import DatasetAnswers, read_dataset
from rdagent_ft.evaluation.opencompass.prepare import LOG_NAME, TIMESTAMP, Prepared, command, prepare
from rdagent_ft.evaluation.opencompass.process import ProcessEnd, Reason, run_family
from rdagent_ft.evaluation.opencompass.spec import SHELL_SAFE, OpenCompassRequest, OpenCompassTask
from rdagent_ft.evaluation.rows import SampleRow
from rdagent_ft.evaluation.score import score_answers
from rdagent_ft.values import Frozen, content_hash


class TaskAnswers(Frozen):
    """One task's answers.

    Attributes:
        is_complete: every item has each of its repeats.
        asked_sha256: equal for two models that were asked the same prompts in the same order.
    """

    answers: tuple[Answer, ...]
    is_complete: bool
    asked_sha256: str | None


class OpenCompassEnd(Frozen):
    """How a run ended.

    Attributes:
        failure_class: `ok` only when every task is complete and no log says that a limit was changed.
        answers: `OpenCompassTask.name` -> what there is, also after a failure.
        n_answered, n_expected: over all tasks and repeats.
        reason, exit_code: of the process; the code is 0 after most failures.
        tracebacks: the last lines of each traceback in the logs, cleaned, at most ten.
        message: one sentence for people; empty when ok.
    """

    failure_class: FailureClass
    answers: dict[str, TaskAnswers]
    n_answered: int
    n_expected: int
    reason: Reason
    exit_code: int | None
    duration_s: float
    tracebacks: tuple[str, ...]
    message: str
    folder: Path


def run_opencompass(
    request: OpenCompassRequest,
    out_dir: Path,
    python: Path,
    timeout_s: float,
    notice: Callable[[str], None],
    should_stop: Callable[[], bool],
    api_key: str = "none",
) -> OpenCompassEnd:
    """Ask every item through OpenCompass; return what came back and how it ended.

    A second call with the same request goes on where an interrupted one ended. `notice` gets a line
    whenever more answers were saved. Raises `JobError` when what OpenCompass left belongs to other
    items, or claims success without a single prediction; `PreflightError` when it cannot start.
    """
    prepared = prepare(request, out_dir)
    _refuse_unsafe(python)
    with tempfile.TemporaryDirectory(prefix="rdagent-ft-opencompass-") as private:
        cwd = Path(private).resolve()
        _refuse_unsafe(cwd)
        env = child_environment(prepared.folder, cwd, request.endpoint.base_url, api_key)
        log = prepared.folder / LOG_NAME
        tick = _progress(request, prepared, notice)
        ended = run_family(command(prepared, python), cwd, env, log, timeout_s, should_stop, tick)
    return _judge(request, prepared, ended)


def score_end(
    request: OpenCompassRequest, end: OpenCompassEnd
) -> dict[tuple[str, str, str], list[SampleRow]]:
    """Score a finished run with our scorers: (role, benchmark, split) -> rows.

    Raises `JobError` when the run is not `ok`: partial answers are no result.
    """
    if end.failure_class != "ok":
        raise JobError(f"OpenCompass did not finish: {end.message}")
    samples: dict[tuple[str, str, str], list[SampleRow]] = {}
    for task in request.tasks:
        items = read_items(task.task.items_file, task.task.n_items)
        key = request.endpoint.role, task.task.benchmark, task.task.split
        samples[key] = score_answers(task.task, items, end.answers[task.name].answers)
    return samples


def _progress(
    request: OpenCompassRequest, prepared: Prepared, notice: Callable[[str], None]
) -> Callable[[], None]:
    """Return what looks at the saved answers and tells when there are more."""
    total = sum(task.task.n_items * task.task.repeats for task in request.tasks)
    told = 0

    def tick() -> None:
        nonlocal told
        saved = 0
        for path in prepared.work_dir.glob(f"*/predictions/{request.endpoint.role}/*"):
            if path.is_file() and not path.is_symlink() and path.name.startswith("tmp_"):
                saved += _count_lines(path)
            elif path.suffix == ".json":
                saved += sum(
                    len(one.asked) * _repeats(request, one)
                    for one in prepared.placed
                    if one.abbr == path.stem
                )
        if saved > told:
            told = saved
            notice(f"OpenCompass: {saved} of {total} answers of {request.endpoint.role}")

    return tick


def _count_lines(path: Path) -> int:
    try:
        with path.open("rb") as stream:
            return sum(1 for _ in stream)
    except OSError:
        return 0  # finished and removed between the look and the read


def _repeats(request: OpenCompassRequest, placed: Placed) -> int:
    return next(task.task.repeats for task in request.tasks if task.name == placed.task_name)


def _judge(request: OpenCompassRequest, prepared: Prepared, ended: ProcessEnd) -> OpenCompassEnd:
    runs = [path for path in prepared.work_dir.iterdir() if TIMESTAMP.fullmatch(path.name)]
    run_dir = runs[0] if len(runs) == 1 else None
    findings = read_logs(prepared.folder / LOG_NAME, run_dir)
    answers: dict[str, TaskAnswers] = {}
    for task in request.tasks:
        items = {item.item_id: item for item in read_items(task.task.items_file, task.task.n_items)}
        own = [one for one in prepared.placed if one.task_name == task.name]
        answers[task.name] = _task_answers(run_dir, request.endpoint.role, task, own, items)
    n_answered = sum(len(one.answers) for one in answers.values())
    n_expected = sum(task.task.n_items * task.task.repeats for task in request.tasks)
    failure_class, message = _class_of(ended, findings, answers, n_answered, n_expected)
    if ended.exit_code == 0 and n_answered == 0 and failure_class == "incomplete":
        raise JobError(
            "OpenCompass ended with exit code 0 and left no prediction", hint=f"see {prepared.folder}"
        )
    return OpenCompassEnd(
        failure_class=failure_class,
        answers=answers,
        n_answered=n_answered,
        n_expected=n_expected,
        reason=ended.reason,
        exit_code=ended.exit_code,
        duration_s=ended.duration_s,
        tracebacks=findings.tracebacks,
        message=message,
        folder=prepared.folder,
    )


def _task_answers(
    run_dir: Path | None,
    role: str,
    task: OpenCompassTask,
    placed: list[Placed],
    items: dict[str, EvalItem],
) -> TaskAnswers:
    if run_dir is None:
        return TaskAnswers(answers=(), is_complete=False, asked_sha256=None)
    read: list[DatasetAnswers] = [read_dataset(run_dir, role, task, one, items) for one in placed]
    place = {item_id: number for number, item_id in enumerate(items)}
    answers = sorted(
        (answer for one in read for answer in one.answers),
        key=lambda answer: (place[answer.item_id], answer.repeat),
    )
    is_complete = all(one.state == "complete" for one in read)
    asked = content_hash([one.asked_sha256 for one in read], 64) if is_complete else None
    return TaskAnswers(
        answers=tuple(answers),
        is_complete=is_complete,
        asked_sha256=asked,
    )


def _class_of(
    ended: ProcessEnd,
    findings: LogFindings,
    answers: dict[str, TaskAnswers],
    n_answered: int,
    n_expected: int,
) -> tuple[FailureClass, str]:
    share = f"{n_answered} of {n_expected} answers"
    if findings.altered is not None:
        return findings.altered, f"{findings.message} ({share})"
    if all(task.is_complete for task in answers.values()):
        return "ok", ""
    if ended.reason != "exit":
        words = "the time limit was reached" if ended.reason == "timeout" else "it was stopped"
        return ended.reason, f"{words} after {ended.duration_s:.0f} s with {share}"
    if findings.cause is not None:
        return findings.cause, f"{findings.message} ({share}, exit code {ended.exit_code})"
    return "incomplete", f"it ended with exit code {ended.exit_code} and {share}"


def _refuse_unsafe(path: Path) -> None:
    """OpenCompass's runner puts these paths into a shell command without quotes."""
    if not re.fullmatch(SHELL_SAFE, str(path)):
        raise PreflightError(
            f"OpenCompass cannot work with the path {str(path)!r}: it goes into a shell command unquoted",
            hint="use a path of letters, digits and `_./+=,@-`; TMPDIR sets where the private folder is",
        )
