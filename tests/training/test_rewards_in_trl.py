"""The rewards inside TRL's own GRPO trainer: names in its metrics, None as no score, columns of the rows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.train
REPOSITORY = Path(__file__).resolve().parents[2]
REWARDS = [
    {"kind": "exact"},
    {"kind": "numeric"},
    {"kind": "regex", "pattern": r"(?s)^.*$", "weight": 0.5},
    {"kind": "code", "timeout_s": 20},
    {"kind": "python", "function": "own_in_trl.length", "weight": 0.01},
    {"kind": "exact", "weight": 0.0},
]
SCRIPT = """\
import json
from pathlib import Path
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer
from rdagent_ft.training.rewards.load import load_rewards
from rdagent_ft.training.tiny import make_tiny_model

make_tiny_model(Path("tiny"), ["one two three four"], vocab_size=300, hidden=32, layers=1, heads=2)
tests = [None, ["assert f(1) == 1"]]
rows = [{"prompt": f"q{n}", "gold": str(n), "tests": tests[n % 2]} for n in range(4)]
rewards = load_rewards(Path("rewards.json"))
config = GRPOConfig(
    output_dir="out", use_cpu=True, bf16=False, max_steps=1, per_device_train_batch_size=8, num_generations=2,
    max_completion_length=8, logging_steps=1, report_to="none", save_strategy="no", disable_tqdm=True,
    reward_weights=[reward.weight for reward in rewards],
)
data = Dataset.from_list(rows)
trainer = GRPOTrainer(model="tiny", reward_funcs=list(rewards), args=config, train_dataset=data)
trainer.train()
Path("log.json").write_text(json.dumps(trainer.state.log_history))
"""
OWN = """\
def length(completions, gold, tests, completion_ids):
    assert len(gold) == len(tests) == len(completion_ids) == len(completions) == 8
    return [float(len(text)) for text in completions]
"""


def test_one_step_of_grpo(tmp_path: Path) -> None:
    (tmp_path / "rewards.json").write_text(json.dumps(REWARDS))
    (tmp_path / "own_in_trl.py").write_text(OWN)
    path = f"{REPOSITORY}{os.pathsep}{tmp_path}"
    environment = {
        "PYTHONPATH": path,
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    log = json.loads((tmp_path / "log.json").read_text())[0]
    for name in ("exact", "numeric", "regex", "code", "length", "exact_2"):
        assert f"rewards/{name}/mean" in log
    assert log["rewards/regex/mean"] == 1.0
    assert log["rewards/code/mean"] == 0.0  # of the rows that have tests: a random model writes no code
    assert log["rewards/length/mean"] > 0
    wanted = log["rewards/exact/mean"] + log["rewards/numeric/mean"] + 0.5 + 0.01 * log["rewards/length/mean"]
    assert log["reward"] == pytest.approx(wanted, abs=1e-4)
