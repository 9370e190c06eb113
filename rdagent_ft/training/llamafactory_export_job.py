# pyright: basic
"""The LLaMA-Factory export job: `python -m rdagent_ft.training.llamafactory_export_job --config export.yaml`.

Merges an adapter through the trainer's own export, in fp32, and proves the result: the merged model is
loaded again and its logits on eight prompts are compared with those of base + adapter. The tokenizer is
the model's own, not the one that the trainer changed. Ends with exit code 3 when the logits differ.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import shutil
import signal
import time
from pathlib import Path
from typing import Any

from rdagent_ft.training.config_compat import make_readable
from rdagent_ft.training.job_files import fail, package_versions, write_json_file
from rdagent_ft.training.llamafactory_checks import copy_tokenizer, load_tokenizer
from rdagent_ft.training.llamafactory_job import PACKAGES, read_config
from rdagent_ft.training.model_logits import (
    PROMPTS,
    folder_logits,
    largest_difference,
    load_model,
    prompt_logits,
)

TOLERANCE = 1e-4
"""Largest difference relative to the largest logit; as in `merge_job`."""


def main() -> None:
    """Export, compare, report."""
    parser = argparse.ArgumentParser(description="Merge an adapter with LLaMA-Factory and prove the result.")
    parser.add_argument("--config", type=Path, required=True, help="LLaMA-Factory export config (YAML)")
    parser.add_argument("--result", type=Path, default=Path("result.json"))
    parser.add_argument("--failure", type=Path, default=Path("failure.json"))
    args = parser.parse_args()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    for path in (args.result, args.failure):
        path.unlink(missing_ok=True)
    started = time.monotonic()
    config = read_config(args.config)
    base, adapter, out = (
        Path(config[key]) for key in ("model_name_or_path", "adapter_name_or_path", "export_dir")
    )
    if json.loads((base / "config.json").read_text(encoding="utf-8")).get("quantization_config"):
        fail(
            args.failure, "chain.merge_quantised", f"{base} is quantised: merge into the full-precision base"
        )
    staging = out.with_name(f".{out.name}.staging")
    shutil.rmtree(staging, ignore_errors=True)
    _export({**config, "export_dir": str(staging)})
    copy_tokenizer(base, staging)
    make_readable(staging)
    diff, largest = largest_difference(_adapter_logits(base, adapter), folder_logits(staging))
    if not diff <= TOLERANCE * max(1.0, largest):  # also true for NaN
        message = f"logits differ by {diff:.3g} after the merge"
        fail(args.failure, "chain.merge_numeric", message, max_abs_diff=diff, max_abs_logit=largest)
    shutil.rmtree(out, ignore_errors=True)
    staging.rename(out)
    result = {
        "max_abs_diff": diff,
        "max_abs_logit": largest,
        "n_prompts": len(PROMPTS),
        "kind": "merged",
        "dtype": json.loads((out / "config.json").read_text(encoding="utf-8")).get("dtype", "float32"),
        "seconds": round(time.monotonic() - started, 3),
        "versions": package_versions(*PACKAGES),
    }
    write_json_file(args.result, result)


def _export(config: dict[str, Any]) -> None:
    from llamafactory.train.tuner import export_model  # pyright: ignore[reportMissingImports]

    export_model(config)


def _adapter_logits(base: Path, adapter: Path) -> list[Any]:
    from peft import PeftModel

    model = PeftModel.from_pretrained(load_model(base), str(adapter))
    return prompt_logits(model.eval(), load_tokenizer(base))


if __name__ == "__main__":
    main()
