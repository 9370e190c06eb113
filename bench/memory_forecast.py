"""The memory forecast beside the measured peak of real trainings, for every kind of stage, on CPU.

    python -m bench.memory_forecast [--out FILE] [--only NAME]

Each case renders nothing new: a TRL config of a random Qwen3 of some million weights, three real steps on
rows of one length (`probe_job`), and the forecast for the same numbers. Compared is what a training adds to
the process: forecast without its flat part for the runtime, measured peak without what was resident before
the model was loaded. The runtime's flat part is compared on its own. A GPU's allocator and kernels differ;
these numbers judge the formulas for what is kept and for how long, not the constants of CUDA.
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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rdagent_ft.recipe.memory import MemorySetup, estimate_memory_gib, read_model_shape
from rdagent_ft.recipe.rewards import ExactReward
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.stages import (
    AnyTrainedStage,
    DistillStage,
    DpoStage,
    FullAdapter,
    GrpoStage,
    KtoStage,
    LoraAdapter,
    RewardStage,
    SftStage,
)
from rdagent_ft.training.plan import tiny_argv
from rdagent_ft.training.probe_plan import probe_argv, read_probe_result
from rdagent_ft.values import write_json

RESULTS = Path(__file__).resolve().parent / "results" / "memory_forecast.json"
ROW_TOKENS = 192
N_ROWS = 48
SIZES = {"hidden": 256, "layers": 6, "heads": 8, "vocab_size": 4096, "max_positions": 1024}
WIDE = {"hidden": 512, "layers": 8, "heads": 8, "vocab_size": 8192, "max_positions": 1024}
FULL, LORA = FullAdapter(), LoraAdapter(r=16)
_BASE: dict[str, Any] = {"effective_batch": 8, "micro_batch": 8, "max_length": ROW_TOKENS, "max_steps": 3}
_ANSWER = {"max_completion_length": 64}
CASES: dict[str, tuple[dict[str, int], AnyTrainedStage]] = {
    "sft lora": (SIZES, SftStage(adapter=LORA, **_BASE)),
    "sft full": (SIZES, SftStage(adapter=FULL, **_BASE)),
    "sft full, wide": (WIDE, SftStage(adapter=FULL, **_BASE | {"micro_batch": 4, "effective_batch": 4})),
    "sft lora, checkpointing": (SIZES, SftStage(adapter=LORA, gradient_checkpointing=True, **_BASE)),
    "sft lora, dropout": (SIZES, SftStage(adapter=LORA.model_copy(update={"dropout": 0.1}), **_BASE)),
    "sft dora": (SIZES, SftStage(adapter=LORA.model_copy(update={"use_dora": True}), **_BASE)),
    "sft lora, eager": (SIZES, SftStage(adapter=LORA, attn_implementation="eager", **_BASE)),
    "dpo lora": (SIZES, DpoStage(adapter=LORA, **_BASE | {"micro_batch": 4, "effective_batch": 4})),
    "dpo full": (SIZES, DpoStage(adapter=FULL, **_BASE | {"micro_batch": 4, "effective_batch": 4})),
    "kto full": (SIZES, KtoStage(adapter=FULL, **_BASE)),
    "reward lora": (SIZES, RewardStage(adapter=LORA, **_BASE | {"micro_batch": 4, "effective_batch": 4})),
    "grpo lora": (
        SIZES,
        GrpoStage(
            adapter=LORA, rewards=(ExactReward(),), num_generations=4,
            **_BASE | _ANSWER | {"effective_batch": 2},
        ),
    ),
    "distill lora": (SIZES, DistillStage(adapter=LORA, teacher="self", **_BASE | _ANSWER)),
}  # fmt: skip


def make_model(root: Path, sizes: Mapping[str, int]) -> Path:
    """Make a random model of these sizes with a tokenizer whose words are single tokens."""
    folder = root / f"model-{sizes['hidden']}"
    if not folder.exists():
        texts, spec = root / f"texts-{sizes['hidden']}.jsonl", root / "spec.json"
        dice = random.Random(0)
        lines = (" ".join(f"w{dice.randrange(20_000)}" for _ in range(40)) for _ in range(2_000))
        texts.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
        spec.write_text(json.dumps({"texts": str(texts), "out": str(folder), **sizes}))
        subprocess.run([sys.executable, *tiny_argv(spec)[1:]], check=True, capture_output=True)
    return folder


def make_rows(path: Path, kind: str) -> None:
    """Write rows for one kind of stage; rows are longer than what is trained of them."""
    dice = random.Random(1)

    def words(n: int) -> str:
        return " ".join(f"w{dice.randrange(20_000)}" for _ in range(n))

    def row(number: int) -> dict[str, Any]:
        if kind in ("grpo", "distill"):
            return {"prompt": words(30), "gold": f"w{number}"}
        n_words = 40 if kind == "reward" else ROW_TOKENS  # TRL drops reward pairs that are too long
        answers = (words(n_words), words(n_words))
        if kind in ("dpo", "reward"):
            return {"prompt": words(20), "chosen": answers[0], "rejected": answers[1]}
        return {"prompt": words(20), "completion": answers[0]} | (
            {"label": number % 2 == 0} if kind == "kto" else {}
        )

    path.write_text("".join(json.dumps(row(number)) + "\n" for number in range(N_ROWS)))


def config_of(stage: AnyTrainedStage, model: Path, rows: Path) -> dict[str, Any]:
    """Return the trainer's config for a stage, as the templates write it (CPU, float32)."""
    adapter = stage.adapter
    config: dict[str, Any] = {
        "model_name_or_path": str(model), "dtype": "float32", "bf16": False, "use_cpu": True,
        "datasets": [{"path": "json", "data_files": str(rows)}], "output_dir": "trainer",
        "attn_implementation": "sdpa" if stage.attn_implementation == "auto" else stage.attn_implementation,
        "per_device_train_batch_size": stage.micro_batch, "learning_rate": stage.learning_rate,
        "gradient_checkpointing": stage.gradient_checkpointing, "report_to": "none", "disable_tqdm": True,
        "logging_nan_inf_filter": False, "use_peft": isinstance(adapter, LoraAdapter),
    }  # fmt: skip
    if stage.gradient_checkpointing:
        config["gradient_checkpointing_kwargs"] = {"use_reentrant": False}
    if isinstance(adapter, LoraAdapter):
        config |= {"lora_r": adapter.r, "lora_alpha": adapter.alpha, "lora_dropout": adapter.dropout}
        config |= {"lora_target_modules": "all-linear", "use_dora": adapter.use_dora}
    if isinstance(stage, GrpoStage):
        config |= {"num_generations": stage.num_generations, "max_completion_length": 64}
    elif isinstance(stage, DistillStage):
        config |= {"teacher_model_name_or_path": str(model), "max_completion_length": 64}
    else:
        config["max_length"] = stage.max_length
    return config


def compare(root: Path, name: str) -> dict[str, Any]:
    """Run one case; return forecast and measurement in GiB."""
    sizes, stage = CASES[name]
    model, folder = make_model(root, sizes), root / name.replace(" ", "-").replace(",", "")
    folder.mkdir()
    make_rows(folder / "rows.jsonl", stage.kind)
    (folder / "config.yaml").write_text(json.dumps(config_of(stage, model, folder / "rows.jsonl")))
    rewards = None
    if isinstance(stage, GrpoStage):
        rewards = folder / "rewards.json"
        rewards.write_text(json.dumps([reward.model_dump(mode="json") for reward in stage.rewards]))
    argv = probe_argv(stage.kind, folder / "config.yaml", rewards=rewards)
    done = subprocess.run(
        [sys.executable, *argv[1:]], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stdout[-500:]}{done.stderr[-2000:]}")
    probed = read_probe_result(folder)
    assert probed.before_gib is not None
    longest = probed.longest_row_tokens
    if stage.kind in ("grpo", "distill"):
        longest = _prompt_tokens(model, folder / "rows.jsonl")
    shape = read_model_shape(model)
    estimate = estimate_memory_gib(
        Recipe(stages=(stage,)), shape, "cpu", setup=MemorySetup(longest_row_tokens=longest)
    )
    forecast = estimate.total_gib - estimate.parts["runtime"]
    measured = probed.peak_gib - probed.before_gib
    return {
        "million_weights": round(shape.n_params / 1e6, 1),
        "forecast_gib": round(forecast, 3),
        "measured_gib": round(measured, 3),
        "forecast_over_measured": round(forecast / measured, 3),
        "total_forecast_over_measured": round(estimate.total_gib / probed.peak_gib, 3),
        "runtime_gib": round(probed.before_gib, 3),
        "tokens_per_s": probed.tokens_per_s,
        "parts_gib": {part: round(size, 3) for part, size in estimate.parts.items()},
    }


def _prompt_tokens(model: Path, rows: Path) -> int:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    lines = rows.read_text().splitlines()
    return max(len(tokenizer.encode(json.loads(line)["prompt"]).ids) for line in lines)


def measure(names: list[str]) -> dict[str, Any]:
    """Run the cases; return one JSON-ready document."""
    with tempfile.TemporaryDirectory(prefix="bench-memory-") as folder:
        cases: dict[str, Any] = {}
        for name in names:
            cases[name] = found = compare(Path(folder), name)
            print(
                f"{name:26s} forecast {found['forecast_gib']:.3f} GiB, measured {found['measured_gib']:.3f} "
                f"GiB, ratio {found['forecast_over_measured']:.2f}",
                flush=True,
            )
    ratios = [case["forecast_over_measured"] for case in cases.values()]
    return {
        "schema_version": 1,
        "code": subprocess.run(
            ["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False
        ).stdout.strip(),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "row_tokens": ROW_TOKENS,
        "ratio": {"min": min(ratios), "median": statistics.median(ratios), "max": max(ratios)},
        "mean_error": round(statistics.mean(abs(ratio - 1) for ratio in ratios), 3),
        "cases": cases,
    }


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--only", choices=sorted(CASES), default=None)
    arguments = parser.parse_args()
    document = measure([arguments.only] if arguments.only else list(CASES))
    if arguments.only is None:
        write_json(arguments.out, document)
    print(f"mean error {document['mean_error']:.0%}; ratios {document['ratio']}")


if __name__ == "__main__":
    main()
