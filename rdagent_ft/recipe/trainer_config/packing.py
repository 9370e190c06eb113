"""Rules of SFT rows: packing, padding-free batches, which tokens are trained.

Source: TRL 1.16 `sft_trainer.py`; without a variable-length kernel packed rows see each other and
the trainer only warns, so that case is an error here.
"""

from __future__ import annotations

from collections.abc import Iterator

from rdagent_ft.recipe.documents import shown
from rdagent_ft.recipe.edits import Finding, finding
from rdagent_ft.recipe.trainer_config.config import TrainerConfig

HUB_KERNEL = "kernels-community/flash-attn2"


def check_packing(config: TrainerConfig) -> Iterator[Finding]:
    """Yield findings; `padding_free` is checked for every method that has the key."""
    if config.method == "dpo" and config.flag("padding_free"):
        rule = "is switched off by TRL 1.16 for DPO: it warns and pads all the same"
        yield finding("padding_free", True, rule, "config.packing", "drop it")
    if config.method != "sft":
        return
    packs = config.flag("packing") or config.flag("eval_packing")
    key = "packing" if config.flag("packing") else "eval_packing"
    if packs and config.text("packing_strategy") != "wrapped" and not has_varlen_kernel(config):
        rule = f"needs a variable-length attention kernel; with {_kernel(config)} packed rows see each other"
        fix = f"write `attn_implementation: {HUB_KERNEL}` on a GPU, or `{key}: false`"
        yield finding(key, True, rule, "config.packing", fix)
    if packs and "max_length" in config.values and config.values["max_length"] is None:
        yield finding(key, True, "needs `max_length`, which is null", "config.packing", "set `max_length`")
    yield from _padding_free(config)
    yield from _trained_tokens(config)


def has_varlen_kernel(config: TrainerConfig) -> bool:
    """Whether the attention kernel keeps packed rows apart (flash attention of any build)."""
    kernel = (config.text("attn_implementation") or "").lower()
    in_kwargs = str(config.mapping("model_init_kwargs").get("attn_implementation", "")).lower()
    return "flash" in kernel or "flash" in in_kwargs


def _kernel(config: TrainerConfig) -> str:
    return f"`{config.text('attn_implementation') or 'sdpa'}`"


def _padding_free(config: TrainerConfig) -> Iterator[Finding]:
    if not config.flag("padding_free"):
        return
    if not has_varlen_kernel(config) and not config.flag("packing"):
        rule = f"needs a variable-length attention kernel, not {_kernel(config)}"
        yield finding(
            "padding_free",
            True,
            rule,
            "config.packing",
            f"write `attn_implementation: {HUB_KERNEL}`, or drop it",
        )
    elif not config.flag("packing") and config.value("max_length") is not None:
        rule = "without packing does not enforce `max_length`, so the trainer refuses it"
        yield finding(
            "padding_free", True, rule, "config.packing", "set `packing: true`, or `max_length: null`"
        )


def _trained_tokens(config: TrainerConfig) -> Iterator[Finding]:
    if config.flag("assistant_only_loss") and config.given("dataset_text_field"):
        rule = "needs a `messages` column, and `dataset_text_field` names running text"
        yield finding("assistant_only_loss", True, rule, "data.columns", "drop one of the two")
    if (
        config.flag("assistant_only_loss")
        and config.given("completion_only_loss")
        and config.flag("completion_only_loss")
    ):
        rule = "and `completion_only_loss` name two different masks"
        yield finding(
            "assistant_only_loss",
            True,
            rule,
            "config.conflict",
            "keep `completion_only_loss` for prompt/completion data, `assistant_only_loss` for messages",
        )
    if config.text("loss_type") == "dft" and (config.number("label_smoothing_factor") or 0) > 0:
        value = shown(config.value("label_smoothing_factor"))
        yield finding(
            "label_smoothing_factor", value, "is ignored by `loss_type: dft`", "config.conflict", "drop it"
        )
