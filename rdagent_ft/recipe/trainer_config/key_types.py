"""Every key of a trainer config: is it known, has it the right type, is the value one of the choices.

Follows the trainer's parser where it is stricter (text for numbers, enum members) and is stricter
itself where the parser lets a value through that fails later: choices that TRL enforces for command
line flags only, `no` that YAML reads as false, numbers with a fraction for counts.
"""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Iterator
from typing import Any, cast

from rdagent_ft.recipe.catalogue import Catalogue, TrainerKey
from rdagent_ft.recipe.documents import shown
from rdagent_ft.recipe.edits import Edit, Finding, finding
from rdagent_ft.recipe.renames import check_name, load_renames
from rdagent_ft.recipe.trainer_config.config import FALSE_TEXT, TRUE_TEXT, TrainerConfig, as_number

NOT_TRAINER_KEYS = frozenset({"env", "accelerate_config"})
# Lists that the trainer also takes as one word, because it unwraps lists of one.
_WORD_OR_LIST = frozenset({"lora_target_modules", "loss_type"})
# Choices that the trainer checks only while it trains, or not at all. Source: TRL 1.16 trainers.
_DPO_LOSSES = (
    "sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot",
    "aot_unpaired", "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm",
)  # fmt: skip
_GRPO_LOSSES = ("grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo")
_LATE_CHOICES: dict[str, tuple[str, ...]] = {
    "f_divergence_type": ("reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"),
    "vllm_mode": ("colocate", "server"),
    "vllm_model_impl": ("vllm", "transformers"),
    "importance_sampling_level": ("token", "sequence"),
    "multi_objective_aggregation": ("sum_then_normalize", "normalize_then_sum"),
    "vllm_importance_sampling_mode": ("token_truncate", "token_mask", "sequence_truncate", "sequence_mask"),
    "lora_task_type": (
        "CAUSAL_LM", "SEQ_CLS", "SEQ_2_SEQ_LM", "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION",
    ),
    "attn_implementation": (
        "eager", "sdpa", "flex_attention", "flash_attention_2", "flash_attention_3", "flash_attention_4",
    ),
}  # fmt: skip


def late_choices(config: TrainerConfig, key: str) -> tuple[str, ...] | None:
    """Return the choices that only the running trainer would check; None when there are none."""
    if key == "loss_type":
        return {"dpo": _DPO_LOSSES, "grpo": _GRPO_LOSSES}.get(config.method)
    return _LATE_CHOICES.get(key)


def check_keys(config: TrainerConfig, catalogue: Catalogue) -> Iterator[Finding]:
    """Yield findings about names, types and choices of all top-level keys."""
    for key in config.values:
        renamed = check_name(key, config.values, config.keys)
        if renamed is not None:
            yield renamed
        elif key in config.keys:
            yield from _check_value(config, key, config.keys[key], config.values[key])
        elif key not in NOT_TRAINER_KEYS and key not in catalogue.launch_keys:
            yield _unknown(config, catalogue, key)


def _unknown(config: TrainerConfig, catalogue: Catalogue, key: str) -> Finding:
    value = shown(config.values[key])
    elsewhere = catalogue.methods_with(key)
    if elsewhere:
        rule = f"is a key of {', '.join(elsewhere)}, not of {config.method}"
        return finding(key, value, rule, "config.unknown_key", f"drop it, or train with {elsewhere[0]}")
    near = difflib.get_close_matches(key.lower(), list(config.keys), n=1, cutoff=0.6)
    fix = f"did you mean `{near[0]}`? Else drop it" if near else "drop it"
    rule = f"is not a key of TRL {catalogue.version} {config.method}"
    return finding(key, value, rule, "config.unknown_key", fix)


def _check_value(config: TrainerConfig, key: str, known: TrainerKey, value: Any) -> Iterator[Finding]:
    if value is None:
        if not known.nullable and known.default is not None:
            yield _bad(key, None, "is empty", f"write a value or drop the line (default {known.default})")
        return
    choices = known.choices or late_choices(config, key)
    if choices and not (key == "attn_implementation" and "/" in str(value)):
        yield from _check_choice(config, key, value, choices)
        return
    wrong = _type_problem(key, known, value)
    if wrong is not None:
        yield wrong


def _check_choice(config: TrainerConfig, key: str, value: Any, choices: tuple[str, ...]) -> Iterator[Finding]:
    items = cast("list[Any]", value) if isinstance(value, list) else [value]
    if isinstance(value, list) and not any(kind.startswith("list") for kind in config.keys[key].types):
        yield _bad(key, value, "takes one word, not a list", f"write one of {', '.join(choices[:8])}")
        return
    if not items:
        yield _bad(key, value, "is an empty list", f"name at least one of {', '.join(choices[:8])}")
    for item in items:
        if isinstance(item, str) and item in choices:
            newer = load_renames().values.get(key, {}).get(item)
            if newer in choices and item == value:
                edit = Edit(action="set", key=key, value=newer)
                rule = f"is the deprecated name of `{newer}`"
                yield finding(key, item, rule, "config.renamed_key", f"write `{key}: {newer}`", edit)
            continue
        yield _not_a_choice(key, value, item, choices)


def _not_a_choice(key: str, value: Any, item: Any, choices: tuple[str, ...]) -> Finding:
    if item is False and "no" in choices:
        edit = Edit(action="set", key=key, value="no")
        rule = "is the word `no` that YAML reads as false, which the trainer refuses"
        return _bad(key, value, rule, f'write `{key}: "no"` with quotes', edit)
    same = load_renames().values.get(key, {}).get(str(item))
    if same in choices and not isinstance(value, list):
        edit = Edit(action="set", key=key, value=same)
        return _bad(key, value, f"is not a value of `{key}`", f"write `{key}: {same}`", edit)
    near = difflib.get_close_matches(str(item), choices, n=1, cutoff=0.5)
    listed = ", ".join(choices) if len(choices) <= 12 else ", ".join(choices[:10]) + ", …"
    fix = f"did you mean `{near[0]}`? Allowed: {listed}" if near else f"use one of: {listed}"
    return _bad(key, item, f"is not a value of `{key}`", fix)


def _type_problem(key: str, known: TrainerKey, value: Any) -> Finding | None:
    """Return a finding when no type of the key takes `value`."""
    if any(_takes(kind, value) for kind in known.types):
        return None
    kinds = known.types
    if "bool" in kinds and value in (0, 1):
        edit = Edit(action="set", key=key, value=bool(value))
        return _bad(
            key, value, "is a switch, not a number", f"write `{key}: {str(bool(value)).lower()}`", edit
        )
    if kinds == ("int",) and isinstance(value, float) and value.is_integer():
        edit = Edit(action="set", key=key, value=int(value))
        return _bad(key, value, "must be a whole number", f"write `{key}: {int(value)}`", edit)
    if any(kind.startswith("list") for kind in kinds):
        return _list_problem(key, kinds, value)
    if kinds == ("str",) and isinstance(value, (int, float)) and not isinstance(value, bool):
        edit = Edit(action="set", key=key, value=str(value))
        return _bad(key, value, "must be text", f'write `{key}: "{value}"`', edit)
    want = {"bool": "true or false", "int": "a whole number", "float": "a finite number", "str": "text"}
    named = " or ".join(want.get(kind, "a mapping" if kind == "dict" else kind) for kind in kinds)
    return _bad(key, value, f"must be {named}", f"write {named}, or drop the line (default {known.default})")


def _list_problem(key: str, kinds: tuple[str, ...], value: Any) -> Finding | None:
    if key in _WORD_OR_LIST and isinstance(value, str):
        return None
    if isinstance(value, str) and "list[str]" in kinds:
        edit = Edit(action="set", key=key, value=[value])
        return _bad(
            key,
            value,
            "must be a list; one word would be read letter by letter",
            f"write `{key}: [{value}]`",
            edit,
        )
    if isinstance(value, list) and "list[float]" in kinds:
        items = cast("list[Any]", value)
        numbers = [as_number(item) for item in items]
        if None not in numbers:
            edit = Edit(action="set", key=key, value=numbers)
            return _bad(
                key, value, "holds text that YAML did not read as numbers", f"write `{key}: {numbers}`", edit
            )
    inner = "numbers" if "list[float]" in kinds else "words" if "list[str]" in kinds else "entries"
    return _bad(key, value, f"must be a list of {inner}", f"write `{key}: [...]`")


def _takes(kind: str, value: Any) -> bool:
    """Whether the trainer's parser turns `value` into `kind` and the trainer can use it."""
    if kind == "bool":
        return isinstance(value, bool) or (isinstance(value, str) and value.lower() in TRUE_TEXT | FALSE_TEXT)
    if kind == "int":
        whole_text = isinstance(value, str) and value.strip().lstrip("+-").isdigit()
        return whole_text or (isinstance(value, int) and not isinstance(value, bool))
    if kind == "float":
        return as_number(value) is not None
    if kind == "str":
        return isinstance(value, str)
    if kind == "dict":
        return isinstance(value, dict) or (isinstance(value, str) and _is_json_object(value))
    if not isinstance(value, list):
        return False
    element = {"list[str]": "str", "list[float]": "float"}.get(kind)
    items = cast("list[Any]", value)
    if element == "float":  # inside a list the parser converts nothing
        return all(_is_number(item) for item in items)
    return all(_takes(element, item) for item in items) if element else True


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_json_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (json.JSONDecodeError, RecursionError):
        return False


def _bad(key: str, value: Any, rule: str, fix: str, *edits: Edit) -> Finding:
    return finding(key, shown(value), rule, "config.bad_value", fix, *edits)
