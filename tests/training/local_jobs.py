"""How the tests of training run a job and write what it reads: the local executor, rows, TRL configs.

What the trainings are about (models, rows, rewards) stands in `stage_trainings` or in the tests.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from rdagent_ft.execution.local import LocalExecutor
from rdagent_ft.execution.port import JobHandle, JobResult, JobSpec

WAIT_S = 300.0
CPU_LORA: dict[str, Any] = {
    "output_dir": "trainer",
    "use_peft": True,
    "lora_target_modules": ["all-linear"],
    "logging_steps": 1,
    "logging_first_step": True,
    "logging_nan_inf_filter": False,
    "save_strategy": "no",
    "bf16": False,
    "use_cpu": True,
    "dtype": "float32",
    "report_to": "none",
    "disable_tqdm": True,
    "gradient_checkpointing": False,
}
"""A TRL config as the templates render it, without sizes: LoRA on the CPU, every step logged."""


def submit(
    folder: Path, argv: tuple[str, ...], attempt_id: str = "test-1", env: Mapping[str, str] | None = None
) -> tuple[LocalExecutor, JobHandle]:
    """Start a job in the folder; `env` comes on top of what every job gets."""
    executor = LocalExecutor(grace_s=2.0)
    spec = JobSpec(
        attempt_id=attempt_id,
        kind="train",
        argv=argv,
        out_dir=folder,
        env={"OMP_NUM_THREADS": "1", **(env or {})},
        deadline_unix=time.time() + WAIT_S,
    )
    return executor, executor.submit(spec)


def wait(executor: LocalExecutor, handle: JobHandle) -> JobResult:
    while executor.poll(handle).state == "running":
        time.sleep(0.05)
    return executor.collect(handle)


def run(
    folder: Path, argv: tuple[str, ...], attempt_id: str = "test-1", env: Mapping[str, str] | None = None
) -> JobResult:
    return wait(*submit(folder, argv, attempt_id, env))


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_config(folder: Path, model: Path, data: Path, **settings: Any) -> Path:
    """Write `CPU_LORA` with a model, a data file and settings; a setting that is None is left out."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "model_name_or_path": str(model),
        "datasets": [{"path": "json", "data_files": str(data)}],
        **CPU_LORA,
        **settings,
    }
    path = folder / "config.yaml"
    path.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))
    return path
