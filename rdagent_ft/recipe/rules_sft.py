"""Cross-field rules of `sft` stages: packing and the tokens that are trained."""

from __future__ import annotations

from collections.abc import Iterator

from rdagent_ft.errors import Problem
from rdagent_ft.recipe.rule_facts import Rule, StageCheck
from rdagent_ft.recipe.stages import SftStage

VARLEN_KERNELS = ("kernels-community/flash-attn2",)
"""Attention kernels that keep packed rows apart; SDPA and eager attention let them see each other."""


def _packing(check: StageCheck) -> Iterator[Problem]:
    stage = check.stage
    if not isinstance(stage, SftStage) or not stage.packing or stage.attn_implementation in VARLEN_KERNELS:
        return
    rule = f"needs a variable-length kernel; with {stage.attn_implementation!r} packed rows see each other"
    fix = f"set attn_implementation to {VARLEN_KERNELS[0]!r} on a GPU, or packing to false"
    yield check.problem("packing", True, rule, fix, "config.packing")


def _assistant_turns(check: StageCheck) -> Iterator[Problem]:
    stage = check.stage
    if not isinstance(stage, SftStage) or stage.train_on != "assistant_turns":
        return
    if check.facts.has_training_template is False:
        rule = "needs a chat template that marks the assistant's turns, and the model's does not"
        fix = "write 'last_turn', or use a model whose template has generation marks"
        yield check.problem("train_on", stage.train_on, rule, fix, "data.template_mask")


SFT_RULES: tuple[Rule, ...] = (_packing, _assistant_turns)
