"""Cross-field rules of stages that train on preferences: `dpo`, `kto` and `reward`.

Sources: what the losses of TRL 1.16 read (`dpo_trainer.py`, `kto_trainer.py`) and what it refuses.
"""

from __future__ import annotations

from collections.abc import Iterator

from rdagent_ft.errors import Problem
from rdagent_ft.recipe.rule_facts import Rule, StageCheck
from rdagent_ft.recipe.stages import DpoStage, KtoStage, PairSampling, PreferenceStage

_SMOOTHED = ("robust", "exo_pair", "aot")
"""Losses that read `label_smoothing`; the others ignore it."""


def _rows(check: StageCheck) -> Iterator[Problem]:
    stage, facts = check.stage, check.facts
    if not isinstance(stage, PreferenceStage):
        return
    if stage.pairs == "given" and facts.has_preferences is False:
        rule = "reads the run's preference dataset, and the run has none"
        fix = "pass --preferences FILE, or write `pairs: sampled`"
        yield check.problem("pairs", "given", rule, fix, "data.preferences")
    if stage.pairs == "sampled" and facts.has_scorer is False:
        rule = "tells samples apart by the task's scorer, and this task has none that runs in code"
        yield check.problem(
            "pairs", "sampled", rule, "pass --preferences FILE and write `pairs: given`", "data.preferences"
        )
    if stage.pairs == "given" and stage.sampling != PairSampling():
        rule = "is not used: `pairs: given` reads rows that exist"
        fix = "write `pairs: sampled`, or drop sampling"
        yield check.problem("sampling", stage.sampling.model_dump(mode="json"), rule, fix)


def _dpo_losses(check: StageCheck) -> Iterator[Problem]:
    stage = check.stage
    if not isinstance(stage, DpoStage):
        return
    losses, weights = stage.loss_type, stage.loss_weights
    if len(set(losses)) < len(losses):
        yield check.problem("loss_type", list(losses), "names a loss twice", "name it once and weigh it")
    if set(losses) == {"sft"}:
        rule = "compares nothing: `sft` alone copies the chosen answers"
        yield check.problem("loss_type", list(losses), rule, "add `sigmoid`, or train an sft stage")
    if weights is None:
        return
    if len(weights) != len(losses):
        rule = f"has {len(weights)} weight(s) for {len(losses)} loss(es)"
        yield check.problem("loss_weights", list(weights), rule, f"give {len(losses)} weight(s), or null")
    elif all(weight == 0 for loss, weight in zip(losses, weights, strict=True) if loss != "sft"):
        rule = "weighs every loss that compares answers 0: no preference would be trained"
        yield check.problem("loss_weights", list(weights), rule, "weigh at least one of them above 0")


def _dpo_smoothing(check: StageCheck) -> Iterator[Problem]:
    stage = check.stage
    if not isinstance(stage, DpoStage):
        return
    value, losses = stage.label_smoothing, stage.loss_type
    if value == 0 and "exo_pair" in losses:
        rule = "must be above 0 for the loss exo_pair, which takes its logarithm"
        yield check.problem("label_smoothing", value, rule, "write 0.001")
    if value > 0 and not set(losses) & set(_SMOOTHED):
        rule = f"is not read by the loss {', '.join(losses)}; only {', '.join(_SMOOTHED)} use it"
        yield check.problem("label_smoothing", value, rule, "write 0, or use the loss `robust`")


def _beta(check: StageCheck) -> Iterator[Problem]:
    stage = check.stage
    if isinstance(stage, (DpoStage, KtoStage)) and stage.beta == 0:
        rule = "must be above 0: the loss would not depend on the model's answers"
        yield check.problem("beta", stage.beta, rule, "write 0.1", "config.bad_value")


def _kto_batch(check: StageCheck) -> Iterator[Problem]:
    stage = check.stage
    if not isinstance(stage, KtoStage) or stage.micro_batch > 1:
        return
    rule = "must be at least 2: KTO compares an answer with those of the other rows of its batch"
    fix = "write 2" if stage.effective_batch % 2 == 0 else "write 2 and make effective_batch even"
    yield check.problem("micro_batch", stage.micro_batch, rule, fix)


PREFERENCE_RULES: tuple[Rule, ...] = (_rows, _dpo_losses, _dpo_smoothing, _beta, _kto_batch)
