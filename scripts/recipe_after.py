"""What docs/recipes.md says about the time after the start: failures, health, repairs, learnt rules.

Numbers are the constants of the code; repairs and rules are shown by running them on an example.
"""

from __future__ import annotations

import re

from recipe_tables import cell

from rdagent_ft.recipe.learnt import SEEN_TO_LEARN, failed_try, learn, learnt_problems
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.stages import (
    AnyTrainedStage,
    FullAdapter,
    GrpoStage,
    LoraAdapter,
    SftStage,
)
from rdagent_ft.training import monitor, repair, stage_health
from rdagent_ft.training.failures import _OWN_CLASSES, load_signatures

_OF_KIND: dict[str, tuple[str, ...]] = {
    "sft": ("train.diverged", "train.no_signal", "train.pack_sdpa", "data.empty_after_filter",
            "data.template_mask", "data.eos"),
    "dpo": ("train.diverged", "train.no_signal", "data.no_pairs", "chain.unmerged_adapter",
            "chain.double_adapter"),
    "kto": ("train.diverged", "train.no_signal", "data.no_pairs",
            "chain.unmerged_adapter", "chain.double_adapter"),
    "reward": ("train.diverged", "train.no_signal", "data.no_pairs", "data.too_few"),
    "grpo": ("reward.broken", "reward.no_score", "train.no_signal", "train.truncated", "train.diverged",
             "config.grpo_batch", "data.too_few", "resource.vllm_kv", "env.missing_dep"),
    "distill": ("distill.vocabulary", "train.diverged", "train.no_signal", "data.too_few"),
    "merge": ("chain.merge_numeric", "chain.merge_quantised", "chain.unmerged_adapter"),
}  # fmt: skip
"""Kind of stage -> the failure classes that concern it most; all of them are in docs/failures.md."""
_PREFERENCES = ("dpo", "kto", "reward")


def training_failures(kind: str) -> list[str]:
    """Return the failure classes of a kind with blame and fix. Raises `LookupError` for an unknown class."""
    lines = ["| class | counts against | fix |", "|---|---|---|"]
    for name in _OF_KIND[kind]:
        found = {
            (signature.blame, signature.fix)
            for signature in load_signatures()
            if signature.failure_class == name
        }
        if name in _OWN_CLASSES:
            found = {_OWN_CLASSES[name]}
        if not found:
            raise LookupError(f"{name} is no class of the classifier")
        blame = "/".join(sorted({blame for blame, _ in found}))
        fixes = "; or ".join(sorted(fix for _, fix in found))
        lines.append(f"| `{name}` | {blame} | {cell(fixes)} |")
    return lines


def health_lines(kind: str) -> list[str]:
    """Return what ends a training of a kind as failed, and what is said of one that ended well."""
    health = stage_health
    ends = [
        "a loss that is NaN or infinite, or a gradient norm that is so at the end, beside a loss of 0, or "
        f"{monitor.BAD_NORMS_IN_A_ROW} times in a row: `train.diverged`",
        "gradient norms that are all 0: `train.no_signal`",
    ]
    if kind in health.LOSS_KINDS:
        ends += [
            f"an end loss above {monitor.BLOW_UP_FACTOR:g} x first + {monitor.BLOW_UP_OFFSET:g}: "
            "`train.diverged`",
            f"a loss that never moved by more than {monitor.FLAT_RELATIVE_RANGE:g} of itself in "
            f"{monitor.MIN_LOGS_FOR_FLAT} logs: `train.no_signal`",
        ]
    if kind in _PREFERENCES:
        ends += [f"a margin that never moved by {health.FLAT_MARGIN:g}: `train.no_signal`"]
    if kind == "grpo":
        ends += [
            f"rewards that differ in no group for {health.SILENT_LOGS} logs in a row: `train.no_signal`",
            "rewards that return None for all completions, or all but one, for "
            f"{health.SILENT_LOGS} logs in a row or from the first log to the last: `reward.no_score`",
            f"more than {health.MAX_CLIPPED:.0%} of the completions cut for {health.CLIPPED_LOGS} logs in a "
            "row without a rising reward: `train.truncated`",
        ]
    ends += [
        f"a pace below a {_share(health.SLOW_FACTOR)} of the usual in {health.SLOW_LOGS} logs and "
        f"{health.SLOW_S:g} s: `resource.throughput`"
    ]
    return [*(f"- {line}." for line in ends), *_warned(kind)]


def _warned(kind: str) -> list[str]:
    health, watched = stage_health, stage_health.WATCHED[kind]
    said = {
        "rewards/accuracies": f"below {health.MIN_ACCURACY:g}",
        "accuracy": f"below {health.MIN_ACCURACY:g}",
        "rewards/margins": "below 0",
        "margin": "below 0",
        "completions/clipped_ratio": f"above {health.MAX_CLIPPED:g}",
    }
    if kind == "grpo":
        said |= {
            "entropy": f"below {health.MIN_ENTROPY:g}",
            "kl": f"above {health.MAX_KL:g}",
            "sampling/sampling_logp_difference/mean": f"above {health.MAX_LOGP_GAP:g}",
        }
    words = ", ".join(f"`{name}` {said[name]}" for name in watched if name in said)
    return [f"- Warned about at the end (mean of the last {health.END_LOGS} logs): {words}."] if words else []


def _share(factor: float) -> str:
    return "tenth" if factor == 10 else f"1/{factor:g} part"


def repair_lines() -> list[str]:
    """Return the ladder of neutral fixes and every task-changing fix, made on example stages."""
    facts = repair.RepairFacts(device="cuda", has_bitsandbytes=True)
    lines = ["Neutral, in this order, for " + _names(sorted(repair.OUT_OF_MEMORY)) + ":", ""]
    stage: AnyTrainedStage = SftStage()
    while (fixed := repair.neutral_fix(stage, "resource.gpu_oom", facts)) is not None:
        lines.append(f"1. {fixed.words}")
        stage = fixed.stage
    cache = repair.neutral_fix(_grpo(), "resource.vllm_kv", facts)
    lines += ["", f"For `resource.vllm_kv`: {cache.words if cache else 'none'}.", ""]
    lines += [
        f"Task-changing, at most {repair.MAX_CHANGED_TASKS} in a row for one class, each a new recipe:",
        "",
        "| class | example of the reason that is shown |",
        "|---|---|",
    ]
    seen: set[tuple[str, int, str]] = set()
    for name in repair._CHANGES:
        for n_before in range(repair.MAX_CHANGED_TASKS):
            for example in _examples():
                recipe = Recipe(stages=(example,))
                made = repair.changed_task(recipe, 0, name, n_before=n_before)
                reason = "" if made is None else made.reason
                same = name, n_before, re.sub(r"[\d.e+-]+", "…", reason)
                if reason and same not in seen:
                    seen.add(same)
                    time = ", again" if n_before and (name, 0, same[2]) not in seen else ""
                    lines += [] if n_before and not time else [f"| `{name}`{time} | {cell(reason)} |"]
    return lines


def learnt_lines() -> list[str]:
    """Return what a run learns from failures of its own, by learning it from an example."""
    stage = SftStage(micro_batch=8, max_length=2048)
    lines = [
        f"After {SEEN_TO_LEARN} failures of one class:",
        "",
        "| class | the next such stage |",
        "|---|---|",
    ]
    for name in ("resource.gpu_oom", "resource.host_oom", "train.diverged"):
        rules = learn([failed_try(stage, name)] * SEEN_TO_LEARN)
        for problem in learnt_problems("stages.0", stage, rules):
            lines.append(f"| `{name}` | `{problem.key}` {cell(problem.rule)}; {cell(problem.fix)} |")
    return lines


def _examples() -> tuple[AnyTrainedStage, ...]:
    return (
        SftStage(adapter=FullAdapter(), learning_rate=2e-5),
        SftStage(),
        SftStage(packing=True),
        SftStage(adapter=LoraAdapter(target_modules=("q", "v"))),
        _grpo(),
    )


def _grpo() -> GrpoStage:
    return GrpoStage.model_validate({"rewards": [{"kind": "numeric"}]})


def _names(names: list[str]) -> str:
    return " and ".join(f"`{name}`" for name in names)
