"""`rdagent-ft merge`: an adapter and its base become one model, outside of any run.

What can be wrong with the two folders is asked before the job starts, from configs and weight headers. The
job then proves in fp32 that the merged model answers as base and adapter did.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from rdagent_ft.data.model_folder import read_model_folder, weight_files
from rdagent_ft.data.safetensors_header import tensor_shapes
from rdagent_ft.engine.executors import open_executor
from rdagent_ft.engine.install import MERGED
from rdagent_ft.engine.single_job import run_single_job, work_folder
from rdagent_ft.errors import JobError, UserError
from rdagent_ft.execution.weight_files import ADAPTER_WEIGHTS, check_weights
from rdagent_ft.settings import Settings
from rdagent_ft.training.export_plan import Dtype, dtype_merge_argv
from rdagent_ft.training.plan import MergeResult, read_merge_result

_PREFIX = "base_model.model."
_A, _B = ".lora_A.weight", ".lora_B.weight"


def merge_folders(
    base: Path, adapter: Path, out: Path, dtype: Dtype, settings: Settings, notice: Callable[[str], None]
) -> MergeResult:
    """Merge `adapter` into `base` and write the model to the new folder `out`.

    Raises `UserError` for folders that do not fit, `JobError` when the merge went wrong or the merged model
    is not the same one.
    """
    base, adapter, out = base.absolute(), adapter.absolute(), out.absolute()
    check_merge(base, adapter, out)
    for line in _remarks(base, adapter):
        notice(line)
    opened = open_executor(settings, notice)
    opened.make_ready()
    with work_folder(out.parent, out.name) as work:
        out_dir = work / "job"
        argv = dtype_merge_argv(base, adapter, Path(MERGED), dtype)
        run_single_job(opened.executor, "merge", argv, out_dir, inputs={"base": base, "weights": adapter})
        result = read_merge_result(out_dir)
        check_weights(out_dir, MERGED, base_model=base, kind="model")
        if not result.is_equal:
            raise JobError(result.words)
        (out_dir / MERGED).rename(out)
    return result


def check_merge(base: Path, adapter: Path, out: Path) -> None:
    """Raise `UserError` for the first thing that keeps the two folders from being merged into `out`."""
    if out.exists() or out.is_symlink():
        raise UserError(f"--out {str(out)!r} exists", hint="nothing is overwritten; name a new folder")
    for folder, option in ((base, "--base"), (adapter, "--adapter")):
        if not folder.is_dir():
            raise UserError(f"{option} {str(folder)!r} is no folder")
        if out.is_relative_to(folder):
            raise UserError(f"--out {str(out)!r} lies inside {option}", hint="name a folder beside it")
    if not (base / "config.json").is_file():
        what = " but an adapter" if (base / "adapter_config.json").is_file() else ""
        raise UserError(
            f"--base {str(base)!r} is no model{what}: it has no config.json",
            hint="name the model that the adapter was trained on",
        )
    if _config(base / "config.json").get("quantization_config"):
        raise UserError(
            f"--base {str(base)!r} is quantised, and merging into rounded weights gives another model",
            hint="name the full-precision base",
        )
    read_model_folder(base.name, base)
    _check_adapter(base, adapter)


def _check_adapter(base: Path, adapter: Path) -> None:
    config_path, weights = adapter / "adapter_config.json", adapter / ADAPTER_WEIGHTS
    if not config_path.is_file():
        what = " but a whole model" if (adapter / "config.json").is_file() else ""
        raise UserError(f"--adapter {str(adapter)!r} is no adapter{what}: it has no adapter_config.json")
    if not weights.is_file():
        pickled = (adapter / "adapter_model.bin").is_file()
        raise UserError(
            f"--adapter {str(adapter)!r} has no {ADAPTER_WEIGHTS}",
            hint="its adapter_model.bin is a pickle, which may run code: save it as safetensors"
            if pickled
            else None,
        )
    kind = _config(config_path).get("peft_type")
    if kind != "LORA":
        raise UserError(f"--adapter {str(adapter)!r} is of the type {kind!r:.60}; only LORA can be merged")
    _check_shapes(base, weights)


def _check_shapes(base: Path, weights: Path) -> None:
    """Refuse an adapter whose matrices cannot belong to this base; names that are unknown here pass."""
    own: dict[str, tuple[int, ...]] = {}
    for path in weight_files(base):
        own |= tensor_shapes(path)
    adapter = tensor_shapes(weights)
    known = 0
    for name, shape in adapter.items():
        module = name.removeprefix(_PREFIX).removesuffix(_A)
        target = own.get(f"{module}.weight")
        up = adapter.get(f"{_PREFIX}{module}{_B}")
        if not name.endswith(_A) or target is None or up is None or len(target) != 2:
            continue
        known += 1
        if (up[0], shape[1]) != target:
            raise UserError(
                f"the adapter does not fit the base: for {module} it has {up[0]} x {shape[1]}, "
                f"the base {target[0]} x {target[1]}",
                hint="name the model that the adapter was trained on",
            )
    n_pairs = sum(name.endswith(_A) for name in adapter)
    if n_pairs and not known:
        raise UserError(
            f"the adapter does not fit the base: none of its {n_pairs} modules is in it",
            hint="name the model that the adapter was trained on",
        )


def _remarks(base: Path, adapter: Path) -> list[str]:
    named = _config(adapter / "adapter_config.json").get("base_model_name_or_path")
    if isinstance(named, str) and Path(named).name != base.name:
        return [f"the adapter names {Path(named).name!r} as its base; it is merged into {base.name!r}"]
    return []


def _config(path: Path) -> dict[str, Any]:
    try:
        value: Any = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{str(path)!r} cannot be read: {error}") from None
    if not isinstance(value, dict):
        raise UserError(f"{str(path)!r} holds no JSON object")
    return cast("dict[str, Any]", value)
