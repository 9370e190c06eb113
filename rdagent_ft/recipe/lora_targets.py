"""Which layers a LoRA adapter names: is each a linear layer, and would training reach it.

Without the model the names are compared with those of all known families; with `linear_names` they are
compared with the model's own.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from rdagent_ft.errors import Problem
from rdagent_ft.recipe.rule_facts import StageCheck
from rdagent_ft.recipe.stages import LoraAdapter
from rdagent_ft.recipe.trainer_config.adapters import KNOWN_MODULES

_FIELD = "adapter.target_modules"
_KIND = "config.lora_targets"


def target_problems(check: StageCheck, adapter: LoraAdapter) -> Iterator[Problem]:
    """Yield what is wrong with the adapter's target modules (`config.lora_targets`)."""
    if adapter.target_modules == "all-linear":
        return
    targets = adapter.target_modules
    if not targets:
        yield check.problem(_FIELD, [], "is empty: nothing would be trained", "write 'all-linear'", _KIND)
    if "all-linear" in targets and len(targets) > 1:
        rule = "mixes all-linear with names"
        yield check.problem(_FIELD, list(targets), rule, "write 'all-linear' without the list", _KIND)
        return
    if len(set(targets)) < len(targets):
        yield check.problem(_FIELD, list(targets), "names a module twice", "name each module once", _KIND)
    for name in dict.fromkeys(targets):
        wrong = _wrong_name(name, check.facts.linear_names)
        if wrong is not None:
            rule, fix = wrong
            yield check.problem(_FIELD, name, rule, fix, _KIND)


def _wrong_name(name: str, linear_names: tuple[str, ...]) -> tuple[str, str] | None:
    """Return (rule, fix) for a name that is no layer to adapt, else None."""
    word = name.split(".")[-1]
    if word == "lm_head":
        rule = "is the head, whose plain weight the loss reads: it would not be trained"
        return rule, "take lm_head out, or write 'all-linear', which leaves it out"
    if name == "all-linear":
        return "stands in a list, where it is read as a module's name", "write 'all-linear' without the list"
    if any(sign in name for sign in ",; \t"):
        return "is several names in one text", "write a list with one name an item, or 'all-linear'"
    known = frozenset(linear_names) or KNOWN_MODULES
    if word in known:
        return None
    near = difflib.get_close_matches(word, sorted(known), n=1, cutoff=0.6)
    where = "of this model" if linear_names else "of any known model family"
    hint = f", or did you mean `{near[0]}`?" if near else ""
    return f"is no linear layer {where}", f"write 'all-linear'{hint}"
