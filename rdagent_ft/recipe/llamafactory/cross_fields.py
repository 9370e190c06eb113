"""Rules over several keys of a LLaMA-Factory config, and ranges that its parser leaves open.

Source of the refusals: `llamafactory/hparams/parser.py`, `data_args.py`, `finetuning_args.py` of version
0.9.5. Rules that only this program has say in their text what would go wrong.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, cast

from rdagent_ft.recipe.documents import shown
from rdagent_ft.recipe.edits import Edit, Finding, finding
from rdagent_ft.recipe.llamafactory.keys import LlamaFactoryStage
from rdagent_ft.recipe.trainer_config.adapters import KNOWN_MODULES


class _Config(NamedTuple):
    values: Mapping[str, Any]
    stage: LlamaFactoryStage
    folder: Path | None

    def get(self, key: str, default: Any = None) -> Any:
        value = self.values.get(key)
        return default if value is None else value

    @property
    def tuning(self) -> str:
        return str(self.get("finetuning_type", "lora"))


_RANGES: tuple[tuple[str, float, float, str], ...] = (
    ("learning_rate", 1e-9, 1.0, "above 0 and at most 1"),
    ("lora_rank", 1, 1024, "from 1 to 1024"),
    ("lora_dropout", 0.0, 0.99, "from 0 to below 1"),
    ("cutoff_len", 8, 1_048_576, "at least 8"),
    ("num_train_epochs", 1e-6, 1000, "above 0"),
    ("per_device_train_batch_size", 1, 65_536, "at least 1"),
    ("gradient_accumulation_steps", 1, 65_536, "at least 1"),
    ("warmup_ratio", 0.0, 0.999, "from 0 to below 1"),
    ("warmup_steps", 0.0, 1e9, "at least 0"),
    ("weight_decay", 0.0, 1.0, "from 0 to 1"),
    ("pref_beta", 0.0, 100.0, "from 0 to 100"),
    ("pref_ftx", 0.0, 1000.0, "at least 0"),
    ("dpo_label_smoothing", 0.0, 0.4999, "from 0 to below 0.5"),
    ("neftune_noise_alpha", 1e-9, 100.0, "above 0"),
)


def check_cross_fields(
    values: Mapping[str, Any], stage: LlamaFactoryStage, folder: Path | None
) -> Iterator[Finding]:
    """Yield the findings of all rules. `values` has today's names."""
    config = _Config(values, stage, folder)
    for rule in _RULES:
        yield from rule(config)


def _required(config: _Config) -> Iterator[Finding]:
    needed = {"model_name_or_path": "name a model folder or a Hub id"}
    if config.stage == "export":
        needed["export_dir"] = "name the folder that the merged model goes to"
    else:
        needed["dataset"] = "name an entry of dataset_info.json"
        needed["output_dir"] = "name the folder for weights and checkpoints"
    for key, fix in needed.items():
        if config.values.get(key) in (None, "", []):
            yield finding(key, None, "is missing", "config.missing_key", fix)
    if config.stage != "export" and config.get("do_train") is not True:
        rule = "is not true: nothing would be trained"
        edit = Edit(action="set", key="do_train", value=True)
        yield finding(
            "do_train", shown(config.get("do_train")), rule, "config.conflict", "write `do_train: true`", edit
        )
    named = config.get("stage", config.stage)
    if named != config.stage and config.stage != "export":
        yield finding(
            "stage",
            shown(named),
            f"is not {config.stage}",
            "config.conflict",
            f"write `stage: {config.stage}`",
        )


def _ranges(config: _Config) -> Iterator[Finding]:
    for key, low, high, words in _RANGES:
        value = config.get(key)
        try:
            number = (
                float(value) if isinstance(value, (int, float, str)) and not isinstance(value, bool) else None
            )
        except ValueError:
            number = None
        if number is not None and not low <= number <= high:
            yield finding(
                key, shown(value), f"must be {words}", "config.bad_value", f"write a number {words}"
            )


def _length(config: _Config) -> Iterator[Finding]:
    if config.stage != "export" and "max_length" in config.values:
        rule = "limits generation only; training cuts rows at `cutoff_len`"
        free = "cutoff_len" not in config.values
        edits = (Edit(action="rename", key="max_length", to="cutoff_len", value=config.values["max_length"]),)
        fix = "write `cutoff_len`" if free else "drop it"
        yield finding(
            "max_length",
            shown(config.values["max_length"]),
            rule,
            "config.renamed_key",
            fix,
            *(edits if free else ()),
        )


def _adapter(config: _Config) -> Iterator[Finding]:
    lora_only = (
        "use_rslora",
        "use_dora",
        "loraplus_lr_ratio",
        "pissa_init",
        "lora_rank",
        "lora_alpha",
        "lora_target",
    )
    given = [key for key in lora_only if config.get(key) not in (None, False)]
    if config.tuning != "lora" and given:
        rule = f"does not go with `finetuning_type: {config.tuning}`"
        fix = "write `finetuning_type: lora`, or drop the lora keys"
        yield finding(given[0], shown(config.values[given[0]]), rule, "config.conflict", fix)
    if config.tuning != "lora" and config.get("adapter_name_or_path"):
        rule = f"is valid for LoRA only, not for `finetuning_type: {config.tuning}`"
        value = shown(config.values["adapter_name_or_path"])
        yield finding("adapter_name_or_path", value, rule, "config.conflict", "merge the adapter first")
    bits = config.get("quantization_bit")
    if bits is not None and config.tuning not in ("lora", "oft"):
        rule = "freezes the base: a quantised model trains only through LoRA or OFT"
        yield finding(
            "quantization_bit", shown(bits), rule, "config.conflict", "write `finetuning_type: lora`"
        )
    if bits is not None and config.stage == "export" and config.get("adapter_name_or_path"):
        rule = "would merge into a quantised model, which rounds the adapter away"
        yield finding("quantization_bit", shown(bits), rule, "chain.merge_quantised", "drop it")
    yield from _targets(config)


def _targets(config: _Config) -> Iterator[Finding]:
    raw = config.get("lora_target", "all")
    names = cast("list[Any]", raw) if isinstance(raw, list) else str(raw).split(",")
    for name in (str(entry).strip() for entry in names):
        if name == "all-linear":
            edit = Edit(action="set", key="lora_target", value="all")
            rule = "is PEFT's word; the trainer would look for a layer of that name"
            yield finding(
                "lora_target", shown(raw), rule, "config.lora_targets", "write `lora_target: all`", edit
            )
        elif name == "lm_head":
            yield finding(
                "lora_target", shown(raw), "adapts the head", "config.lora_targets", "take lm_head out"
            )
        elif name != "all" and name.split(".")[-1] not in KNOWN_MODULES:
            near = difflib.get_close_matches(name, sorted(KNOWN_MODULES), n=1, cutoff=0.6)
            fix = "write `lora_target: all`" + (f", or did you mean `{near[0]}`?" if near else "")
            rule = "is not a linear layer of any known model family"
            yield finding("lora_target", name, rule, "config.lora_targets", fix)


def _base(config: _Config) -> Iterator[Finding]:
    name = config.get("model_name_or_path")
    if not isinstance(name, str) or not name:
        return
    for root in (config.folder or Path(), Path()):
        path = root / Path(name).expanduser()
        if (path / "adapter_config.json").is_file() and not (path / "config.json").is_file():
            rule = "is a LoRA adapter, not a model"
            fix = "name the base model here and the adapter in `adapter_name_or_path`"
            yield finding("model_name_or_path", name, rule, "chain.unmerged_adapter", fix)
            return


def _data(config: _Config) -> Iterator[Finding]:
    if config.stage == "export":
        return
    values = config.values
    if config.stage != "sft":
        for key in ("train_on_prompt", "mask_history", "neat_packing", "predict_with_generate"):
            if values.get(key) is True:
                yield finding(
                    key, True, f"goes with sft only, not with {config.stage}", "config.conflict", "drop it"
                )
    if values.get("train_on_prompt") is True and values.get("mask_history") is True:
        yield finding(
            "train_on_prompt", True, "contradicts `mask_history`", "config.conflict", "keep one of the two"
        )
    if values.get("packing") is True and values.get("neat_packing") is not True and config.stage == "sft":
        rule = "lets packed rows see each other without `neat_packing`"
        edit = Edit(action="set", key="neat_packing", value=True)
        yield finding("packing", True, rule, "config.packing", "add `neat_packing: true`", edit)
    if values.get("streaming") is True and config.get("max_steps", -1) == -1:
        yield finding(
            "streaming", True, "needs `max_steps`", "config.conflict", "add `max_steps`, or drop streaming"
        )
    val_size = config.get("val_size", 0.0)
    if config.get("eval_dataset") and val_size:
        rule = "cannot stand together with `eval_dataset`"
        yield finding("val_size", shown(val_size), rule, "config.conflict", "keep one of the two")
    evaluates = config.get("do_eval") is True or config.get("eval_strategy", "no") != "no"
    if evaluates and not config.get("eval_dataset") and not val_size:
        key = "eval_strategy" if "eval_strategy" in values else "do_eval"
        rule = "needs rows to evaluate on"
        yield finding(
            key, shown(values.get(key)), rule, "config.conflict", "add `eval_dataset` or `val_size`"
        )


def _preference(config: _Config) -> Iterator[Finding]:
    loss, smoothing = config.get("pref_loss", "sigmoid"), config.get("dpo_label_smoothing", 0)
    if config.stage == "dpo" and loss != "sigmoid" and smoothing:
        rule = f"is known for the sigmoid loss only, not for {loss}"
        yield finding("dpo_label_smoothing", shown(smoothing), rule, "config.conflict", "drop it")
    if config.stage in ("sft", "pt", "export"):
        for key in ("pref_beta", "pref_loss", "pref_ftx", "kto_chosen_weight", "kto_rejected_weight"):
            if key in config.values:
                value = shown(config.values[key])
                yield finding(key, value, f"is not read by {config.stage}", "config.conflict", "drop it")
    if config.stage == "ppo" and not config.get("reward_model"):
        yield finding(
            "reward_model", None, "is missing: ppo needs one", "config.missing_key", "name a reward model"
        )


def _publishing(config: _Config) -> Iterator[Finding]:
    for key in ("export_hub_model_id", "hf_hub_token", "ms_hub_token", "om_hub_token"):
        if config.get(key):
            edit = Edit(action="drop", key=key)
            rule = "sends things to a hub, which belongs to the program"
            yield finding(key, "(not shown)", rule, "config.protected_key", "drop it", edit)


_RULES: tuple[Callable[[_Config], Iterator[Finding]], ...] = (
    _required,
    _ranges,
    _length,
    _adapter,
    _base,
    _data,
    _preference,
    _publishing,
)
