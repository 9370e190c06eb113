"""From the options of `benchmark` as typed to a checked `BenchmarkPlan`: all mistakes at once."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from rdagent_ft.engine.benchmark.ask_plan import AskPlan, Protocol
from rdagent_ft.engine.benchmark.chosen import check_chosen
from rdagent_ft.engine.bounds import parse_duration_s
from rdagent_ft.errors import Problem, UserError
from rdagent_ft.evaluation.lm_eval_harness import JobBackend
from rdagent_ft.evaluation.results.local_models import LocalModel, describe_model
from rdagent_ft.evaluation.results.plan import Backend, Endpoint, HarnessName, default_out
from rdagent_ft.evaluation.suites import SuiteName, check_suite, load_suite, suite_name
from rdagent_ft.settings_sources import load_settings

_MODEL_FIX = "name a folder with config.json, or one with adapter_config.json"


@dataclass(frozen=True)
class Asked:
    """Options as typed, or as answered."""

    model: Path | None = None
    suite: str = "quick"
    base: Path | None = None
    no_base: bool = False
    endpoint: str | None = None
    model_name: str | None = None
    base_model_name: str | None = None
    limit: int | None = None
    timeout: str | None = None
    out: Path | None = None
    backend: str | None = None
    harness: str = "lm-eval"
    protocol: str = "own"
    benchmarks: str | None = None
    tokenizer: Path | None = None
    batch_size: int = 8
    resume: bool = False
    env_file: Path | None = None


class _Answering(NamedTuple):
    """What `--backend` means: a server or a job, and what generates in the job."""

    backend: Backend
    engine: JobBackend = "hf"


def plan_of(asked: Asked) -> AskPlan:
    """Return the checked plan. Raises `UserError` that lists everything that is wrong with it."""
    problems: list[Problem] = []
    timeout_s = _timeout(asked.timeout, problems)
    suite = _suite(asked, problems)
    benchmarks = _benchmarks(asked, problems)
    answering = _answering(asked, problems)
    harness = _harness(asked, answering, problems)
    protocol = _protocol(asked, harness, problems)
    endpoint = _endpoint(asked, problems)
    found = _model(asked, problems)
    base = _base(asked, found, problems)
    out = _out(asked, problems)
    if problems or suite is None or out is None:
        plural = "s" if len(problems) > 1 else ""
        raise UserError(
            f"the benchmark cannot start: {len(problems)} problem{plural}", problems=tuple(problems)
        )
    return AskPlan(
        model=None if endpoint is not None else asked.model,
        base=base,
        compare_base=not asked.no_base,
        endpoint=endpoint,
        suite=suite,
        limit=asked.limit,
        timeout_s=timeout_s,
        out=out,
        backend=answering.backend,
        engine=answering.engine,
        harness=harness,
        protocol=protocol,
        benchmarks=benchmarks,
        batch_size=asked.batch_size,
        resume=asked.resume,
        started=datetime.now(UTC),
    )


def _timeout(text: str | None, problems: list[Problem]) -> float | None:
    try:
        return None if text is None else parse_duration_s(text)
    except UserError:
        problems.append(_problem("--timeout", text, "is not a duration", "write 30min, 10m, 600s or 600"))
        return None


def _suite(asked: Asked, problems: list[Problem]) -> SuiteName | None:
    try:
        suite = load_suite(suite_name(asked.suite))
    except UserError as error:
        problems.append(_problem("--suite", asked.suite, "is no suite", error.hint or "use quick"))
        return None
    if asked.benchmarks is None:
        problems += check_suite(suite, load_settings(env_file=asked.env_file).settings.file_path)
    return suite.name


def _benchmarks(asked: Asked, problems: list[Problem]) -> tuple[str, ...]:
    if asked.benchmarks is None:
        return ()
    names = tuple(name.strip() for name in asked.benchmarks.split(",") if name.strip())
    try:
        chosen = check_chosen(names, load_settings(env_file=asked.env_file).settings)
    except UserError as error:
        fix = error.hint or "e.g. gsm8k,aime25"
        problems += error.problems or (_problem("--benchmarks", asked.benchmarks, error.message, fix),)
        return ()
    if not chosen:
        problems.append(_problem("--benchmarks", asked.benchmarks, "names none", "e.g. gsm8k,aime25"))
    return chosen


def _answering(asked: Asked, problems: list[Problem]) -> _Answering:
    if asked.backend not in (None, "hf", "vllm", "server"):
        problems.append(_problem("--backend", asked.backend, "is no backend", "use hf, vllm or server"))
        return _Answering("hf")
    if asked.endpoint is not None:
        if asked.backend in ("hf", "vllm"):
            rule = "an endpoint is asked with the backend server"
            problems.append(_problem("--backend", asked.backend, rule, "leave it out"))
        return _Answering("server")
    if asked.backend == "vllm":
        return _Answering("hf", "vllm")
    return _Answering("server" if asked.backend == "server" else "hf")


def _harness(asked: Asked, answering: _Answering, problems: list[Problem]) -> HarnessName:
    if asked.harness == "opencompass":
        if answering.backend == "hf":
            rule = f"asks a server, and the backend is {answering.engine}"
            problems.append(_problem("--harness", asked.harness, rule, "add --backend server or --endpoint"))
        return "opencompass"
    if asked.harness != "lm-eval":
        rule = "is no harness"
        problems.append(_problem("--harness", asked.harness, rule, "use lm-eval or opencompass"))
    return "lm-eval"


def _protocol(asked: Asked, harness: HarnessName, problems: list[Problem]) -> Protocol:
    if asked.protocol == "own":
        return "own"
    if asked.protocol != "opencompass":
        problems.append(_problem("--protocol", asked.protocol, "is no protocol", "use own or opencompass"))
        return "own"
    if harness != "opencompass":
        rule = "means prompts that OpenCompass makes, and lm-eval asks"
        problems.append(_problem("--protocol", asked.protocol, rule, "add --harness opencompass"))
        return "own"
    return "opencompass"


def _endpoint(asked: Asked, problems: list[Problem]) -> Endpoint | None:
    if asked.endpoint is None:
        for name, value in (("--model-name", asked.model_name), ("--base-model-name", asked.base_model_name)):
            if value is not None:
                problems.append(_problem(name, value, "means a model at an endpoint", "add --endpoint URL"))
        if asked.tokenizer is not None:
            rule = "belongs to a model at an endpoint"
            problems.append(_problem("--tokenizer", str(asked.tokenizer), rule, "leave it out"))
        return None
    if asked.tokenizer is not None and not (asked.tokenizer / "tokenizer.json").is_file():
        problems.append(
            _problem("--tokenizer", str(asked.tokenizer), "holds no tokenizer.json", "name its folder")
        )
    try:
        parts = urlsplit(asked.endpoint)
        is_url = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        is_url = False
    if not is_url:
        problems.append(
            _problem("--endpoint", asked.endpoint, "is no http address", "e.g. http://127.0.0.1:8000/v1")
        )
    if not asked.model_name:
        problems.append(
            _problem("--model-name", None, "an endpoint needs the model's name", "see its /v1/models")
        )
    if asked.model is not None:
        problems.append(
            _problem("MODEL", str(asked.model), "a folder and an endpoint are two models", "leave one out")
        )
    return Endpoint(
        url=asked.endpoint,
        model_name=asked.model_name or "",
        base_model_name=asked.base_model_name,
        tokenizer=asked.tokenizer,
    )


def _model(asked: Asked, problems: list[Problem]) -> LocalModel | None:
    if asked.model is None:
        return None
    found = describe_model(asked.model)
    if found is None:
        rule = "holds neither a model nor an adapter" if asked.model.is_dir() else "does not exist"
        problems.append(_problem("MODEL", str(asked.model), rule, _MODEL_FIX))
    return found


def _base(asked: Asked, found: LocalModel | None, problems: list[Problem]) -> Path | None:
    if asked.base is not None:
        described = describe_model(asked.base)
        if described is None or described.kind != "model":
            rule = "holds no model" if asked.base.is_dir() else "does not exist"
            problems.append(_problem("--base", str(asked.base), rule, "name a folder with config.json"))
        if asked.no_base and found is not None and found.kind == "model":
            problems.append(_problem("--no-base", None, "contradicts --base", "leave one of them out"))
        return asked.base
    if found is None:
        return None
    if found.kind == "adapter" and found.base is None:
        rule = "is an adapter, and its base model is not on this machine"
        problems.append(_problem("MODEL", str(found.path), rule, "name it: --base DIR"))
    if found.kind == "model" and not asked.no_base:
        rule = "a score alone does not show that training helped"
        problems.append(_problem("--base", None, rule, "name the base model, or say --no-base"))
    return found.base


def _out(asked: Asked, problems: list[Problem]) -> Path | None:
    if asked.out is None and (asked.model is None or asked.endpoint is not None):
        problems.append(_problem("--out", None, "results of an endpoint need a folder", "add --out DIR"))
        return None
    out = asked.out if asked.out is not None else default_out(asked.model or Path())
    nearest = next((folder for folder in (out, *out.absolute().parents) if folder.exists()), out)
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        problems.append(_problem("--out", str(out), "cannot be written", "name a folder that can: --out DIR"))
    return out


def _problem(key: str, value: Any, rule: str, fix: str) -> Problem:
    return Problem(key=key, value=value, rule=rule, problem_class="benchmark.options", fix=fix)
