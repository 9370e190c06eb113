"""What the demo needs before it runs: its dataset (written here) and its base (trained by a job)."""

from __future__ import annotations

import shutil
import sys
import time

from rdagent_ft.cli.invocation import RunOptions
from rdagent_ft.cli.progress_view import open_progress
from rdagent_ft.demo.base_model import BaseVariant
from rdagent_ft.demo.build import (
    BASE_NAMES,
    DATASET_NAMES,
    DEMO_NOTE,
    Labels,
    base_is_built,
    base_job_spec,
    install_base,
    write_demo_dataset,
)
from rdagent_ft.engine.executors import open_executor
from rdagent_ft.engine.progress import Progress
from rdagent_ft.engine.start import ensure_file_path
from rdagent_ft.errors import JobError
from rdagent_ft.execution.tail import JsonLinesTail
from rdagent_ft.settings import Settings
from rdagent_ft.settings_sources import load_settings

BASE_LIMIT_S = 900.0
WHERE = {
    "local": "jobs run with the local executor, as subprocesses of this machine",
    "docker": "jobs run with the docker executor, each in a container of its own",
}
POLL_S = 0.1


def make_demo_assets(
    options: RunOptions, *, labels: Labels = "true", variant: BaseVariant = "plain"
) -> tuple[str, str]:
    """Make what is missing under FT_FILE_PATH; return the names of dataset and base model."""
    settings = load_settings(options.overrides, env_file=options.env_file).settings
    print(f"demo: {WHERE[settings.executor]}. {DEMO_NOTE}", file=sys.stderr)
    with open_progress() as progress:
        ensure_file_path(settings, progress)
        path = write_demo_dataset(settings.file_path, labels=labels)
        progress.notice(f"demo: dataset {DATASET_NAMES[labels]} in {path}")
        if not base_is_built(settings.file_path, variant):
            progress.notice(f"demo: training the tiny base model {BASE_NAMES[variant]} (once)")
            _train_base(settings, progress, variant)
    return DATASET_NAMES[labels], BASE_NAMES[variant]


def _train_base(settings: Settings, progress: Progress, variant: BaseVariant) -> None:
    """Run the base's job to its end and install what it left. An interrupt ends the job as well."""
    place = (settings.file_path / "cache" / "demo" / f"{variant}-{time.time_ns()}").absolute()
    out_dir = place / f"job-{place.name}"
    opened = open_executor(settings, progress.notice)
    opened.make_ready()
    executor = opened.executor
    handle = executor.submit(base_job_spec(out_dir, time.time() + BASE_LIMIT_S, variant))
    tail = JsonLinesTail(out_dir / "metrics.jsonl")
    try:
        while executor.poll(handle).state == "running":
            for line in tail.read_new()[-1:]:
                progress.metrics(line)
            time.sleep(POLL_S)
    except KeyboardInterrupt:
        executor.cancel(handle)
        raise
    result = executor.collect(handle)
    if result.failure_class != "ok":
        log = executor.log_path(handle)
        raise JobError(
            f"the base model could not be trained ({result.reason}, exit code {result.exit_code})",
            hint=f"see {log}; `rdagent-ft doctor` checks the packages",
        )
    install_base(out_dir, settings.file_path, variant)
    shutil.rmtree(place)
    progress.notice(f"demo: base model trained in {result.ended_unix - result.started_unix:.0f} s")
