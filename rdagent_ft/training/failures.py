"""Names the failure of a job: which class, who is to blame, what to do.

Order of evidence: how the executor saw it end, the job's own `failure.json`, the health of its
metrics, then the text of its log against `knowledge/failures.yaml`. In a log the first traceback is
the cause and the last line only its consequence (launchers add their own traceback). Nothing a job
wrote is trusted: its classes must be known ones, its texts are cleaned and cut.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field

from rdagent_ft.execution.outputs import clean_text
from rdagent_ft.execution.port import JobResult
from rdagent_ft.reporting.stage_records import Failure, TrainingHealth
from rdagent_ft.values import Frozen

Blame = Literal["candidate", "environment", "user"]
MAX_MESSAGE_CHARS = 500
_ERROR_LINE = re.compile(
    r"^(?:\[rank\d+\]:\s*)?((?:[A-Za-z_]\w*\.)*[A-Z]\w*(?:Error|Exception|Exit|Interrupt)\b.*)"
)
_PARSER_ERROR = re.compile(r"^\S.*?: error: (.+)", re.MULTILINE)
_TRACEBACK = "Traceback (most recent call last)"


class Signature(Frozen):
    """One known failure; the file `knowledge/failures.yaml` explains the fields."""

    id: str
    patterns: tuple[str, ...]
    where: Literal["error", "log"]
    failure_class: str = Field(alias="class")
    blame: Blame
    fix: str
    neutral: bool
    source: Literal["executed", "read", "reported"]


_OWN_CLASSES: dict[str, tuple[Blame, str]] = {
    "train.diverged": ("candidate", "divide the learning rate by 10; if it stays, use more warm-up"),
    "train.no_signal": (
        "candidate",
        "check that the adapter's targets and the trained tokens are right; for grpo, try the rewards on "
        "known answers and filter prompts by difficulty",
    ),
    "train.truncated": (
        "candidate",
        "raise `max_completion_length`, or shorten what the prompt asks for",
    ),
    "data.too_few": ("candidate", "lower `effective_batch`, or give the stage more rows"),
    "data.no_pairs": (
        "candidate",
        "ask more prompts or more samples at a higher temperature, or give --preferences",
    ),
    "distill.vocabulary": (
        "candidate",
        "choose a teacher with the student's tokenizer and vocabulary size",
    ),
    "reward.broken": (
        "candidate",
        "correct the named reward or its weight, or the gold answers and tests of the named rows",
    ),
    "reward.no_score": (
        "candidate",
        "give the rows what the rewards read (gold answers, tests), or let a reward return a number for any "
        "completion",
    ),
    "config.trainer": ("candidate", "train with trl, or write what LLaMA-Factory knows"),
    "resource.throughput": (
        "environment",
        "look for another process on the device, swapping or throttling; try once more",
    ),
    "train.no_metrics": ("environment", "the trainer logged nothing: check logging_steps against max_steps"),
    "train.no_result": ("environment", "the job ended well but left no readable result or weights"),
    "data.eos": ("candidate", "set eos_token to the token that ends the template's turns"),
    "data.script_failed": ("candidate", "correct the data script, or set data.script to null"),
    "data.script_output": (
        "candidate",
        "let the script write one JSON object a line with `messages`, or with `prompt` and `completion`",
    ),
    "data.template": ("environment", "use the template that the prompts were rendered with"),
    "chain.merge_numeric": ("candidate", "merge in fp32; NaN in the adapter means the training diverged"),
    "chain.merge_quantised": ("environment", "merge into the full-precision base"),
    "output.hostile": (
        "candidate",
        "a job may leave safetensors, JSON, templates and tokenizer files in regular files, nothing else",
    ),
    "resource.deadline": ("environment", "give more time, or train fewer steps"),
    "resource.stalled": ("environment", "see the stack dump at the end of the log; try once more"),
    "resource.host_oom": ("environment", "use a smaller micro-batch or a machine with more memory"),
    "resource.output_limit": ("environment", "the job filled FT_MAX_OUTPUT_GIB: save fewer checkpoints"),
    "env.engine": ("environment", "the Docker engine went away while the job ran; try again"),
    "env.gpu": ("environment", "the GPU or its driver failed; try once more, then look at the machine"),
    "env.reaped": ("environment", "a clean-up stopped the job, because its run's process was gone; resume"),
    "env.lost": ("environment", "the job's supervisor was killed or the machine restarted; try again"),
    "env.start": ("environment", "see the log: the job could not be started"),
    "env.killed": ("environment", "someone stopped the job from outside; try again"),
    "run.stopped": ("environment", "resume the run"),
    "job.unknown": ("candidate", "read the log"),
}
"""Classes that no log text decides: blame and fix."""

_BY_REASON = {
    "deadline": "resource.deadline",
    "stalled": "resource.stalled",
    "cancelled": "run.stopped",
    "lost": "env.lost",
    "killed": "env.killed",
    "engine_lost": "env.engine",
    "engine_restarted": "env.engine",
    "gpu_lost": "env.gpu",
    "reaped": "env.reaped",
    "output_limit": "resource.output_limit",
}
"""What the executor knows for sure goes before anything that the job's log or files say."""


@cache
def load_signatures() -> tuple[Signature, ...]:
    """Return the shipped signatures, in the order in which they are tried."""
    path = Path(__file__).resolve().parent.parent / "knowledge" / "failures.yaml"
    entries = yaml.safe_load(path.read_text(encoding="utf-8"))
    return tuple(Signature.model_validate(entry) for entry in entries)


def classify(
    log_text: str,
    *,
    result: JobResult,
    health: TrainingHealth | None = None,
    failure_json: dict[str, Any] | None = None,
) -> Failure | None:
    """Return why the job failed, or None when nothing says that it did.

    Args:
        log_text: the job's log (`execution.outputs.read_log`).
        result: how the executor saw the job end.
        health: for trainings; a job that ended with 0 but diverged, learnt nothing or left no
            metrics has failed.
        failure_json: what the job wrote about itself (`plan.read_failure`).
    """
    if result.reason in _BY_REASON:
        return _own(_BY_REASON[result.reason], f"the job was ended: {result.reason}")
    own = _from_job(failure_json)
    if own is not None:
        return own
    if health is not None and health.verdict == "diverged":
        return _own("train.diverged", health.message)
    if result.failure_class == "ok":
        if health is not None and health.verdict == "flat":
            return _own("train.no_signal", health.message)
        if health is not None and health.verdict == "no_metrics":
            return _own("train.no_metrics", health.message or "no metrics")
        return None
    text = clean_text(log_text)
    found = match_log(text)
    if found is not None:
        return found
    if result.failure_class == "resource":
        return _own("resource.host_oom", f"the job was killed (exit code {result.exit_code})")
    if result.reason == "start_failed":
        return _own("env.start", result.log_tail)
    message = next(iter(error_messages(text)), None) or f"exit code {result.exit_code}, no known message"
    return _own("job.unknown", message)


def hostile_output(message: str) -> Failure:
    """Return the failure of a job whose files `execution.weight_files` refused."""
    return _own("output.hostile", message)


def match_log(text: str) -> Failure | None:
    """Return the failure that a log shows, by the first error message that a signature knows."""
    for message in error_messages(text):
        for signature in load_signatures():
            if _matches(signature, message):
                return _failure(signature, message)
    for signature in load_signatures():
        if signature.where == "log":
            for pattern in signature.patterns:
                match = re.search(pattern, text)
                if match:
                    return _failure(signature, _line_around(text, match.start()))
    return None


def error_messages(text: str) -> list[str]:
    """Return the error messages of a log, the most causal first.

    For each traceback in order: the exception line with its continuation lines; then messages of
    argument parsers. In a chain of tracebacks Python prints the root cause first.
    """
    messages: list[str] = []
    for block in text.split(_TRACEBACK)[1:]:
        message = _exception_of(block)
        if message is not None:
            messages.append(message)
    messages += [match.group(1) for match in _PARSER_ERROR.finditer(text)]
    return messages


def _exception_of(block: str) -> str | None:
    """Return the exception line after a traceback's frames, with up to ten lines that continue it."""
    lines = block.splitlines()[1:]
    for index, line in enumerate(lines):
        match = _ERROR_LINE.match(line)
        if match:
            more: list[str] = []
            for following in lines[index + 1 : index + 11]:
                if not following.strip():
                    break
                more.append(following)
            return "\n".join([match.group(1), *more])
    return None


def _matches(signature: Signature, message: str) -> bool:
    return any(re.search(pattern, message) for pattern in signature.patterns)


def _from_job(failure_json: dict[str, Any] | None) -> Failure | None:
    if failure_json is None:
        return None
    name, message = failure_json.get("class"), failure_json.get("message")
    if not isinstance(name, str):
        return None
    text = message if isinstance(message, str) else ""
    if name in _OWN_CLASSES:
        return _own(name, text)
    for signature in load_signatures():
        if signature.failure_class == name:
            return _failure(signature, text)
    return None


def _own(failure_class: str, message: str) -> Failure:
    blame, fix = _OWN_CLASSES[failure_class]
    return Failure(failure_class=failure_class, blame=blame, message=_short(message), fix=fix)


def _failure(signature: Signature, message: str) -> Failure:
    return Failure(
        failure_class=signature.failure_class,
        blame=signature.blame,
        message=_short(message),
        fix=signature.fix,
    )


def _short(message: str) -> str:
    text = clean_text(message).strip()
    return text if len(text) <= MAX_MESSAGE_CHARS else text[: MAX_MESSAGE_CHARS - 1] + "…"


def _line_around(text: str, position: int) -> str:
    start = text.rfind("\n", 0, position) + 1
    end = text.find("\n", position)
    return text[start : end if end >= 0 else len(text)]
