# pyright: basic
"""The merge job: `python -m rdagent_ft.training.merge_job --base DIR --adapter DIR --out DIR`.

Merges a LoRA adapter into its base in fp32 (PEFT, safe merge), or copies full weights (`--model`),
and proves the result: it is loaded again from disk and its logits on eight prompts are compared.
`--dtype` stores what was proven in 16 bits afterwards. Never merges into a quantised base. Ends with
exit code 3 when the logits differ too much.
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
from rdagent_ft.training.model_logits import (
    PROMPTS,
    folder_logits,
    largest_difference,
    load_model,
    load_tokenizer,
    prompt_logits,
)
from rdagent_ft.training.quantise_job import DoesNotFitError, cast_folder

COPIED = ("*.safetensors", "*.json", "*.jinja", "*.txt", "*.model")
DTYPE = "float32"


def main() -> None:
    """Merge or copy, compare, report."""
    parser = argparse.ArgumentParser(description="Merge an adapter into its base and prove the result.")
    parser.add_argument("--base", type=Path, required=True)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--adapter", type=Path)
    source.add_argument("--model", type=Path, help="full weights: copied and checked")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--result", type=Path, default=Path("result.json"))
    parser.add_argument("--failure", type=Path, default=Path("failure.json"))
    parser.add_argument(
        "--tolerance", type=float, default=1e-4, help="largest difference relative to the largest logit"
    )
    parser.add_argument(
        "--dtype", choices=("float32", "bfloat16", "float16"), help="store in; as computed by default"
    )
    args = parser.parse_args()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    for path in (args.result, args.failure):
        path.unlink(missing_ok=True)
    started = time.monotonic()
    staging = args.out.with_name(f".{args.out.name}.staging")
    shutil.rmtree(staging, ignore_errors=True)
    if args.adapter is not None:
        _refuse_quantised(args.base, args.failure)
        before = _merge(args.base, args.adapter, staging)
    else:
        before = _copy(args.model, staging)
    make_readable(staging)
    max_abs_diff, max_abs_logit = largest_difference(before, folder_logits(staging))
    if not max_abs_diff <= args.tolerance * max(1.0, max_abs_logit):  # also true for NaN
        fail(
            args.failure,
            "chain.merge_numeric",
            f"logits differ by {max_abs_diff:.3g} after the merge",
            max_abs_diff=max_abs_diff,
            max_abs_logit=max_abs_logit,
        )
    if args.dtype not in (None, DTYPE):
        staging = _stored_as(staging, args.dtype, args.failure)
    shutil.rmtree(args.out, ignore_errors=True)
    staging.rename(args.out)
    result = {
        "max_abs_diff": max_abs_diff,
        "max_abs_logit": max_abs_logit,
        "n_prompts": len(PROMPTS),
        "kind": "merged" if args.adapter is not None else "copied",
        "dtype": json.loads((args.out / "config.json").read_text(encoding="utf-8")).get("dtype", DTYPE),
        "seconds": round(time.monotonic() - started, 3),
        "versions": package_versions("torch", "transformers", "peft"),
    }
    write_json_file(args.result, result)


def _refuse_quantised(base: Path, failure: Path) -> None:
    config = json.loads((base / "config.json").read_text(encoding="utf-8"))
    if config.get("quantization_config"):
        fail(failure, "chain.merge_quantised", f"{base} is quantised: merge into the full-precision base")


def _merge(base: Path, adapter: Path, out: Path) -> list[Any]:
    """Merge into `out`; return the logits of base + adapter before the merge."""
    from peft import PeftModel

    if not (adapter / "adapter_model.safetensors").is_file():
        raise FileNotFoundError(f"no adapter_model.safetensors in {adapter}")
    tokenizer = load_tokenizer(adapter if (adapter / "tokenizer_config.json").is_file() else base)
    model = PeftModel.from_pretrained(load_model(base), str(adapter))
    model.eval()
    if len(tokenizer) > model.get_input_embeddings().weight.shape[0]:
        raise ValueError("the tokenizer has more tokens than the model has embeddings")
    before = prompt_logits(model, tokenizer)
    merged = model.merge_and_unload(safe_merge=True)
    merged.save_pretrained(out)
    if getattr(tokenizer, "chat_template", None) is None:
        tokenizer.chat_template = getattr(load_tokenizer(base), "chat_template", None)
    tokenizer.save_pretrained(out)
    return before


def _copy(model: Path, out: Path) -> list[Any]:
    """Copy weights, configs and tokenizer, nothing else; return the source's logits."""
    out.mkdir(parents=True)
    for pattern in COPIED:
        for path in sorted(model.glob(pattern)):
            if path.is_file() and not path.is_symlink():
                shutil.copyfile(path, out / path.name)
    return folder_logits(model)


def _stored_as(staging: Path, dtype: str, failure: Path) -> Path:
    """Return the folder that holds the proven model in `dtype`; the fp32 one is removed."""
    stored = staging.with_name(f"{staging.name}.{dtype}")
    shutil.rmtree(stored, ignore_errors=True)
    try:
        cast_folder(staging, stored, dtype)
    except DoesNotFitError as error:
        fail(failure, "chain.merge_numeric", str(error))
    shutil.rmtree(staging)
    return stored


if __name__ == "__main__":
    main()
