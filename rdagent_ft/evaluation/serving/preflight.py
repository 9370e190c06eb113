"""What can be known to be wrong before a server is started, in seconds and all together.

Not here: whether the server's environment reads this checkpoint rightly (`serve_job` looks there), and
whether its memory suffices (`spec.memory_ladder`).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rdagent_ft.errors import JobError, Problem
from rdagent_ft.evaluation.serving.checkpoint import head_size, rope_contradiction, text_config
from rdagent_ft.evaluation.serving.spec import CPU_HEAD_SIZES, ServerSpec
from rdagent_ft.execution.outputs import read_json_file

MIN_FREE_BYTES = 1 << 30
_CONFIG_BYTES = 8 << 20
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")


def serving_problems(spec: ServerSpec, out_dir: Path, adapters_dir: Path) -> tuple[Problem, ...]:
    """Return everything that is wrong with the folders of a server; () when it may be started.

    `out_dir` may not exist yet.
    """
    return (*_model_problems(spec), *_folder_problems(out_dir.absolute(), adapters_dir.absolute()))


def _model_problems(spec: ServerSpec) -> Iterator[Problem]:
    folder = spec.model_dir
    if not folder.is_dir():
        yield _problem("model_dir", folder, "is no folder", "model", "name a model's folder")
        return
    yield from _file_problems(folder)
    try:
        path = (folder / "config.json").resolve()  # a folder of the hub's cache is made of links
        config = read_json_file(path.parent, path.name, _CONFIG_BYTES)
    except JobError as error:
        yield _problem("config.json", str(folder), error.message, "config", "save the model again")
        return
    yield from _config_problems(spec, config)


def _file_problems(folder: Path) -> Iterator[Problem]:
    names = {path.name for path in folder.iterdir()}
    if not any(name.endswith(".safetensors") and not name.startswith("adapter") for name in names):
        found = next((name for name in sorted(names) if name.endswith(_PICKLES)), None)
        rule = "has no safetensors weights" + (f", only pickles ({found})" if found else "")
        yield _problem("model_dir", folder, rule, "weights", "save it with save_pretrained(…)")
    if "adapter_config.json" in names:
        yield _problem("model_dir", folder, "holds an adapter", "adapter", "serve its base and load it there")
    if not names & {"tokenizer.json", "tokenizer.model"} or "tokenizer_config.json" not in names:
        yield _problem(
            "tokenizer", folder, "has no tokenizer (tokenizer.json, tokenizer_config.json)", "tokenizer",
            "save the base's tokenizer beside the model",
        )  # fmt: skip


def _config_problems(spec: ServerSpec, config: dict[str, Any]) -> Iterator[Problem]:
    if not isinstance(config.get("architectures"), list) or not config["architectures"]:
        yield _problem("architectures", None, "config.json names none", "config", "save the model again")
    contradiction = rope_contradiction(config)
    if contradiction is not None:
        yield _problem(
            "rope_theta", contradiction[0],
            f"rope_parameters says {contradiction[1]:g}: readers of transformers 4 and 5 would differ",
            "reader", "keep the one that the model was trained with, in both places",
        )  # fmt: skip
    positions = text_config(config).get("max_position_embeddings")
    if isinstance(positions, int) and spec.max_model_len > positions:
        yield _problem(
            "max_model_len", spec.max_model_len, f"the model has {positions} positions", "context",
            f"ask for at most {positions}",
        )  # fmt: skip
    size = head_size(config)
    if spec.device == "cpu" and size is not None and size not in CPU_HEAD_SIZES:
        yield _problem(
            "head_dim", size, f"the server computes on CPU with {_listed(CPU_HEAD_SIZES)} only", "head_size",
            "score this model in a job (lm-eval's hf backend), or on a GPU",
        )  # fmt: skip


def _folder_problems(out_dir: Path, adapters_dir: Path) -> Iterator[Problem]:
    if adapters_dir == out_dir or out_dir in adapters_dir.parents:
        yield _problem(
            "adapters_dir", adapters_dir, "lies in the folder that the server may write", "folders",
            "put it beside the server's folder",
        )  # fmt: skip
    if not adapters_dir.is_dir():
        yield _problem("adapters_dir", adapters_dir, "is no folder", "folders", "create it first")
    there = next((folder for folder in (out_dir, *out_dir.parents) if folder.is_dir()), None)
    free = 0 if there is None else shutil.disk_usage(there).free
    if free < MIN_FREE_BYTES:
        yield _problem(
            "out_dir", out_dir, f"its disk has {free >> 20} MiB free, below {MIN_FREE_BYTES >> 20}", "disk",
            "free some space",
        )  # fmt: skip


def _listed(sizes: frozenset[int]) -> str:
    return ", ".join(map(str, sorted(sizes)))


def _problem(key: str, value: Any, rule: str, kind: str, fix: str) -> Problem:
    shown = str(value) if isinstance(value, Path) else value
    return Problem(key, shown, rule, f"serve.{kind}", fix)
