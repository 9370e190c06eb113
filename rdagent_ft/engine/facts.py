"""What is known of model, data and device, in the form that recipe rules take."""

from __future__ import annotations

from pathlib import Path

from rdagent_ft.engine.context import RunContext
from rdagent_ft.recipe.memory import read_model_shape
from rdagent_ft.recipe.rules import RuleFacts


def rule_facts(ctx: RunContext, n_train_rows: int | None) -> RuleFacts:
    """Return the facts that V1 judges a recipe by; None rows switches the rules about their number off."""
    prepared = ctx.prepared
    shape = read_model_shape(Path(prepared.model.path))
    return RuleFacts(
        device=prepared.device,
        n_params=prepared.model.n_params,
        hidden_size=shape.hidden_size,
        vocab_size=prepared.model.vocab_size,
        max_positions=prepared.model.max_positions,
        shape=shape,
        memory_gib=prepared.memory_gib,
        gpu_memory_gib=prepared.gpu_memory_gib,
        n_train_rows=n_train_rows,
        can_contain=ctx.settings.executor == "docker",
    )
