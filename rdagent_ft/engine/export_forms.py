"""How each exported form is made from a run's model: copied, stored in fewer bits, or converted.

Whatever a job left is judged before it is moved. The folder is not finished here: names, manifest and
card are the business of `exporting.py`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal, NamedTuple

from rdagent_ft.engine.export_source import Source
from rdagent_ft.engine.single_job import run_single_job
from rdagent_ft.execution.carry import copy_tree
from rdagent_ft.execution.local import LocalExecutor
from rdagent_ft.execution.port import Executor
from rdagent_ft.execution.weight_files import MAX_FILES, check_weights, max_model_bytes
from rdagent_ft.reporting.card_forms import Form
from rdagent_ft.reporting.export_manifest import README
from rdagent_ft.reporting.modelfile import Decoding, modelfile
from rdagent_ft.reporting.view import RunView
from rdagent_ft.settings import Settings
from rdagent_ft.training.export_plan import (
    CONVERTER_VARIABLE,
    FormResult,
    GgufType,
    check_gguf,
    find_converter,
    form_argv,
    gguf_argv,
    read_form_result,
)

MAX_CONTEXT = 8_192
"""Ollama reserves memory for the whole context."""
_UNSCORED = "The scores were measured before this conversion; this form was not scored again."


class FormRequest(NamedTuple):
    """One form that is to be made.

    Attributes:
        executor: opens the executor, which is only wanted where a job of ours runs.
        place: the folder to fill; it does not exist yet.
        work: where jobs run; it is removed afterwards.
    """

    view: RunView
    source: Source
    executor: Callable[[], Executor]
    settings: Settings
    gguf_type: GgufType
    place: Path
    work: Path


class Made(NamedTuple):
    """How the weights are stored, and what a reader should know about that."""

    dtype: str
    notes: tuple[str, ...]


def make_form(form: Form, request: FormRequest) -> Made:
    """Fill the folder. Raises `PreflightError` when the machine lacks something, `JobError` otherwise."""
    match form:
        case "adapter":
            return _copy_adapter(request)
        case "merged_16bit":
            return _store(request, "16bit")
        case "merged_4bit":
            return _store(request, "4bit")
        case "gguf":
            return _convert(request)


def _copy_adapter(request: FormRequest) -> Made:
    source = request.source
    assert source.adapter is not None
    request.place.mkdir()
    copy_tree(source.adapter, request.place, max_bytes=max_model_bytes(source.merged), max_files=MAX_FILES)
    (request.place / README).unlink(missing_ok=True)
    return Made("as trained", ())


def _store(request: FormRequest, bits: Literal["16bit", "4bit"]) -> Made:
    merged, executor, out_dir = request.source.merged, request.executor(), request.work / "job"
    # Without a GPU the job is asked all the same: it says everything that is missing, not the GPU alone.
    run_single_job(
        executor,
        "export",
        form_argv(merged, Path("model"), bits),
        out_dir,
        inputs={"model": merged},
        needs_gpu=bits == "4bit" and bool(executor.gpus()),
    )
    result = read_form_result(out_dir)
    check_weights(out_dir, "model", base_model=merged, kind="model")
    (out_dir / "model").rename(request.place)
    return Made(result.dtype, (_compared(result), _UNSCORED))


def _compared(result: FormResult) -> str:
    return (
        f"Weights are stored as {result.dtype}: {_mib(result.n_bytes_before)} became "
        f"{_mib(result.n_bytes)}. On {result.n_prompts} prompts the most likely next token is the same at "
        f"{result.share_same_token:.1%} of positions; logits differ by at most {result.max_abs_diff:.2g} "
        f"(largest logit {result.max_abs_logit:.3g})."
    )


def _convert(request: FormRequest) -> Made:
    named = request.settings.llama_cpp
    converter = find_converter(dict(os.environ) | ({} if named is None else {CONVERTER_VARIABLE: str(named)}))
    merged, out_dir, kind = request.source.merged, request.work / "job", request.gguf_type
    weights = f"model-{kind}.gguf"
    run_single_job(
        LocalExecutor(request.settings.python),
        "conversion",
        gguf_argv(converter, merged, Path(weights), kind),
        out_dir,
        inputs={"model": merged},
        env={"PYTHONSAFEPATH": ""},  # the converter imports modules beside it
    )
    check_gguf(out_dir, weights)
    request.place.mkdir()
    (out_dir / weights).rename(request.place / weights)
    text = modelfile(merged, weights, _decoding(request))
    (request.place / "Modelfile").write_text(text.text, encoding="utf-8")
    notes = [f"Weights are stored as {kind}.", _UNSCORED]
    if text.note is not None:
        notes.append(f"For Ollama: {text.note}.")
    return Made(kind, tuple(notes))


def _decoding(request: FormRequest) -> Decoding:
    prepare, claim = request.view.prepare, request.view.claim
    assert prepare is not None
    is_claimed = claim is not None and claim.loop == request.source.loop
    return Decoding(
        n_predict=prepare.max_new_tokens,
        repeat_penalty=claim.decoding.get("tuned", 1.0) if claim is not None and is_claimed else 1.0,
        n_context=min(prepare.model.max_positions, MAX_CONTEXT),
    )


def _mib(n_bytes: int) -> str:
    return f"{n_bytes / 2**20:,.1f} MiB"
