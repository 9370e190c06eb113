"""Which sequences of stages make sense, judged on the raw file before the schema is.

So a person who writes a pipeline learns at once both that its order is wrong and which stages this
version trains. Kinds: `sft`, `dpo`, `kto`, `reward`, `grpo`, `distill`, `merge`.
"""

from __future__ import annotations

from typing import Any, cast

from rdagent_ft.errors import Problem

STAGE_KINDS = ("sft", "dpo", "kto", "reward", "grpo", "distill", "merge")
TRAINED_HERE = ("sft",)
_PREFERENCE = ("dpo", "kto")


def check_stage_order(stages: Any) -> list[Problem]:
    """Return problems of the order and of kinds that are known but not trained by this version.

    Anything that is no list of mappings with a `kind` is left to the schema.
    """
    if not isinstance(stages, list):
        return []
    items = cast("list[Any]", stages)
    entries = [cast("dict[str, Any]", item) for item in items if isinstance(item, dict)]
    kinds = [entry.get("kind") for entry in entries]
    if len(entries) != len(items) or not all(kind in STAGE_KINDS for kind in kinds):
        return []
    names = [str(kind) for kind in kinds]
    problems: list[Problem] = []
    for place, kind in enumerate(names):
        problems += _order_problems(names, entries, place)
        if kind not in TRAINED_HERE:
            rule = f"is not trained by this version (it trains {', '.join(TRAINED_HERE)})"
            problems.append(
                Problem(f"stages.{place}.kind", kind, rule, "chain.unsupported_stage", "drop the stage")
            )
    if not problems and len(names) > 1:
        rule = f"holds {len(names)} stages; this version trains one"
        problems.append(Problem("stages", names, rule, "chain.unsupported_stage", "keep one stage"))
    return problems


def _order_problems(names: list[str], entries: list[dict[str, Any]], place: int) -> list[Problem]:
    kind, key = names[place], f"stages.{place}.kind"
    before = names[place - 1] if place else None
    if kind == "merge" and before is None:
        return [_wrong(key, kind, "merges nothing: no stage before it trains an adapter", "drop it")]
    if kind == "merge" and before == "merge":
        return [_wrong(key, kind, "merges what is merged already", "drop one of the two")]
    if kind == "sft" and any(name in (*_PREFERENCE, "grpo") for name in names[:place]):
        return [_wrong(key, kind, "after preference or reward training undoes it", "move it to the front")]
    if before == "reward":
        return [
            _wrong(
                key,
                kind,
                "cannot start from a reward model, which has no language head",
                "train the reward model in its own recipe",
            )
        ]
    if before is not None and before != "merge" and kind != "merge" and _is_lora(entries[place - 1]):
        rule = f"starts from the adapter of the {before} stage, which no trainer can load as a base"
        fix = f"put a merge stage between {before} and {kind}"
        return [Problem(key, kind, rule, "chain.unmerged_adapter", fix)]
    return []


def _is_lora(entry: dict[str, Any]) -> bool:
    adapter = entry.get("adapter")
    if isinstance(adapter, dict):
        return cast("dict[str, Any]", adapter).get("kind", "lora") != "full"
    return adapter != "full"


def _wrong(key: str, kind: str, rule: str, fix: str) -> Problem:
    return Problem(key, kind, rule, "chain.stage_order", fix)
