"""Which method a trainer config is for, when the person did not say."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rdagent_ft.recipe.catalogue import METHODS, Catalogue, Method
from rdagent_ft.recipe.renames import load_renames

_WORDS: dict[str, Method] = {
    "sft": "sft",
    "instruct": "sft",
    "dpo": "dpo",
    "preference": "dpo",
    "orpo": "dpo",
    "simpo": "dpo",
    "kto": "kto",
    "grpo": "grpo",
    "rlvr": "grpo",
    "dapo": "grpo",
    "rloo": "rloo",
    "rm": "reward",
    "reward": "reward",
    "distill": "distillation",
    "distillation": "distillation",
    "gkd": "distillation",
}
# Keys that decide by themselves, and former names that only one method ever had.
_DECISIVE: dict[str, Method] = {
    "num_generations": "grpo",
    "reward_funcs": "grpo",
    "reward_functions": "grpo",
    "group_size": "grpo",
    "rpo_alpha": "dpo",
    "pref_beta": "dpo",
    "dpo_beta": "dpo",
    "loss_weights": "dpo",
    "reference_free": "dpo",
    "desirable_weight": "kto",
    "undesirable_weight": "kto",
    "center_rewards_coefficient": "reward",
    "teacher_model_name_or_path": "distillation",
    "teacher_model": "distillation",
    "packing": "sft",
    "packing_strategy": "sft",
    "completion_only_loss": "sft",
    "assistant_only_loss": "sft",
    "dataset_text_field": "sft",
}
_NAMING_KEYS = ("output_dir", "run_name", "hub_model_id", "dataset_name")
_FILE_NAME_VOTES, _KEY_VOTES, _NAMING_VOTES = 1.5, 1.0, 0.9


def guess_method(values: Mapping[str, Any], name: str, catalogue: Catalogue) -> tuple[Method, str]:
    """Return the most likely method and why.

    A `stage:` line decides. Else keys that one method has, words in the file name and words in
    output names vote; equal votes go to the method that knows most of the keys; sft is last resort.
    """
    stage = values.get("stage")
    if isinstance(stage, str) and stage.lower() in _WORDS:
        return _WORDS[stage.lower()], f"`stage: {stage}`"
    votes: dict[Method, float] = dict.fromkeys(METHODS, 0.0)
    reasons: dict[Method, list[str]] = {method: [] for method in METHODS}

    def vote(method: Method, weight: float, reason: str) -> None:
        votes[method] += weight
        reasons[method].append(reason)

    for key, method in _DECISIVE.items():
        if key in values:
            vote(method, _KEY_VOTES, f"`{key}`")
    for method in _from_words(name):
        vote(method, _FILE_NAME_VOTES, f"the file name {name!r}")
    for key in _NAMING_KEYS:
        for method in _from_words(str(values.get(key, "")))[-1:]:
            vote(method, _NAMING_VOTES, f"`{key}`")
    known = _known_keys(values, catalogue)
    best = max(METHODS, key=lambda method: (votes[method], known[method]))
    why = ", ".join(reasons[best][:3]) or (
        "its keys" if known[best] > known["sft"] else "nothing else telling"
    )
    return best, why


def _known_keys(values: Mapping[str, Any], catalogue: Catalogue) -> dict[Method, int]:
    """Return how many of the config's keys, under today's names, each method knows."""
    renamed = load_renames().renamed
    names = [renamed[key].new if key in renamed else key for key in values]
    keys = {method: catalogue.common.keys() | catalogue.methods[method].keys() for method in METHODS}
    return {method: sum(name in keys[method] for name in names) for method in METHODS}


def _from_words(text: str) -> list[Method]:
    """Return the methods that a text names, in order, each once."""
    words = re.split(r"[^a-z]+", text.lower())
    return list(dict.fromkeys(_WORDS[word] for word in words if word in _WORDS))
