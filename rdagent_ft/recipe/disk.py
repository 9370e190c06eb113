"""How much disk training a recipe fills, before it starts: checkpoints, weights and merges of its chain.

Counted as they lie there at the end of the chain; checkpoints go when the loop ends. Not covered: data files,
logs, and the merge of a hand-over, which comes when nothing is trained any more.
"""

from __future__ import annotations

from rdagent_ft.recipe.memory_parts import Device, dtypes, optimizer_bytes, trained_params
from rdagent_ft.recipe.model_shape import ModelShape
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.recipe.stages import AnyTrainedStage, LoraAdapter, MergeStage

N_CHECKPOINTS = 3
"""Two are kept, and a third is there until it is complete."""
FULL_WIDTH = 4
"""Bytes of a trained or merged weight: both are held and written in float32."""
SIDE_BYTES = 64 << 20
"""Tokenizer, states and logs beside a stage's weights."""


def chain_disk_bytes(recipe: Recipe, shape: ModelShape, device: Device) -> int:
    """Return about how many bytes the trainings and merges of a recipe write and leave."""
    total, is_whole = 0.0, False
    for stage in recipe.stages:
        if isinstance(stage, MergeStage):
            total += shape.n_params * FULL_WIDTH + SIDE_BYTES
            is_whole = True
            continue
        total += _stage_bytes(stage, shape, device)
        is_adapter = isinstance(stage.adapter, LoraAdapter)
        if stage is recipe.stages[-1] and is_adapter and is_whole:
            total += shape.n_params * FULL_WIDTH + SIDE_BYTES  # merged once more, to be scored
        is_whole = is_whole or not is_adapter
    return int(total)


def _stage_bytes(stage: AnyTrainedStage, shape: ModelShape, device: Device) -> float:
    n_trained = trained_params(stage, shape)
    is_adapter = isinstance(stage.adapter, LoraAdapter)
    width = dtypes(stage, device).trained if is_adapter else FULL_WIDTH
    checkpoints = N_CHECKPOINTS * n_trained * (width + optimizer_bytes(stage, width))
    left = shape.n_params * FULL_WIDTH if stage.kind == "reward" else n_trained * width
    return checkpoints + left + SIDE_BYTES
