"""A small world for whole runs: a task of 400 items, a tiny random model, a recipe of a few steps.

Whole runs here are real: real controller processes, real TRL, real lm-eval. They only are too short to
learn much; what a campaign learns is the business of the demo's tests.
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
LOOP = str(REPOSITORY / "rdagent_ft" / "loop.py")
WORDS = [
    "anchor",
    "bridge",
    "candle",
    "desert",
    "engine",
    "forest",
    "garden",
    "harbor",
    "island",
    "jacket",
    "kettle",
    "ladder",
    "mirror",
    "needle",
    "orange",
    "pocket",
    "quarry",
    "ribbon",
    "saddle",
    "temple",
]
COLOURS = ("red", "green", "blue", "black")
FAST_RECIPE = {
    "stages": [
        {
            "kind": "sft",
            "adapter": {"kind": "full"},
            "epochs": 10,
            "micro_batch": 16,
            "effective_batch": 16,
            "max_length": 64,
            "learning_rate": 5e-3,
        }
    ]
}


@dataclass(frozen=True)
class Finished:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> dict[str, Any]:
        """The one JSON document on stdout."""
        return json.loads(self.out)


@dataclass(frozen=True)
class World:
    """Paths of the world; `run` calls the entry as a user would."""

    root: Path

    @property
    def data(self) -> Path:
        return self.root / "colours.jsonl"

    @property
    def model(self) -> Path:
        return self.root / "tiny"

    def files(self, name: str) -> Path:
        """A FT_FILE_PATH of its own for one test."""
        return self.root / name

    def recipe(self, name: str = "fast", **stage: Any) -> Path:
        """Write a recipe file: the fast one, with keys of its stage replaced."""
        value = json.loads(json.dumps(FAST_RECIPE))
        value["stages"][0].update(stage)
        path = self.root / f"{name}.json"
        path.write_text(json.dumps(value))
        return path

    def environment(self, name: str, **extra: str) -> dict[str, str]:
        """The environment of a command: no FT_ variable or key but those given."""
        kept = {k: v for k, v in os.environ.items() if not k.startswith("FT_") and "API_KEY" not in k}
        fixed = {
            "FT_FILE_PATH": str(self.files(name)),
            "FT_EXECUTOR": "local",
            "FT_ALLOW_CPU": "1",
            "FT_VAL_ITEMS": "40",
            "FT_DEV_ITEMS": "20",
            "FT_TEST_ITEMS": "40",
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
        }
        return {**kept, **fixed, **extra}

    def run(self, name: str, *argv: str, timeout_s: float = 300.0, **extra: str) -> Finished:
        """Run `python rdagent_ft/loop.py argv…` to its end."""
        done = subprocess.run(
            [sys.executable, LOOP, *argv],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env=self.environment(name, **extra),
            cwd=self.root,
        )
        return Finished(done.returncode, done.stdout, done.stderr)

    def start(self, name: str, *argv: str, **extra: str) -> subprocess.Popen[str]:
        """Start `python rdagent_ft/loop.py argv…`."""
        return subprocess.Popen(
            [sys.executable, LOOP, *argv],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=self.environment(name, **extra),
            cwd=self.root,
        )

    def new(self, *more: str) -> tuple[str, ...]:
        """The arguments of a new run on this world's data, model and fast recipe."""
        fixed = ("--dataset", str(self.data), "--model", str(self.model), "--json")
        recipe = () if "--recipe" in more else ("--recipe", str(self.recipe()))
        return (*fixed, *recipe, *more)

    def run_dir(self, name: str) -> Path:
        """The newest run directory of a FT_FILE_PATH."""
        return sorted((self.files(name) / "output").iterdir())[-1]


OUT_OF_MEMORY = """\
Traceback (most recent call last):
  File "train.py", line 1, in <module>
torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.
"""


def outputs(run_dir: Path, step: str) -> list[dict[str, Any]]:
    """The journaled outputs of a step, one for each loop that has it."""
    with sqlite3.connect(f"file:{run_dir}/run.db?mode=ro", uri=True) as connection:
        rows = connection.execute("SELECT output FROM steps WHERE step = ? ORDER BY loop", (step,)).fetchall()
    return [json.loads(text) for (text,) in rows]


def short_of_memory(folder: Path, n_fits: int) -> Path:
    """A Python whose trainings run out of memory with more than `n_fits` rows a pass, as a GPU's would."""
    python, log = folder / "python", folder / "oom.txt"
    log.write_text(OUT_OF_MEMORY)
    python.write_text(
        "#!/bin/sh\n"
        'case "$*" in *stage_job*|*probe_job*)\n'
        '  config=$(echo "$*" | sed "s/.*--config \\([^ ]*\\).*/\\1/")\n'
        '  size=$(sed -n "s/^per_device_train_batch_size: \\([0-9]*\\).*/\\1/p" "$config")\n'
        f'  if [ "$size" -gt {n_fits} ]; then cat "{log}" >&2; exit 1; fi;;\n'
        f'esac\nexec "{sys.executable}" "$@"\n'
    )
    python.chmod(0o755)
    return python


def build(root: Path, n_rows: int = 400, hidden: int = 32) -> World:
    """Write the data and make the tiny model, with two attention heads."""
    rng = random.Random(0)
    rows: dict[str, dict[str, str]] = {}
    while len(rows) < n_rows:
        words = rng.sample(WORDS, 5)
        prompt = (
            f"Which colour has the {words[0]} beside the {words[1]} and the {words[2]} {words[3]} {words[4]}?"
        )
        rows[prompt] = {"prompt": prompt, "completion": COLOURS[WORDS.index(words[0]) % len(COLOURS)]}
    world = World(root)
    world.data.write_text("".join(json.dumps(row) + "\n" for row in rows.values()))
    texts = root / "texts.jsonl"
    texts.write_text(
        "".join(json.dumps({"text": f"{r['prompt']}\n{r['completion']}"}) + "\n" for r in rows.values())
    )
    spec = root / "spec.json"
    sizes = {"vocab_size": 400, "hidden": hidden, "layers": 2, "heads": 2, "seed": 0}
    spec.write_text(json.dumps({"texts": str(texts), "out": str(world.model), **sizes}))
    subprocess.run(
        [sys.executable, "-m", "rdagent_ft.training.tiny_job", "--spec", str(spec)],
        check=True,
        capture_output=True,
        cwd=REPOSITORY,
    )
    return world


def journal(run_dir: Path) -> dict[str, Any]:
    """Return what a run decided: outputs of all steps, looks and attempts' ends, without times and paths."""
    connection = sqlite3.connect(f"file:{run_dir / 'run.db'}?mode=ro", uri=True)
    steps = {
        f"{loop} {step}": _plain(json.loads(output))
        for loop, step, output in connection.execute(
            "SELECT loop, step, output FROM steps ORDER BY loop, step"
        )
    }
    looks = connection.execute(
        "SELECT benchmark, split, loop, recipe_hash FROM looks ORDER BY 1, 2, 3"
    ).fetchall()
    connection.close()
    return {"steps": steps, "looks": looks}


IGNORED = {
    "notices", "seconds", "train_s", "eval_s", "attempts", "from_cache", "facts", "machine_facts", "files",
    "weights", "estimate_gib", "forecast_s", "speed",
}  # fmt: skip
"""Times, counts of attempts and texts that hold times; `weights_sha256` stays."""


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items() if k not in IGNORED}
    return [_plain(item) for item in value] if isinstance(value, list) else value
