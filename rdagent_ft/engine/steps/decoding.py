"""Before the claim: each model's own best decoding, chosen on val (FT_TUNE_DECODING).

A gain that only says "this model suits greedy decoding better" is none. Base and best model get the same
choices and are chosen for alike; the sealed test is then opened once, with each at its best, and with
both in the plain protocol beside it. Answers stay deterministic: only the repetition penalty is tried.
"""

from __future__ import annotations

from rdagent_ft.engine.context import RunContext
from rdagent_ft.engine.journal import Look
from rdagent_ft.engine.scoring import (
    base_model,
    keep_samples,
    score_models,
    score_of,
    split_task,
    tuned_model,
)
from rdagent_ft.errors import JobError
from rdagent_ft.reporting.records import TrainOutput

PLAIN = 1.0
PENALTIES = (1.1, 1.3)
"""Beside the plain protocol: mild, and what small models that loop need."""


def tune_decoding(ctx: RunContext, loop: int, trained: TrainOutput, recipe_hash: str) -> dict[str, float]:
    """Write down the look at val; return role (`base`, `tuned`) -> the penalty with its highest mean there.

    The plainest wins a tie. Val answers in the plain protocol are asked again, so that all come from one
    job. Raises `JobError` when val could not be scored.
    """
    val = split_task(ctx, "val")
    ctx.journal.look(
        Look(benchmark=val.benchmark, split="val", loop=loop, recipe_hash=recipe_hash, purpose="decode")
    )
    models = tuple(
        model.model_copy(update={"role": f"{model.role}-{penalty}", "repetition_penalty": penalty})
        for model in (base_model(ctx), tuned_model(ctx, trained))
        for penalty in (PLAIN, *PENALTIES)
    )
    folder = ctx.loop_dir(loop) / "decoding"
    scored = score_models(
        ctx, loop, "claim", models, (val,), folder / "job", part="decoding", must_succeed=True
    )
    if scored.failure is not None:
        raise JobError(
            f"decoding could not be chosen on val: {scored.failure.message} [{scored.failure.failure_class}]",
            hint="`rdagent-ft resume` tries the claim again",
        )
    chosen: dict[str, float] = {}
    for role in ("base", "tuned"):
        means = {p: score_of(scored.samples, f"{role}-{p}", val).value for p in (PLAIN, *PENALTIES)}
        chosen[role] = best_penalty(means)
    for (role, _, _), rows in scored.samples.items():
        keep_samples(folder / role, rows)
    return chosen


def best_penalty(means: dict[float, float]) -> float:
    """Return the penalty with the highest mean; the smallest on a tie."""
    return min(means, key=lambda penalty: (-means[penalty], penalty))
