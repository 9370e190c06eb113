"""One training in two processes: they learn what one process learns, and leave one result.

On the CPU, with the processes started as `torchrun` starts them: accelerate's launcher starts one process on
a CPU whatever its config says. What it makes of our profiles is in `tests/recipe/test_launch.py`.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from local_jobs import run
from stage_trainings import PAIRS, config_file, make_random_model, prompt_of

from rdagent_ft.training.plan import read_train_result, stage_argv

pytestmark = pytest.mark.train
ROWS = [
    {"prompt": prompt_of(colour, animal), "completion": f" {animal} is {colour}"} for colour, animal in PAIRS
]


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def train(folder: Path, model: Path, n_processes: int) -> Path:
    config = config_file(
        folder, model, ROWS * 8, max_steps=8, per_device_train_batch_size=8 // n_processes,
    )  # fmt: skip
    argv = stage_argv("sft", config)
    if n_processes > 1:
        launcher = (
            "python",
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc_per_node={n_processes}",
        )
        argv = (*launcher, *argv[1:])
    result = run(folder, argv, f"test-{n_processes}", {"ACCELERATE_USE_CPU": "true"})
    assert result.failure_class == "ok", result.log_tail
    return folder


def test_two_processes_learn_what_one_learns_and_leave_one_result(tmp_path: Path) -> None:
    model = make_random_model(tmp_path / "random")
    alone = train(tmp_path / "alone", model, 1)
    shared = train(tmp_path / "shared", model, 2)
    one, two = read_train_result(alone), read_train_result(shared)
    assert (two.n_steps, two.n_rows, two.weights) == (8, len(ROWS) * 8, "adapter")
    assert two.n_tokens == one.n_tokens, "tokens of both processes are counted"
    assert len(losses(shared)) == 8, "one process writes metrics"
    assert losses(shared) == pytest.approx(losses(alone), rel=0.01)
    assert losses(shared)[-1] < losses(shared)[0]
