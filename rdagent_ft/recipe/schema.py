"""The recipe: everything about a training that a planner may choose, and nothing else.

A recipe is frozen, typed and hashed. What belongs to the program (paths, base model, output,
prompt format, decoding, hub pushing) is not here on purpose: two candidates that were prompted or
decoded differently could not be compared. Stages are in `stages.py`, the data mix in `data_mix.py`,
cross-field rules in `rules.py`, rendering in `render.py`, the ranges that planners sample from in `space.py`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from rdagent_ft.recipe.data_mix import DataMix
from rdagent_ft.recipe.stages import AnyTrainedStage, MergeStage, SftStage, Stage
from rdagent_ft.values import Frozen, content_hash

MAX_STAGES = 8


class Recipe(Frozen):
    """The candidate. `schema_version` changes when a field changes meaning."""

    schema_version: Literal[1] = 1
    data: DataMix = DataMix()
    stages: Annotated[tuple[Stage, ...], Field(min_length=1, max_length=MAX_STAGES)] = (SftStage(),)

    @property
    def hash(self) -> str:
        """The recipe's identity: 12 hex digits of its canonical JSON's SHA-256."""
        return content_hash(self)

    @property
    def trained_stages(self) -> tuple[tuple[int, AnyTrainedStage], ...]:
        """The stages that train, with their places; a merge trains nothing."""
        return tuple(
            (place, stage) for place, stage in enumerate(self.stages) if not isinstance(stage, MergeStage)
        )

    @property
    def first_stage(self) -> AnyTrainedStage:
        """The stage that starts from the base model. The order rules refuse a merge in its place."""
        stage = self.stages[0]
        if isinstance(stage, MergeStage):
            raise ValueError("a recipe cannot begin with a merge")
        return stage
