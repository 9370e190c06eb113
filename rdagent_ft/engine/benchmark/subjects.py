"""What a benchmark call asks and whom: rendered items of a suite, and the models with their identity."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from rdagent_ft.data.model_folder import read_model_folder
from rdagent_ft.data.rows import ModelSource, Row
from rdagent_ft.data.tokens import TextEncoder, chat_template_text, load_encoder
from rdagent_ft.data.write import write_eval_items
from rdagent_ft.engine.benchmark.ask_plan import AskPlan
from rdagent_ft.errors import DataError
from rdagent_ft.evaluation.benchmarks import find_benchmark
from rdagent_ft.evaluation.opencompass.records import write_documented
from rdagent_ft.evaluation.port import EvalModel, EvalTask
from rdagent_ft.evaluation.results.document import ModelIdentity
from rdagent_ft.evaluation.rows import PromptFormat
from rdagent_ft.evaluation.suites import Suite, items_of
from rdagent_ft.values import content_hash, sha256_file, sha256_text

KEY_VARIABLE = "FT_ENDPOINT_API_KEY"
"""Environment variable with the key of an endpoint; it stands in no file and on no command line."""
WORK_NAME = ".work"
"""Items and jobs of a call, inside the folder of results."""


class Subject(NamedTuple):
    """One model of a call. `model` is None where an endpoint serves it; then nobody knows its context."""

    role: str
    identity: ModelIdentity
    model: EvalModel | None
    served_name: str | None = None
    max_positions: int | None = None


class Subjects(NamedTuple):
    """Everything that is asked."""

    tasks: tuple[EvalTask, ...]
    prompt_format: PromptFormat
    base: Subject | None
    tuned: Subject


def subjects_of(plan: AskPlan, suite: Suite, file_path: Path) -> Subjects:
    """Read models and items and write the rendered items. Raises `UserError`/`DataError` on bad input.

    Both models are asked the same texts: those of the tuned model's chat template, where it has one.
    """
    if plan.endpoint is not None:
        tasks = _tasks(plan, suite, file_path, None, "chat", None)
        named = plan.endpoint.base_model_name
        base = _endpoint_subject("base", named) if plan.has_base and named is not None else None
        return Subjects(tasks, "chat", base, _endpoint_subject("tuned", plan.endpoint.model_name))
    assert plan.model is not None
    is_adapter = (plan.model / "adapter_config.json").is_file()
    whole = plan.base if is_adapter else plan.model
    assert whole is not None
    source = read_model_folder(whole.name, whole)
    template_of = plan.model if (plan.model / "tokenizer.json").is_file() else whole
    encoder = load_encoder(template_of)
    template = chat_template_text(template_of)
    prompt_format: PromptFormat = "plain" if template is None else "chat"
    template_sha = None if template is None else sha256_text(template)[:16]
    base = None
    if plan.has_base and plan.base is not None:
        base_source = source if is_adapter else read_model_folder(plan.base.name, plan.base)
        base = _folder_subject("base", base_source, template_sha, None)
    parent = None if base is None else base.identity.fingerprint
    if is_adapter:
        tuned = _adapter_subject(plan.model, source, template_sha)
    else:
        tuned = _folder_subject("tuned", source, template_sha, parent)
    shorter = min(one.max_positions or source.max_positions for one in (base, tuned) if one is not None)
    tasks = _tasks(plan, suite, file_path, encoder, prompt_format, shorter)
    return Subjects(tasks, prompt_format, base, tuned)


def records_file(items_file: Path) -> Path:
    """Return where the benchmark's own records of an items file lie, for the protocol `opencompass`."""
    return items_file.with_name(f"{items_file.stem}-records.jsonl")


def _tasks(
    plan: AskPlan, suite: Suite, file_path: Path, encoder: TextEncoder | None,
    prompt_format: PromptFormat, max_positions: int | None,
) -> tuple[EvalTask, ...]:  # fmt: skip
    tasks: list[EvalTask] = []
    for name, used in suite.benchmarks.items():
        found = find_benchmark(name, file_path)
        if found is None:
            raise DataError(f"the items of {name} are not on this machine any more")
        rows: list[Row] = items_of(suite, name, file_path, plan.limit)
        path = (plan.out / WORK_NAME / "items" / f"{name}.jsonl").absolute()
        if plan.protocol == "opencompass":
            write_documented(path, records_file(path), found, rows)
        else:
            write_eval_items(path, rows, encoder, prompt_format)
        limit = found.benchmark.max_new_tokens
        tasks.append(
            EvalTask(
                benchmark=name,
                split="test",
                items_file=path,
                n_items=len(rows),
                scorer=found.benchmark.scorer,
                method=found.benchmark.method,
                repeats=used.repeats,
                temperature=used.temperature,
                max_new_tokens=limit if max_positions is None else min(limit, max_positions // 2),
            )
        )
    return tuple(tasks)


def _folder_subject(role: str, source: ModelSource, template_sha: str | None, parent: str | None) -> Subject:
    identity = ModelIdentity(
        role="base" if role == "base" else "candidate",
        id=source.name,
        kind="full",
        path=source.path,
        fingerprint=source.fingerprint,
        parent=parent,
        chat_template_sha=template_sha,
    )
    model = EvalModel(role=role, path=Path(source.path))
    return Subject(role, identity, model, max_positions=source.max_positions)


def _adapter_subject(folder: Path, base: ModelSource, template_sha: str | None) -> Subject:
    files = [folder / "adapter_config.json", folder / "adapter_model.safetensors"]
    hashes = [[path.name, sha256_file(path)] for path in files if path.is_file()]
    identity = ModelIdentity(
        role="candidate",
        id=folder.name,
        kind="lora",
        path=str(folder.absolute()),
        fingerprint=content_hash([base.fingerprint, hashes], n_chars=16),
        parent=base.fingerprint,
        chat_template_sha=template_sha,
    )
    model = EvalModel(role="tuned", path=Path(base.path), adapter=folder.absolute())
    return Subject("tuned", identity, model, max_positions=base.max_positions)


def _endpoint_subject(role: str, name: str) -> Subject:
    identity = ModelIdentity(role="base" if role == "base" else "candidate", id=name, kind="endpoint")
    return Subject(role, identity, None, name)
