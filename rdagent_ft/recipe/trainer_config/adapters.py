"""Rules of the model side: LoRA, quantisation, and bases that are really adapters.

Families and module names: the transformers 5 modelling files. A config is judged without the
model; where its `config.json` lies on this machine it is read and decides.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from rdagent_ft.recipe.documents import shown
from rdagent_ft.recipe.edits import Finding, finding
from rdagent_ft.recipe.trainer_config.config import TrainerConfig, as_items

_LLAMA_LIKE = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_FAMILY_MODULES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("llama", "qwen2", "qwen3", "mistral", "gemma", "smollm", "olmo"), _LLAMA_LIKE),
    "phi3": ("qkv_proj", "o_proj", "gate_up_proj", "down_proj"),
    "phi4": ("qkv_proj", "o_proj", "gate_up_proj", "down_proj"),
    "gpt2": ("c_attn", "c_proj", "c_fc"),
    "bloom": ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"),
    "falcon": ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"),
    "pythia": ("query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"),
}
_OTHER_MODULES = (
    "qkv_proj", "gate_up_proj", "c_attn", "c_proj", "c_fc", "query_key_value", "dense", "dense_h_to_4h",
    "dense_4h_to_h", "Wqkv", "Wi", "Wo", "out_proj", "in_proj", "x_proj", "dt_proj", "fc1", "fc2", "fc_in",
    "fc_out", "w1", "w2", "w3", "wq", "wk", "wv", "wo", "wqkv", "q_a_proj", "q_b_proj", "kv_a_proj_with_mqa",
    "kv_b_proj", "q_lin", "k_lin", "v_lin", "out_lin", "gate", "router", "experts", "embed_tokens", "lm_head",
    "query", "key", "value", "in_proj_qkvz", "in_proj_ba", "in_proj_qkv", "in_proj_z", "score",
)  # fmt: skip
KNOWN_MODULES = frozenset(_LLAMA_LIKE + _OTHER_MODULES)
_ADAPTER_WORDS = frozenset({"adapter", "adapters", "lora", "qlora", "peft", "dora"})
_LORA_KEYS = ("lora_r", "lora_alpha", "lora_dropout", "lora_target_modules", "lora_target_parameters",
              "lora_modules_to_save", "use_rslora", "use_dora")  # fmt: skip


def check_adapters(config: TrainerConfig) -> Iterator[Finding]:
    """Yield findings of all groups."""
    yield from _switches(config)
    yield from _targets(config)
    yield from _quantised(config)
    yield from _base(config, "model_name_or_path")
    if "teacher_model_name_or_path" in config.keys:
        yield from _base(config, "teacher_model_name_or_path")


def local_model(config: TrainerConfig, key: str = "model_name_or_path") -> Path | None:
    """Return the folder a model key names when it exists on this machine."""
    name = config.text(key)
    if not name:
        return None
    for root in (config.folder or Path(), Path()):
        folder = root / Path(name).expanduser()
        if folder.is_dir():
            return folder
    return None


def model_family(config: TrainerConfig, key: str = "model_name_or_path") -> str | None:
    """Return the model's family from its config.json here, else from its name, else None."""
    folder = local_model(config, key)
    if folder is not None and (folder / "config.json").is_file():
        kind = read_json(folder / "config.json").get("model_type")
        words = _plain(str(kind))
    else:
        words = _plain((config.text(key) or "").split("/")[-1])
    return next((family for family in _FAMILY_MODULES if family in words), None)


def _plain(text: str) -> str:
    return text.lower().replace("-", "").replace("_", "")


def read_json(path: Path, max_bytes: int = 1 << 20) -> dict[str, Any]:
    """Return a small JSON object, or an empty one when the file is not one."""
    try:
        if path.stat().st_size > max_bytes:
            return {}
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        return {}
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def _switches(config: TrainerConfig) -> Iterator[Finding]:
    given = [key for key in _LORA_KEYS if config.values.get(key) not in (None, False)]
    if given and not config.uses_lora:
        rule = "is ignored: without `use_peft: true` all weights are trained"
        yield finding(
            given[0],
            shown(config.values[given[0]]),
            rule,
            "config.conflict",
            "add `use_peft: true`, or drop the lora keys",
        )
    task = config.text("lora_task_type")
    if config.uses_lora and config.method == "reward" and task != "SEQ_CLS":
        rule = "must be SEQ_CLS for a reward model, else its score head is not trained"
        yield finding("lora_task_type", task, rule, "config.conflict", "write `lora_task_type: SEQ_CLS`")
    elif config.uses_lora and config.method != "reward" and task not in (None, "CAUSAL_LM"):
        yield finding(
            "lora_task_type", task, f"does not fit {config.method}", "config.conflict", "drop it (CAUSAL_LM)"
        )
    r, alpha = config.number("lora_r"), config.number("lora_alpha")
    if config.uses_lora and r and alpha and alpha / r > 64:
        yield finding(
            "lora_alpha",
            shown(alpha),
            f"scales the adapter by {alpha / r:g} at `lora_r` {r:g}",
            "config.bad_value",
            f"use about {2 * r:g}",
        )


def _targets(config: TrainerConfig) -> Iterator[Finding]:
    if not config.uses_lora:
        return
    if not config.given("lora_target_modules") and not config.given("lora_target_parameters"):
        rule = "is missing: PEFT then adapts q_proj and v_proj only, or fails for families without a default"
        yield finding(
            "lora_target_modules",
            None,
            rule,
            "config.lora_targets",
            "write `lora_target_modules: all-linear`",
        )
        return
    raw = config.value("lora_target_modules")
    if raw == "all-linear" or as_items(raw) == ("all-linear",):
        return
    if raw in ([], ""):
        rule = "is empty: nothing would be adapted"
        yield finding("lora_target_modules", raw, rule, "config.lora_targets", "write `all-linear`")
    if isinstance(raw, str) and _is_pattern(raw):
        yield from _pattern(raw)
        return
    allowed, family = _allowed_modules(config)
    for name in as_items(raw):
        word = name.split(".")[-1] if isinstance(name, str) else ""
        if word == "lm_head":
            rule = "adapts the head, whose plain weight the loss reads: it would not be trained"
            yield finding(
                "lora_target_modules",
                shown(raw),
                rule,
                "config.lora_targets",
                "take lm_head out; `all-linear` leaves it out",
            )
        elif word not in allowed:
            near = difflib.get_close_matches(word, sorted(allowed), n=1, cutoff=0.6)
            where = (
                f"a linear layer of {family} models" if family else "a linear layer of any known model family"
            )
            fix = "write `lora_target_modules: all-linear`" + (
                f", or did you mean `{near[0]}`?" if near else ""
            )
            yield finding("lora_target_modules", shown(name), f"is not {where}", "config.lora_targets", fix)


def _allowed_modules(config: TrainerConfig) -> tuple[frozenset[str], str | None]:
    family = model_family(config)
    if family is None:
        return KNOWN_MODULES, None
    return frozenset(_FAMILY_MODULES[family]) | {"lm_head", "embed_tokens"}, family


def _is_pattern(text: str) -> bool:
    return any(sign in text for sign in ".*+?()|[]\\^$,") or text not in KNOWN_MODULES


def _pattern(text: str) -> Iterator[Finding]:
    """PEFT reads one word as a regular expression over whole module names."""
    samples = [
        f"model.layers.0.{part}.{name}" for part in ("self_attn", "mlp", "attn") for name in KNOWN_MODULES
    ]
    try:
        matches = any(re.fullmatch(text, sample) for sample in samples) if len(text) <= 200 else True
    except re.error as error:
        yield finding(
            "lora_target_modules",
            text,
            f"is not a valid pattern: {error}",
            "config.lora_targets",
            "write a list of names, or `all-linear`",
        )
        return
    if not matches:
        rule = "is read as one pattern over whole module names and matches none"
        yield finding(
            "lora_target_modules",
            text,
            rule,
            "config.lora_targets",
            "write `all-linear`, or a list such as [q_proj, v_proj]",
        )


def _quantised(config: TrainerConfig) -> Iterator[Finding]:
    four, eight = config.flag("load_in_4bit"), config.flag("load_in_8bit")
    if four and eight:
        yield finding(
            "load_in_8bit",
            True,
            "cannot be on together with `load_in_4bit`",
            "config.conflict",
            "keep one of the two",
        )
    if (four or eight) and not config.uses_lora:
        key = "load_in_4bit" if four else "load_in_8bit"
        yield finding(
            key,
            True,
            "freezes the base: a quantised model trains only through LoRA",
            "config.conflict",
            "add `use_peft: true` and `lora_target_modules: all-linear`, or drop it",
        )
    if "quantization_config" in config.mapping("model_init_kwargs") and (four or eight):
        yield finding(
            "model_init_kwargs.quantization_config",
            None,
            "is set a second time by `load_in_4bit`/`load_in_8bit`",
            "config.conflict",
            "keep one of the two",
        )


def _base(config: TrainerConfig, key: str) -> Iterator[Finding]:
    name = config.text(key)
    if not name:
        if name == "":
            yield finding(key, "", "is empty", "config.bad_value", "name a Hub id or a folder")
        return
    folder = local_model(config, key)
    if folder is not None:
        is_adapter = (folder / "adapter_config.json").is_file() and not (folder / "config.json").is_file()
    else:
        words = re.split(r"[^a-z0-9]+", name.lower())
        is_adapter = bool(_ADAPTER_WORDS & set(words)) and not {"merged", "merge", "full", "fused"} & set(
            words
        )
    if is_adapter:
        rule = "is a LoRA adapter, not a model: the trainer fails with `Unrecognized model`"
        yield finding(
            key,
            name,
            rule,
            "chain.unmerged_adapter",
            "merge the adapter into its base first and name the merged folder",
        )
