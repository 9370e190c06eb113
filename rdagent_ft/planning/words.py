"""Words a recipe diff as a hypothesis, for planners that have no words of their own."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

from rdagent_ft.planning.history import value_at
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.values import canonical_json

MAX_NAMED = 3
NAMES = {"r": "LoRA rank", "alpha": "LoRA alpha", "dropout": "LoRA dropout"}
_STAGES = re.compile(r"stages(\.\d+)?")
COUNTED = frozenset({"epochs", "max_steps", "max_items"})


def hypothesis_text(parent: Recipe, diff: Mapping[str, Any], *, scorer: str, cites: tuple[str, ...]) -> str:
    """Return the diff as one sentence, e.g. "A higher learning rate (2e-4 -> 6e-4) improves val exact match".

    At most three changes are named; the ids of the priors behind them follow.
    """
    several = len(parent.stages) > 1
    phrases = [
        phrase(path, value_at(parent, path), value) + (_of_stage(parent, path) if several else "")
        for path, value in diff.items()
    ]
    n_more = len(phrases) - MAX_NAMED
    if n_more > 1:
        phrases = [*phrases[:MAX_NAMED], f"{n_more} more changes"]
    subject = phrases[0] if len(phrases) == 1 else ", ".join(phrases[:-1]) + " and " + phrases[-1]
    verb = "improves" if len(phrases) == 1 else "together improve"
    score = f"val {scorer.replace('_', ' ')}".strip()
    basis = f"; prior {', '.join(cites)}" if cites else ""
    return f"{subject[0].upper()}{subject[1:]} {verb} {score}{basis}"


def phrase(path: str, old: Any, new: Any) -> str:
    """Return one change in words, without its effect."""
    key = path.rsplit(".", 1)[-1]
    data = _data_phrase(key, new)
    if data is not None:
        return data
    if _STAGES.fullmatch(path):
        return f"{stages_text(new)} instead of {stages_text(old)}"
    name = NAMES.get(key, key.replace("_", " "))
    if isinstance(new, bool):
        return f"switching {name} {'on' if new else 'off'}"
    if _is_number(old) and _is_number(new):
        up, down = ("more", "fewer") if key in COUNTED else ("a higher", "a lower")
        return f"{up if new > old else down} {name} ({_number(old)} -> {_number(new)})"
    return f"{name} {_shown(new)} instead of {_shown(old)}"


def stages_text(value: Any) -> str:
    """Return a stage or a list of stages as its kinds: `sft -> merge -> dpo`."""
    stages = cast("list[Any]", value) if isinstance(value, list) else [value]
    kinds = [
        cast("dict[str, Any]", stage).get("kind") if isinstance(stage, dict) else stage for stage in stages
    ]
    return " -> ".join(str(kind) for kind in kinds)


def _of_stage(parent: Recipe, path: str) -> str:
    """Return which stage a path is in, for recipes with several; empty for other paths."""
    place = re.match(r"stages\.(\d+)\.", path)
    if place is None or int(place[1]) >= len(parent.stages):
        return ""
    return f" in stage {int(place[1]) + 1} ({parent.stages[int(place[1])].kind})"


def _data_phrase(key: str, new: Any) -> str | None:
    if key == "dedupe":
        return "keeping duplicates" if new == "none" else f"dropping {new} duplicates"
    if key == "exclude_sources":
        names = ", ".join(str(name) for name in cast("list[Any]", new))
        return f"leaving out source {names}" if names else "using all sources"
    if key == "script":
        return "using the rows as they are" if new is None else "rewriting the rows with a data script"
    if key == "max_row_tokens":
        return "keeping long rows" if new is None else f"dropping rows over {new} tokens"
    return None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _number(value: float) -> str:
    """Return a number as people write hyper-parameters: 2e-4, 0.05, 16."""
    if 0 < abs(value) < 0.01:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    return f"{value:g}"


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else "none" if value is None else canonical_json(value)
