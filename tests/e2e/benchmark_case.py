"""A suite over made-up items, tiny models and plans for tests of `rdagent-ft benchmark`."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rdagent_ft.evaluation.benchmarks import find_benchmark, load_items
from rdagent_ft.evaluation.results.plan import BenchmarkPlan, Endpoint
from rdagent_ft.evaluation.suites import Suite, SuiteBenchmark, ids_sha256
from rdagent_ft.settings import Settings

REPOSITORY = Path(__file__).resolve().parents[2]
N_SUMS, N_CHOICES = 6, 8


def write_benchmarks(files: Path) -> None:
    """Write sums in the form of GSM8K and choices in the form of MMLU below FT_FILE_PATH."""
    sums = files / "benchmarks" / "gsm8k" / "test.jsonl"
    sums.parent.mkdir(parents=True)
    sums.write_text(
        "".join(
            json.dumps({"question": f"what is {a} plus {a + 1}?", "answer": f"Add.\n#### {2 * a + 1}"}) + "\n"
            for a in range(N_SUMS)
        )
    )
    choices = files / "benchmarks" / "mmlu" / "test" / "made_up_test.csv"
    choices.parent.mkdir(parents=True)
    choices.write_text("".join(f"what is {a}?,{a},x,y,z,{'ABCD'[a % 4]}\n" for a in range(N_CHOICES)))


def suite_of(files: Path, *names: str) -> Suite:
    """Return a suite of all items of these benchmarks, the first one as target."""
    benchmarks: dict[str, SuiteBenchmark] = {}
    for name in names:
        found = find_benchmark(name, files)
        assert found is not None
        rows = load_items(found)
        benchmarks[name] = SuiteBenchmark(
            role="guard" if benchmarks else "target",
            rule="all",
            n_items=len(rows),
            n_available=len(rows),
            seed=1,
            data_sha256=found.sha256,
            ids_sha256=ids_sha256([row.item_id for row in rows]),
        )
    return Suite(
        schema_version=1, name="quick", version="t", title="t", purpose="t", guard_margin=0.03,
        benchmarks=benchmarks,
    )  # fmt: skip


def build_models(root: Path) -> None:
    """Make `base`, `other`, an adapter of base, and one that is untrained."""
    code = f"""
import json
from pathlib import Path
from tiny_model import build_adapter, build_model
root = Path({str(root)!r})
for name in ("base", "other"):
    build_model(root / name, bos=name == "other")
    config = json.loads((root / name / "config.json").read_text())
    (root / name / "config.json").write_text(json.dumps(config | {{"max_position_embeddings": 256}}))
build_adapter(root / "base", root / "adapter", zero=False)
build_adapter(root / "base", root / "untrained", zero=True)
"""
    tests = REPOSITORY / "tests" / "evaluation"
    env = {**os.environ, "PYTHONPATH": f"{REPOSITORY}:{tests}", "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code], check=True, env=env, capture_output=True)


def settings_of(files: Path, **changes: Any) -> Settings:
    """Return settings for jobs on this machine, without a file of settings."""
    fixed = {"file_path": files, "executor": "local", "allow_cpu": True, "python": sys.executable}
    return Settings.model_validate({**fixed, **changes})


def plan_of(out: Path, **changes: Any) -> BenchmarkPlan:
    """Return a plan that starts now."""
    return BenchmarkPlan.model_validate({"model": None, "out": out, "started": datetime.now(UTC), **changes})


def endpoint_plan(out: Path, url: str, **changes: Any) -> BenchmarkPlan:
    """Return a plan for the model `tiny` at an endpoint."""
    names = {
        key: changes.pop(key) for key in ("model_name", "base_model_name", "tokenizer") if key in changes
    }
    endpoint = Endpoint.model_validate({"url": url, "model_name": "tiny", **names})
    return plan_of(out, endpoint=endpoint, backend="server", **changes)


def right_sum(prompt: str) -> str:
    """Answer a made-up sum."""
    first, second = map(int, re.findall(r"(\d+) plus (\d+)", prompt)[-1])
    return f"#### {first + second}"


def write_tokenizer(folder: Path) -> Path:
    """Write a byte-level tokenizer, as a user names one for an endpoint."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    folder.mkdir()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={sign: n for n, sign in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 4096}))
    return folder


def document(folder: Path) -> dict[str, Any]:
    """Return a folder's benchmark.json."""
    return json.loads((folder / "benchmark.json").read_text())


def tuned_folder(out: Path) -> Path:
    """Return the newest result of the tuned model."""
    return sorted((out / "fine-tuned").iterdir())[-1]
