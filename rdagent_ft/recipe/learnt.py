"""Rules that a run learns from its own failures: what failed twice the same way is not tried again.

A rule bounds the quantity that decides about its failure class: tokens in one pass for memory, the rate
for divergence. It holds for stages of the same kind and adapter only, and for this run only: another
machine or model learns anew.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Literal

from rdagent_ft.errors import Problem
from rdagent_ft.recipe.stages import AnyTrainedStage, LoraAdapter
from rdagent_ft.values import Frozen

SEEN_TO_LEARN = 2
Quantity = Literal["tokens_per_pass", "learning_rate"]
_QUANTITIES: dict[str, Quantity] = {
    "resource.gpu_oom": "tokens_per_pass",
    "resource.host_oom": "tokens_per_pass",
    "train.diverged": "learning_rate",
}
_FIELD: dict[Quantity, str] = {"tokens_per_pass": "micro_batch", "learning_rate": "learning_rate"}


class FailedTry(Frozen):
    """A stage that failed as it stood: kind, adapter, and what its failure may rest on.

    `adapter` is `lora`, `qlora` or `full`; `tokens_per_pass` is micro_batch x max_length.
    """

    failure_class: str
    kind: str
    adapter: str
    gradient_checkpointing: bool
    tokens_per_pass: int
    learning_rate: float


class LearntRule(Frozen):
    """At `limit` and above, stages of this kind and adapter failed `n_seen` times with one class."""

    failure_class: str
    kind: str
    adapter: str
    gradient_checkpointing: bool
    quantity: Quantity
    limit: float
    n_seen: int


def failed_try(stage: AnyTrainedStage, failure_class: str) -> FailedTry:
    """Return what is remembered of a stage that failed."""
    return FailedTry(
        failure_class=failure_class,
        kind=stage.kind,
        adapter=_adapter_word(stage),
        gradient_checkpointing=stage.gradient_checkpointing,
        tokens_per_pass=stage.micro_batch * stage.max_length,
        learning_rate=stage.learning_rate,
    )


def learn(tries: Iterable[FailedTry]) -> tuple[LearntRule, ...]:
    """Return one rule for what failed at least twice alike, at the smallest failing value."""
    groups: dict[tuple[str, str, str, bool], list[FailedTry]] = defaultdict(list)
    for each in tries:
        if each.failure_class in _QUANTITIES:
            key = each.failure_class, each.kind, each.adapter, each.gradient_checkpointing
            groups[key].append(each)
    return tuple(
        LearntRule(
            failure_class=failure_class,
            kind=kind,
            adapter=adapter,
            gradient_checkpointing=checkpointing,
            quantity=(quantity := _QUANTITIES[failure_class]),
            limit=min(float(getattr(each, quantity)) for each in group),
            n_seen=len(group),
        )
        for (failure_class, kind, adapter, checkpointing), group in groups.items()
        if len(group) >= SEEN_TO_LEARN
    )


def learnt_problems(key: str, stage: AnyTrainedStage, rules: Iterable[LearntRule]) -> list[Problem]:
    """Return what the run's own failures say against a stage that stands at `key`."""
    now = failed_try(stage, "")
    problems: list[Problem] = []
    for rule in rules:
        same = (rule.kind, rule.adapter, rule.gradient_checkpointing) == (
            now.kind, now.adapter, now.gradient_checkpointing,
        )  # fmt: skip
        value = float(getattr(now, rule.quantity))
        if not same or value < rule.limit:
            continue
        field = _FIELD[rule.quantity]
        words = f"{rule.quantity.replace('_', ' ')} {value:g}"
        text = f"gives {words}; {rule.limit:g} failed {rule.n_seen} times in this run ({rule.failure_class})"
        fix = f"keep {rule.quantity.replace('_', ' ')} below {rule.limit:g}"
        problems.append(Problem(f"{key}.{field}", getattr(stage, field), text, rule.failure_class, fix))
    return problems


def _adapter_word(stage: AnyTrainedStage) -> str:
    if not isinstance(stage.adapter, LoraAdapter):
        return "full"
    return "lora" if stage.adapter.quantization == "none" else "qlora"
