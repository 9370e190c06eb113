"""Cross-field rules of stages that train on the model's own samples: `grpo` and `distill`.

Group sizes need no rule: `batches.py` splits a step so that it holds whole groups. What scores the
samples of `grpo` is judged in `rules_rewards.py`.
"""

from __future__ import annotations

from collections.abc import Iterator

from rdagent_ft.errors import Problem
from rdagent_ft.recipe.rule_facts import Rule, StageCheck
from rdagent_ft.recipe.stages import DistillStage, GrpoStage


def _window(check: StageCheck) -> Iterator[Problem]:
    stage = check.stage
    if not isinstance(stage, (GrpoStage, DistillStage)) or stage.max_completion_length < stage.max_length:
        return
    rule = f"leaves no room for a prompt within max_length ({stage.max_length})"
    fix = f"write at most {stage.max_length // 2}, or raise max_length"
    yield check.problem("max_completion_length", stage.max_completion_length, rule, fix)


def _clipping(check: StageCheck) -> Iterator[Problem]:
    stage = check.stage
    if not isinstance(stage, GrpoStage):
        return
    high = stage.epsilon if stage.epsilon_high is None else stage.epsilon_high
    if stage.loss_type == "cispo":
        # CISPO cuts the probability ratio itself at epsilon_high; below 1 it scales every token down.
        if high < 1:
            rule = "is the largest probability ratio for the loss cispo and must be at least 1"
            yield check.problem("epsilon_high", stage.epsilon_high, rule, "write 5.0")
    elif high < stage.epsilon:
        rule = f"is below epsilon ({stage.epsilon:g}): rising answers would be clipped first"
        yield check.problem("epsilon_high", high, rule, "write null, or 0.28 as DAPO does")
    elif stage.epsilon >= 1:
        rule = "must be below 1: ratios are clipped at 1 - epsilon"
        yield check.problem("epsilon", stage.epsilon, rule, "write 0.2", "config.bad_value")


def _vllm(check: StageCheck) -> Iterator[Problem]:
    stage, facts = check.stage, check.facts
    if not isinstance(stage, GrpoStage) or not stage.use_vllm:
        return
    if facts.device == "cpu":
        rule = "needs a GPU, and training runs on the CPU"
    elif facts.vllm is False:
        rule = "needs the package vllm, which the training environment lacks"
    else:
        return
    yield check.problem("use_vllm", True, rule, "write false", "env.missing_dep")


def _teacher(check: StageCheck) -> Iterator[Problem]:
    stage, facts = check.stage, check.facts
    if not isinstance(stage, DistillStage):
        return
    teacher = stage.teacher
    if "://" in teacher:
        rule = "is an address: on-policy distillation needs the teacher's own weights"
        fix = "name a model, or let the endpoint write rows for an sft stage"
        yield check.problem("teacher", teacher, rule, fix, "config.bad_value")
        return
    if teacher not in facts.teacher_vocab_sizes:
        return
    size = facts.teacher_vocab_sizes[teacher]
    if size is None:
        rule = "is neither a folder with a model nor a name under models/"
        fix = "fetch the teacher first, or name one that is there"
        yield check.problem("teacher", teacher, rule, fix, "distill.teacher")
    elif facts.vocab_size is not None and size != facts.vocab_size:
        rule = f"has a vocabulary of {size} tokens, the student of {facts.vocab_size}: words do not match"
        fix = "use a teacher with the student's vocabulary, or sft on rows that the teacher wrote"
        yield check.problem("teacher", teacher, rule, fix, "distill.vocabulary")


ONLINE_RULES: tuple[Rule, ...] = (_window, _clipping, _vllm, _teacher)
