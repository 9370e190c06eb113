"""Step 3 of a loop: train the recipe's stages in jobs, each judged by its evidence (`chain.py`)."""

from __future__ import annotations

from rdagent_ft.engine.context import RunContext
from rdagent_ft.engine.retention import make_room
from rdagent_ft.engine.steps.chain import train_chain
from rdagent_ft.engine.steps.chain_place import ChainPlace
from rdagent_ft.reporting.records import CodeOutput, ProposeOutput, TrainOutput


def train(ctx: RunContext, loop: int) -> TrainOutput:
    """Run the stages' jobs; return where the weights are, or why there are none."""
    coded = ctx.journal.output(loop, "code", CodeOutput)
    proposal = ctx.journal.output(loop, "propose", ProposeOutput)
    assert coded is not None
    if coded.failure is not None:
        return TrainOutput(failure=coded.failure)
    assert proposal is not None
    assert proposal.recipe is not None
    no_room = make_room(ctx, loop, proposal.recipe)
    if no_room is not None:
        return TrainOutput(failure=no_room)
    folder = ctx.loop_dir(loop)
    place = ChainPlace(loop=loop, step="train", stages=folder / "stages", configs=folder / "files")
    return train_chain(ctx, proposal.recipe, place)
