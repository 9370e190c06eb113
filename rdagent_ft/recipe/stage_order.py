"""Which sequences of stages make sense, judged on the raw file, so also where single fields are wrong.

The weights that pass from stage to stage are a whole model or an adapter on one; no trainer starts from an
adapter, so a merge stands between. A reward model is a side branch: the weights before it pass on, and a
later `grpo` stage asks it. What one stage may hold is judged by the schema and in `rules.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, cast

from rdagent_ft.errors import Problem
from rdagent_ft.recipe.stages import STAGE_CLASSES

_UNDONE_BY_SFT = ("dpo", "kto", "grpo")
_UNDONE_BY_DISTILL = ("dpo", "kto")
_ASKS = "reward_model"


class _Entry(NamedTuple):
    """One stage as far as its order depends on it: kind, whether it trains an adapter, reward kinds."""

    kind: str
    lora: bool
    rewards: tuple[str, ...]

    @property
    def asks_reward_model(self) -> bool:
        return self.kind == "grpo" and _ASKS in self.rewards


def check_stage_order(stages: Any) -> list[Problem]:
    """Return every stage that cannot stand where it does, with the reason.

    Anything that is no list of mappings with a known `kind` is left to the schema.
    """
    if not isinstance(stages, list):
        return []
    entries = [_entry(item) for item in cast("list[Any]", stages)]
    known = [entry for entry in entries if entry is not None]
    if len(known) != len(entries):
        return []
    problems: list[Problem] = []
    for place, entry in enumerate(known):
        undone = list(_undone(known, place))
        problems += undone
        if not undone:  # a stage that must move needs no merge where it stands
            problems += _merge(known, place) if entry.kind == "merge" else _start(known, place)
        problems += _reward_model(known, place) if entry.kind == "reward" else ()
        problems += _asked(known, place)
    return problems


def _merge(entries: list[_Entry], place: int) -> Iterator[Problem]:
    before = _weights_before(entries, place)
    if before is None:
        side = any(entry.kind == "reward" for entry in entries[:place])
        why = "a reward model is a side branch" if side else "no stage before it trains an adapter"
        yield _wrong(place, "merge", f"merges nothing: {why}", "drop the merge stage")
    elif before.kind == "merge":
        yield _wrong(place, "merge", "merges what is merged already", "drop one of the two merge stages")
    elif not before.lora:
        rule = f"merges nothing: the {before.kind} stage before it trains all weights and leaves no adapter"
        yield _wrong(place, "merge", rule, "drop the merge stage")


def _start(entries: list[_Entry], place: int) -> Iterator[Problem]:
    """A trained stage must start from a whole model."""
    kind, before = entries[place].kind, _weights_before(entries, place)
    told = place > 0 and entries[place - 1].kind == "reward"  # it starts from the same weights
    if before is not None and before.kind != "merge" and before.lora and not told:
        rule = f"starts from the adapter of the {before.kind} stage, which no trainer can load as a base"
        fix = f"put a merge stage (`kind: merge`) between {before.kind} and {kind}"
        yield Problem(f"stages.{place}.kind", kind, rule, "chain.unmerged_adapter", fix)


def _undone(entries: list[_Entry], place: int) -> Iterator[Problem]:
    kind = entries[place].kind
    undone = {"sft": _UNDONE_BY_SFT, "distill": _UNDONE_BY_DISTILL}.get(kind, ())
    earlier = [entry.kind for entry in entries[:place] if entry.kind in undone]
    if not earlier:
        return
    if kind == "sft":
        rule = f"copies answers after {earlier[-1]} training and undoes what it taught"
    else:
        rule = f"pulls the model to its teacher after {earlier[-1]} training and undoes what it taught"
    yield _wrong(place, kind, rule, f"move {kind} before {earlier[0]}, or drop it")


def _reward_model(entries: list[_Entry], place: int) -> Iterator[Problem]:
    later = entries[place + 1 :]
    until_next = [entry for entry in later if entry.kind != "merge"]
    next_reward = next((n for n, entry in enumerate(until_next) if entry.kind == "reward"), len(until_next))
    if any(entry.asks_reward_model for entry in until_next[:next_reward]):
        return
    if not until_next:
        rule = "is the last trained stage: a reward model writes no answers, so no benchmark can score it"
    elif next_reward < len(until_next):
        rule = "is replaced by the next reward stage before any grpo stage asks it"
    else:
        rule = "trains a reward model that no later grpo stage asks"
    fix = "add a grpo stage with `rewards: [{kind: reward_model}]` after it, or drop it"
    yield _wrong(place, "reward", rule, fix)


def _asked(entries: list[_Entry], place: int) -> Iterator[Problem]:
    if not entries[place].asks_reward_model or any(entry.kind == "reward" for entry in entries[:place]):
        return
    key = f"stages.{place}.rewards.{entries[place].rewards.index(_ASKS)}.kind"
    rule = "asks a reward model, and no stage before this one trains it"
    yield Problem(key, _ASKS, rule, "chain.stage_order", "add a reward stage before, or use another reward")


def _weights_before(entries: list[_Entry], place: int) -> _Entry | None:
    """Return the stage whose weights a stage starts from; None for the base model."""
    return next((entry for entry in reversed(entries[:place]) if entry.kind != "reward"), None)


def _entry(item: Any) -> _Entry | None:
    if not isinstance(item, dict):
        return None
    stage = cast("dict[str, Any]", item)
    kind = stage.get("kind")
    if not isinstance(kind, str) or kind not in STAGE_CLASSES:
        return None
    adapter: Any = stage.get("adapter")
    adapter_kind: Any = cast("dict[str, Any]", adapter).get("kind") if isinstance(adapter, dict) else adapter
    rewards = stage.get("rewards")
    listed = cast("list[Any]", rewards) if isinstance(rewards, list) else []
    named = [
        cast("dict[str, Any]", reward).get("kind") if isinstance(reward, dict) else "" for reward in listed
    ]
    return _Entry(kind, adapter_kind != "full", tuple(str(name) for name in named))


def _wrong(place: int, kind: str, rule: str, fix: str) -> Problem:
    return Problem(f"stages.{place}.kind", kind, rule, "chain.stage_order", fix)
