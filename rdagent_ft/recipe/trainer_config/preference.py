"""Cross-field rules of DPO, KTO and reward models. Source: TRL 1.16 trainers and their papers."""

from __future__ import annotations

from collections.abc import Iterator

from rdagent_ft.recipe.documents import shown
from rdagent_ft.recipe.edits import Finding, finding
from rdagent_ft.recipe.trainer_config.config import TrainerConfig

# Losses built on the reward difference; only they take another divergence.
_DIVERGENCE_LOSSES = frozenset(
    {"sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop", "sft"}
)


def check_preference(config: TrainerConfig) -> Iterator[Finding]:
    """Yield findings for the three methods; nothing for others."""
    if config.method == "dpo":
        yield from _losses(config)
    if config.method == "kto":
        yield from _kto(config)
    if config.method in ("dpo", "kto", "grpo", "rloo"):
        yield from _reference(config)


def _losses(config: TrainerConfig) -> Iterator[Finding]:
    losses = [str(item) for item in config.items("loss_type")]
    weights = config.items("loss_weights")
    if weights and len(weights) != len(losses):
        rule = f"has {len(weights)} entries for {len(losses)} losses"
        yield finding(
            "loss_weights",
            shown(list(weights)),
            rule,
            "config.conflict",
            "give one weight per entry of `loss_type`",
        )
    kind = config.text("f_divergence_type")
    if kind not in (None, "reverse_kl") and not set(losses) <= _DIVERGENCE_LOSSES:
        yield finding(
            "f_divergence_type",
            kind,
            f"is not defined for {', '.join(losses)}",
            "config.conflict",
            "write `f_divergence_type: reverse_kl`, or `loss_type: sigmoid`",
        )
    smoothing = config.number("label_smoothing") or 0.0
    if "exo_pair" in losses and smoothing == 0:
        yield finding(
            "label_smoothing",
            shown(config.value("label_smoothing")),
            "must be above 0 for `exo_pair`",
            "config.conflict",
            "write `label_smoothing: 0.001`",
        )
    if "robust" in losses and smoothing >= 0.5:
        yield finding(
            "label_smoothing",
            shown(config.value("label_smoothing")),
            "must be below 0.5 for `robust`",
            "config.conflict",
            "write `label_smoothing: 0.1`",
        )
    if config.flag("use_weighting") and {"aot", "aot_unpaired"} & set(losses):
        yield finding(
            "use_weighting",
            True,
            "is not defined for the sorted losses `aot`",
            "config.conflict",
            "drop it, or use `loss_type: sigmoid`",
        )
    if losses == ["sft"]:
        yield finding(
            "loss_type",
            "sft",
            "alone ignores the rejected answers",
            "config.conflict",
            "write `loss_type: [sigmoid, sft]`, or train with sft",
        )


def _kto(config: TrainerConfig) -> Iterator[Finding]:
    estimates_kl = config.text("loss_type") in (None, "kto")
    size = config.number("per_device_train_batch_size")
    if estimates_kl and size is not None and size == 1:
        rule = "must be above 1: the KL term is estimated from other rows of the batch"
        yield finding(
            "per_device_train_batch_size",
            1,
            rule,
            "config.conflict",
            "write 2 or more and lower `gradient_accumulation_steps`",
        )
    order = config.text("train_sampling_strategy")
    if estimates_kl and config.given("train_sampling_strategy") and order not in (None, "sequential"):
        yield finding(
            "train_sampling_strategy",
            order,
            "must be `sequential` for the KTO loss",
            "config.conflict",
            "drop it",
        )
    good, bad = config.number("desirable_weight"), config.number("undesirable_weight")
    if good and bad and not 0.1 <= good / bad <= 10:
        rule = f"and `undesirable_weight` differ by {max(good / bad, bad / good):.3g} times"
        yield finding(
            "desirable_weight",
            shown(good),
            rule,
            "config.bad_value",
            "keep weight times row count within 1 to 4/3 of each other",
        )


def _reference(config: TrainerConfig) -> Iterator[Finding]:
    if not config.flag("sync_ref_model"):
        return
    if config.uses_lora:
        yield finding(
            "sync_ref_model",
            True,
            "is not possible with LoRA: the reference is the base itself",
            "config.conflict",
            "drop it",
        )
    if "precompute_ref_log_probs" in config.keys and config.flag("precompute_ref_log_probs"):
        yield finding(
            "precompute_ref_log_probs",
            True,
            "needs a fixed reference, and `sync_ref_model` moves it",
            "config.conflict",
            "keep one of the two",
        )
    if config.method in ("grpo", "rloo") and config.number("beta") == 0:
        yield finding(
            "sync_ref_model",
            True,
            "needs `beta` above 0: there is no reference model at 0",
            "config.conflict",
            "drop it, or set `beta: 0.04`",
        )
