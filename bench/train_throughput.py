"""Our rendered SFT config beside what a user would start without us, on equal work: speed, memory, loss.

    python -m bench.train_throughput [--out FILE] [--steps N] [--rounds N] [--threads N] [--model FOLDER]
        [--peak-tflops X]

Equal work: the same model, the same rows in the same order of magnitude of steps, LoRA of one rank on the
same layers, the same rows in an optimizer step, the same learning rate. What differs is what a config
decides: `ours` is `render_stage` of a recipe; `trl defaults` leaves every key away that TRL has a default
for. Each runs in a process of its own, by turns, through the same trainer and the same job; medians of all
rounds count. Compared are tokens a second of training (prompts included, padding not), the peak of the
process, and the mean loss of the last steps after the same number of rows; `cpu_s` (the whole process,
imports too) tells whether a shared machine disturbed the clock. With FT_TEST_LLAMAFACTORY set to the Python
of its environment, its own LoRA SFT example is run on the same rows, too. On a GPU, `--peak-tflops` (989
for a H100's dense bfloat16) turns speed into MFU; without a GPU there is none, and the peak there is that
of the host process: the device's own is what the probe job reports.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.memory_forecast import SIZES, make_model
from rdagent_ft.execution.outputs import read_json_lines
from rdagent_ft.recipe.forecast import measured_throughput
from rdagent_ft.recipe.memory import read_model_shape
from rdagent_ft.recipe.render import RenderFacts, StagePaths, render_stage
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.stages import LoraAdapter, SftStage
from rdagent_ft.training.plan import read_train_result, stage_argv
from rdagent_ft.values import write_json

RESULTS = Path(__file__).resolve().parent / "results" / "train_throughput.json"
BATCH, RATE, RANK, MAX_TOKENS = 8, 1e-3, 16, 256
LAST = 3
"""Logged losses whose mean is compared."""


def make_rows(path: Path, n_rows: int) -> None:
    """Write rows of mixed length whose answer follows from the prompt."""
    dice = random.Random(2)
    lines: list[str] = []
    for _ in range(n_rows):
        words = [f"w{dice.randrange(200)}" for _ in range(dice.randrange(4, 48))]
        lines.append(json.dumps({"prompt": " ".join(words), "completion": " " + " ".join(words[::-1][:16])}))
    path.write_text("\n".join(lines) + "\n")


def configs(model: Path, rows: Path, n_rows: int, steps: int, device: Any) -> dict[str, str]:
    """Return name -> config text."""
    stage = SftStage(
        adapter=LoraAdapter(r=RANK, alpha=2 * RANK), learning_rate=RATE, effective_batch=BATCH,
        micro_batch=BATCH, max_length=MAX_TOKENS, max_steps=steps,
    )  # fmt: skip
    ours = render_stage(
        Recipe(stages=(stage,)),
        0,
        paths=StagePaths(model=model, train_file=rows, output_dir=Path("output")),
        facts=RenderFacts(device=device, n_train_rows=n_rows),
    ).text
    plain: dict[str, Any] = {
        "model_name_or_path": str(model), "datasets": [{"path": "json", "data_files": str(rows)}],
        "output_dir": "output", "use_peft": True, "lora_r": RANK, "lora_alpha": 2 * RANK,
        "lora_target_modules": ["all-linear"], "learning_rate": RATE, "max_steps": steps,
        "per_device_train_batch_size": BATCH, "logging_steps": 1, "report_to": "none", "save_strategy": "no",
    }  # fmt: skip
    if device == "cpu":
        plain |= {"use_cpu": True, "bf16": False}  # TRL's own bfloat16 default is not the comparison on a CPU
    return {"ours": ours, "trl defaults": json.dumps(plain)}


def train(folder: Path, config: str, threads: int) -> dict[str, float]:
    """Run one training; return seconds, tokens, peak and loss."""
    folder.mkdir()
    (folder / "config.yaml").write_text(config)
    with (folder / "job.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, *stage_argv("sft", folder / "config.yaml")[1:]],
            cwd=folder,
            stdout=log,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError((folder / "job.log").read_text()[-2000:])
    result, lines = read_train_result(folder), read_json_lines(folder, "metrics.jsonl")
    losses = [float(line["loss"]) for line in lines]
    return {
        "train_s": result.train_s,
        "n_tokens": float(result.n_tokens or 0),
        "tokens_per_s": (result.n_tokens or 0) / result.train_s,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_gib": usage.ru_maxrss / (1 << 20),
        "first_loss": losses[0],
        "last_loss": statistics.mean(losses[-LAST:]),
    }


def train_llamafactory(
    folder: Path, python: str, model: Path, rows: Path, steps: int, threads: int
) -> dict[str, float]:
    """Run LLaMA-Factory's LoRA SFT example (its keys) on the same rows with the same work."""
    folder.mkdir()
    columns = {"prompt": "prompt", "response": "completion"}
    (folder / "dataset_info.json").write_text(
        json.dumps({"rows": {"file_name": str(rows), "columns": columns}})
    )
    config = {
        "model_name_or_path": str(model), "stage": "sft", "do_train": True, "finetuning_type": "lora",
        "lora_rank": RANK, "lora_target": "all", "dataset": "rows", "dataset_dir": str(folder),
        "template": "empty", "cutoff_len": MAX_TOKENS, "output_dir": "output", "logging_steps": 1,
        "save_strategy": "no", "per_device_train_batch_size": BATCH, "gradient_accumulation_steps": 1,
        "learning_rate": RATE, "max_steps": steps, "lr_scheduler_type": "cosine", "warmup_ratio": 0.1,
        "report_to": "none",
    }  # fmt: skip
    (folder / "config.yaml").write_text(json.dumps(config))
    with (folder / "job.log").open("wb") as log:
        code = "from llamafactory.train.tuner import run_exp; run_exp()"
        process = subprocess.Popen(
            [python, "-c", code, str(folder / "config.yaml")],
            cwd=folder,
            stdout=log,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
        )
        _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise RuntimeError((folder / "job.log").read_text()[-2000:])
    done = json.loads((folder / "output" / "trainer_state.json").read_text())
    logs = [entry for entry in done["log_history"] if "loss" in entry]
    seconds = float(done["log_history"][-1]["train_runtime"])
    return {
        "train_s": seconds,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_gib": usage.ru_maxrss / (1 << 20), "first_loss": float(logs[0]["loss"]),
        "last_loss": statistics.mean(float(entry["loss"]) for entry in logs[-LAST:]),
    }  # fmt: skip


def run_round(
    folder: Path, texts: dict[str, str], work: tuple[Path, Path], steps: int, threads: int
) -> dict[str, dict[str, float]]:
    """Run every config once, one after the other; `work` is the model and the file of rows."""
    folder.mkdir()
    found = {label: train(folder / label.replace(" ", "-"), text, threads) for label, text in texts.items()}
    python = os.environ.get("FT_TEST_LLAMAFACTORY")
    if python:
        found["llamafactory example"] = other = train_llamafactory(
            folder / "lf", python, *work, steps, threads
        )
        # Its own counter counts padding; the rows are the same, so their tokens are those of the others.
        other["n_tokens"] = found["ours"]["n_tokens"]
        other["tokens_per_s"] = other["n_tokens"] / other["train_s"]
    return found


def measure(
    model: Path | None, steps: int, threads: int, peak_tflops: float | None, n_rounds: int
) -> dict[str, Any]:
    """Run every config in turn, `n_rounds` times, after a warm-up of the page cache.

    Returns one JSON-ready document with the median of every measure.
    """
    device = "cuda" if peak_tflops is not None else "cpu"
    with tempfile.TemporaryDirectory(prefix="bench-throughput-") as name:
        root = Path(name)
        model = model or make_model(root, SIZES)
        n_rows = BATCH * steps
        rows = root / "rows.jsonl"
        make_rows(rows, n_rows)
        texts = configs(model, rows, n_rows, steps, device)
        train(root / "warm", configs(model, rows, n_rows, 2, device)["ours"], threads)
        rounds = [
            run_round(root / f"round-{number}", texts, (model, rows), steps, threads)
            for number in range(n_rounds)
        ]
        found = {
            label: {key: statistics.median(each[label][key] for each in rounds) for key in rounds[0][label]}
            for label in rounds[0]
        }
        shape = read_model_shape(model)
    if peak_tflops is not None:
        stage = SftStage(adapter=LoraAdapter(r=RANK))
        for result in found.values():
            speed = measured_throughput(
                stage, shape, n_tokens=result["n_tokens"], seconds=result["train_s"], tokens_per_row=64
            )
            result["mfu"] = speed.mfu(peak_tflops * 1e12)
    return {
        "schema_version": 1,
        "code": subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
        ).stdout.strip(),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "device": device,
        "million_weights": round(shape.n_params / 1e6, 1),
        "steps": steps,
        "threads": threads,
        "rounds": n_rounds,
        "rows_per_step": BATCH,
        "load_average": round(os.getloadavg()[0], 1),
        "unix_time": round(time.time()),
        "runs": {label: {key: round(value, 4) for key, value in run.items()} for label, run in found.items()},
        "ours_over": {
            other: {
                key: round(found["ours"][key] / found[other][key], 3)
                for key in ("tokens_per_s", "cpu_s", "peak_gib", "last_loss")
            }
            for other in found
            if other != "ours"
        },
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument(
        "--model", type=Path, default=None, help="a model folder instead of a small random one"
    )
    parser.add_argument("--rounds", type=int, default=3, help="medians of so many")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--peak-tflops", type=float, default=None, help="of the GPU; trains there")
    arguments = parser.parse_args()
    document = measure(
        arguments.model, arguments.steps, arguments.threads, arguments.peak_tflops, arguments.rounds
    )
    write_json(arguments.out, document)
    for name, result in document["runs"].items():
        print(
            f"{name:22s} {result['tokens_per_s']:8.0f} tokens/s, peak {result['peak_gib']:.2f} GiB, "
            f"loss {result['first_loss']:.2f} -> {result['last_loss']:.2f}"
        )
    for other, ratios in document["ours_over"].items():
        print(f"ours / {other}: {ratios}")


if __name__ == "__main__":
    main()
