# pyright: basic
"""The export job: `python -m rdagent_ft.training.quantise_job --model DIR --out DIR --form 16bit|4bit`.

`16bit` stores an fp32 model in bfloat16 or float16, one weight file after the other, so that memory holds
one file only; `4bit` is bitsandbytes NF4 with double quantisation, which needs a GPU and the package.
Both are loaded again and compared with the model that they were made from. Exit code 3 with
`failure.json` when something is missing or a weight does not fit the smaller type. GGUF is not made here.
"""

from __future__ import annotations

import argparse
import faulthandler
import json
import shutil
import signal
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rdagent_ft.training.config_compat import make_readable
from rdagent_ft.training.job_files import fail, package_versions, write_json_file
from rdagent_ft.training.model_logits import (
    PROMPTS,
    folder_logits,
    largest_difference,
    load_tokenizer,
    prompt_logits,
    same_next_token,
)

COPIED = ("*.json", "*.jinja", "*.txt", "*.model")
_INDEX = "model.safetensors.index.json"


class DoesNotFitError(ValueError):
    """A finite weight became infinite in the smaller type."""


def main() -> None:
    """Make the smaller model, compare, report."""
    parser = argparse.ArgumentParser(description="Store a model in 16 or 4 bits and compare the two.")
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--form", choices=("16bit", "4bit"), required=True)
    parser.add_argument("--dtype", choices=("bfloat16", "float16"), default="bfloat16")
    parser.add_argument("--result", type=Path, default=Path("result.json"))
    parser.add_argument("--failure", type=Path, default=Path("failure.json"))
    args = parser.parse_args()
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    for path in (args.result, args.failure):
        path.unlink(missing_ok=True)
    started = time.monotonic()
    staging = args.out.with_name(f".{args.out.name}.staging")
    shutil.rmtree(staging, ignore_errors=True)
    if args.form == "16bit":
        try:
            cast_folder(args.model, staging, args.dtype)
        except DoesNotFitError as error:
            fail(args.failure, "chain.merge_numeric", str(error))
        after = folder_logits(staging)
    else:
        _refuse_missing(args.failure)
        after = _quantise(args.model, staging, args.dtype)
    before = folder_logits(args.model)
    make_readable(staging)
    difference, largest = largest_difference(before, after)
    if difference != difference:  # NaN
        fail(args.failure, "chain.merge_numeric", f"the {args.form} model answers with NaN")
    shutil.rmtree(args.out, ignore_errors=True)
    staging.rename(args.out)
    write_json_file(
        args.result,
        {
            "form": args.form,
            "dtype": args.dtype if args.form == "16bit" else "nf4",
            "max_abs_diff": difference,
            "max_abs_logit": largest,
            "share_same_token": same_next_token(before, after),
            "n_prompts": len(PROMPTS),
            "n_bytes_before": _n_bytes(args.model),
            "n_bytes": _n_bytes(args.out),
            "seconds": round(time.monotonic() - started, 3),
            "versions": package_versions("torch", "transformers", "bitsandbytes"),
        },
    )


def cast_folder(source: Path, out: Path, dtype: str) -> None:
    """Write the model of `source` to the new folder `out` with its floating-point weights in `dtype`.

    Names, shards and metadata of the weight files stay. Raises `DoesNotFitError` for a finite weight that
    becomes infinite (float16 ends at 65504).
    """
    import torch
    from safetensors import safe_open
    from safetensors.torch import save_file

    wanted = getattr(torch, dtype)
    out.mkdir(parents=True)
    for pattern in COPIED:
        for path in sorted(source.glob(pattern)):
            if path.is_file() and not path.is_symlink():
                shutil.copyfile(path, out / path.name)
    for path in sorted(source.glob("*.safetensors")):
        tensors = {}
        with safe_open(path, framework="pt") as opened:
            metadata = opened.metadata()
            for name in opened.keys():  # noqa: SIM118 - it is no mapping
                tensor = opened.get_tensor(name)
                tensors[name] = _cast(name, tensor, wanted) if tensor.is_floating_point() else tensor
        save_file(tensors, out / path.name, metadata=metadata)
    _note_dtype(out, dtype)


def _cast(name: str, tensor: Any, wanted: Any) -> Any:
    changed = tensor.to(wanted)
    if bool((changed.isinf() & ~tensor.isinf()).any()):
        raise DoesNotFitError(f"weights of {name} are too large for {wanted}; use bfloat16")
    return changed.contiguous()


def _note_dtype(folder: Path, dtype: str) -> None:
    """Say the new type in config.json, and the new size in the index of a sharded model."""
    config_path = folder / "config.json"
    config = json.loads(config_path.read_text(encoding="utf-8"))
    config["dtype"] = config["torch_dtype"] = dtype
    write_json_file(config_path, config)
    index_path = folder / _INDEX
    if index_path.is_file():
        index = json.loads(index_path.read_text(encoding="utf-8"))
        index["metadata"] = {**index.get("metadata", {}), "total_size": _n_bytes(folder)}
        write_json_file(index_path, index)


def _refuse_missing(failure: Path) -> None:
    """End the job with everything that 4 bits need and this environment lacks."""
    import torch

    missing = []
    if find_spec("bitsandbytes") is None:
        missing.append("the package bitsandbytes")
    if not torch.cuda.is_available():
        missing.append("a CUDA GPU")
    if missing:
        fail(failure, "env.missing_dep", f"4-bit weights need {' and '.join(missing)}")


def _quantise(source: Path, out: Path, dtype: str) -> list[Any]:
    """Save the NF4 model and the tokenizer; return the logits of what a loader gets from the disk."""
    import torch
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    settings = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=getattr(torch, dtype),
    )
    kind = {"dtype": getattr(torch, dtype), "use_safetensors": True, "device_map": {"": 0}}
    model = AutoModelForCausalLM.from_pretrained(source, quantization_config=settings, **kind)
    model.save_pretrained(out)
    del model
    tokenizer = load_tokenizer(source)
    tokenizer.save_pretrained(out)
    return prompt_logits(AutoModelForCausalLM.from_pretrained(out, **kind).eval(), tokenizer)


def _n_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


if __name__ == "__main__":
    main()
