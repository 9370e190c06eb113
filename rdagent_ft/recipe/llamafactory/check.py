"""Judge a LLaMA-Factory config that a person or an LLM wrote: names, types, choices, cross-field rules.

Cheap: needs no trainer, no model, no data (V1). Rules of the trainer come from its parser
(`llamafactory/hparams`, version 0.9.5); it stops at the first problem, this lists all. Mistakes that
it lets through although the training would be wrong are found here as well.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from rdagent_ft.errors import Problem
from rdagent_ft.recipe.catalogue import TrainerKey
from rdagent_ft.recipe.documents import shown
from rdagent_ft.recipe.edits import Edit, Finding, apply_to_values, finding
from rdagent_ft.recipe.llamafactory.cross_fields import check_cross_fields
from rdagent_ft.recipe.llamafactory.keys import STAGES, LlamaFactoryKeys, LlamaFactoryStage, load_keys
from rdagent_ft.recipe.llamafactory.renames import RENAMED
from rdagent_ft.recipe.protected import check_protected

# The trainer splits these texts at commas and takes lists as well.
_COMMA_KEYS = frozenset(
    {
        "dataset", "eval_dataset", "lora_target", "freeze_trainable_modules", "freeze_extra_modules",
        "additional_target", "galore_target", "apollo_target", "oft_target",
    }
)  # fmt: skip


def guess_stage(values: Mapping[str, Any]) -> LlamaFactoryStage:
    """Return what a config does: its `stage`, `export` when it names `export_dir`, else `sft`."""
    if values.get("export_dir") is not None:
        return "export"
    for stage in STAGES:
        if values.get("stage") == stage:
            return stage
    return "sft"


def check_llamafactory_config(
    values: Mapping[str, Any], stage: LlamaFactoryStage | None = None, folder: Path | None = None
) -> list[Problem]:
    """Return every problem of a config; `find_problems` returns the edits that mend them as well."""
    return [item.problem for item in find_problems(values, stage, folder)]


def find_problems(
    values: Mapping[str, Any], stage: LlamaFactoryStage | None = None, folder: Path | None = None
) -> list[Finding]:
    """Return every finding, in the order of the file's keys.

    Args:
        values: the file's top-level keys.
        stage: what the config is to do; None means `guess_stage`.
        folder: folder of the file; a local model is looked up there.
    """
    catalogue = load_keys()
    wanted = stage or guess_stage(values)
    keys = catalogue.of_stage(wanted)
    found: list[Finding] = []
    for key, value in values.items():
        if key in keys:
            found += _check_value(catalogue, key, keys[key], value)
        else:
            found.append(_unknown(catalogue, keys, key, values, wanted))
    wrong = {item.problem.key for item in found if item.problem.problem_class == "config.bad_value"}
    mended = apply_to_values(dict(values), tuple(edit for item in found for edit in item.edits))
    later = [*check_protected(values), *check_cross_fields(mended, wanted, folder)]
    found += [item for item in later if item.problem.key not in wrong]
    order = {key: place for place, key in enumerate(values)}
    return sorted(found, key=lambda item: order.get(item.problem.key, len(order)))


def _unknown(
    catalogue: LlamaFactoryKeys,
    keys: Mapping[str, TrainerKey],
    key: str,
    values: Mapping[str, Any],
    stage: LlamaFactoryStage,
) -> Finding:
    value = shown(values[key])
    renamed = RENAMED.get(key)
    if renamed is not None and renamed.new in keys:
        fix = f"write `{renamed.new}`" + (f" ({renamed.why})" if renamed.why else "")
        taken = renamed.new in values
        edit = (
            ()
            if taken or not renamed.neutral
            else (Edit(action="rename", key=key, to=renamed.new, value=values[key]),)
        )
        rule = f"is called `{renamed.new}` by LLaMA-Factory" + (", which is given too" if taken else "")
        return finding(key, value, rule, "config.renamed_key", fix if not taken else "drop it", *edit)
    if key in catalogue.keys:
        rule = f"is a key of a training, not of an {stage}"
        return finding(key, value, rule, "config.unknown_key", "drop it")
    near = difflib.get_close_matches(key.lower(), list(keys), n=1, cutoff=0.6)
    fix = f"did you mean `{near[0]}`? Else drop it" if near else "drop it"
    rule = f"is not a key of LLaMA-Factory {catalogue.version}"
    return finding(key, value, rule, "config.unknown_key", fix)


def _check_value(catalogue: LlamaFactoryKeys, key: str, known: TrainerKey, value: Any) -> Iterator[Finding]:
    if value is None:
        if not known.nullable:
            yield _bad(key, None, "is empty", f"write a value or drop the line (default {known.default})")
        return
    choices = catalogue.templates if key == "template" else known.choices
    if choices:
        if value not in choices:
            yield _not_a_choice(key, value, choices)
        return
    if key in _COMMA_KEYS and isinstance(value, list):
        items = cast("list[Any]", value)
        if not items or not all(isinstance(item, str) for item in items):
            yield _bad(key, value, "must be a list of words", "write the names with commas")
        return
    if not any(_takes(kind, value) for kind in known.types):
        yield _wrong_type(key, known, value)


def _not_a_choice(key: str, value: Any, choices: tuple[str, ...]) -> Finding:
    if value is False and "no" in choices:
        edit = Edit(action="set", key=key, value="no")
        rule = "is the word `no` that YAML reads as false, which the trainer refuses"
        return _bad(key, value, rule, f'write `{key}: "no"` with quotes', edit)
    near = difflib.get_close_matches(str(value), choices, n=1, cutoff=0.5)
    listed = ", ".join(choices) if len(choices) <= 12 else ", ".join(choices[:10]) + ", …"
    fix = f"did you mean `{near[0]}`? Allowed: {listed}" if near else f"use one of: {listed}"
    return _bad(key, value, f"is not a value of `{key}`", fix)


def _wrong_type(key: str, known: TrainerKey, value: Any) -> Finding:
    want = {"bool": "true or false", "int": "a whole number", "float": "a finite number", "str": "text"}
    named = " or ".join(want.get(kind, "a mapping" if kind == "dict" else "a list") for kind in known.types)
    edits: tuple[Edit, ...] = ()
    digits = isinstance(value, str) and value.strip().isdigit()
    if known.types == ("int",) and (digits or (isinstance(value, float) and value.is_integer())):
        edits = (Edit(action="set", key=key, value=int(value)),)
    elif known.types == ("bool",) and str(value).lower() in ("true", "false"):
        edits = (Edit(action="set", key=key, value=str(value).lower() == "true"),)
    fix = f"write {named}, or drop the line (default {known.default})"
    return _bad(key, value, f"must be {named}", fix, *edits)


def _takes(kind: str, value: Any) -> bool:
    """Whether the trainer can use `value` as `kind`: its parser converts nothing."""
    if kind == "bool":
        return isinstance(value, bool)
    if kind == "int":
        return isinstance(value, int) and not isinstance(value, bool)
    if kind == "float":
        return _is_number(value)
    if kind == "str":
        return isinstance(value, str)
    if kind == "dict":
        return isinstance(value, dict)
    return isinstance(value, list)


def _is_number(value: Any) -> bool:
    """A finite number; `1e-4`, which YAML 1.1 calls text, is one for the trainer's YAML reader."""
    if isinstance(value, str):
        try:
            return math.isfinite(float(value))
        except ValueError:
            return False
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _bad(key: str, value: Any, rule: str, fix: str, *edits: Edit) -> Finding:
    return finding(key, shown(value), rule, "config.bad_value", fix, *edits)
