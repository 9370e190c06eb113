"""Further trainings of the claimed recipe, one a seed: before the test split is opened.

They make the claim one about the recipe and not about one lucky training. The model that is handed over
stays the selected one. A training that fails is recorded and stands in the report.
"""

from __future__ import annotations

from rdagent_ft.engine.context import RunContext
from rdagent_ft.engine.steps.code import CONFIG_NAME, render_config
from rdagent_ft.engine.steps.train import train_config
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.reporting.records import CodeOutput, TrainOutput
from rdagent_ft.values import write_atomic


def train_seeds(ctx: RunContext, loop: int, recipe: Recipe) -> dict[int, TrainOutput]:
    """Train the loop's recipe with FT_CLAIM_SEEDS - 1 other seeds; return seed -> how that went.

    The data and everything else of the recipe stay as they are: the order of rows, dropout and new
    weights follow the seed. Raises `StopRun` when the run has to stop meanwhile.
    """
    coded = ctx.journal.output(loop, "code", CodeOutput)
    assert coded is not None
    trained: dict[int, TrainOutput] = {}
    for seed in further_seeds(recipe.stages[0].seed, ctx.settings.claim_seeds - 1):
        ctx.progress.notice(f"claim: training the recipe of loop {loop} with seed {seed}")
        folder = ctx.loop_dir(loop) / "seeds" / str(seed)
        stage = recipe.stages[0].model_copy(update={"seed": seed})
        reseeded = recipe.model_copy(update={"stages": (stage, *recipe.stages[1:])})
        train_file = ctx.loop_dir(loop) / "data" / "train.jsonl"
        config, _ = render_config(ctx, reseeded, train_file, coded.n_train_rows)
        write_atomic(folder / CONFIG_NAME, config)
        trained[seed] = train_config(
            ctx, loop, "claim", folder / CONFIG_NAME, folder / "1-sft", part=f"seed-{seed}"
        )
    return trained


def further_seeds(first: int, n: int) -> tuple[int, ...]:
    """Return `n` seeds that follow `first`, inside what a trainer takes."""
    return tuple((first + step) % 2**31 for step in range(1, n + 1))
