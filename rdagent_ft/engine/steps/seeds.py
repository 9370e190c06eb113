"""Further trainings of the claimed recipe, one a seed: before the test split is opened.

They make the claim one about the recipe and not about one lucky training. The model that is handed over
stays the selected one. A training that fails is recorded and stands in the report.
"""

from __future__ import annotations

from rdagent_ft.engine.context import RunContext
from rdagent_ft.engine.steps.chain import train_chain
from rdagent_ft.engine.steps.chain_place import ChainPlace
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.stages import MergeStage
from rdagent_ft.reporting.records import TrainOutput


def train_seeds(ctx: RunContext, loop: int, recipe: Recipe) -> dict[int, TrainOutput]:
    """Train the loop's recipe with FT_CLAIM_SEEDS - 1 other seeds; return seed -> how that went.

    The data and everything else of the recipe stay as they are: the order of rows, dropout and new
    weights follow the seed. Raises `StopRun` when the run has to stop meanwhile.
    """
    trained: dict[int, TrainOutput] = {}
    for seed in further_seeds(recipe.first_stage.seed, ctx.settings.claim_seeds - 1):
        ctx.progress.notice(f"claim: training the recipe of loop {loop} with seed {seed}")
        folder = ctx.loop_dir(loop) / "seeds" / str(seed)
        place = ChainPlace(loop, "claim", stages=folder, configs=folder, prefix=f"seed-{seed}")
        trained[seed] = train_chain(ctx, reseeded(recipe, seed), place)
    return trained


def reseeded(recipe: Recipe, seed: int) -> Recipe:
    """Return the recipe with every training's seed replaced; the data mix keeps its own."""
    stages = tuple(
        stage if isinstance(stage, MergeStage) else stage.model_copy(update={"seed": seed})
        for stage in recipe.stages
    )
    return recipe.model_copy(update={"stages": stages})


def further_seeds(first: int, n: int) -> tuple[int, ...]:
    """Return `n` seeds that follow `first`, inside what a trainer takes."""
    return tuple((first + step) % 2**31 for step in range(1, n + 1))
