"""A plan context as the engine builds one, and a synthetic objective to plan against."""

from __future__ import annotations

import math
from typing import Any

from rdagent_ft.planning.port import PlanContext, Proposal, Trial
from rdagent_ft.recipe.rules import RuleFacts
from rdagent_ft.recipe.schema import Recipe

FACTS = RuleFacts(
    device="cpu", n_params=500_000_000, hidden_size=896, max_positions=2_048, n_train_rows=3_000
)


def context(**changes: Any) -> PlanContext:
    """Return a context after loop 0, with fields replaced."""
    recipe = changes.pop("default_recipe", Recipe())
    trial = Trial(
        loop=0,
        parent=None,
        recipe=recipe,
        hypothesis="The default recipe improves on the base model.",
        status="accepted",
        val_score=0.41,
        delta=0.31,
        ci95=(0.25, 0.37),
        facts=("41 of 100 dev answers are right", "31 % of wrong dev answers are cut"),
        lesson="Perhaps more steps help.",
        train_s=40.0,
    )
    values: dict[str, Any] = {
        "loop": 1,
        "seed": 42,
        "default_recipe": recipe,
        "parent": 0,
        "trials": (trial,),
        "data_facts": ("4,000 rows, 312 exact duplicates",),
        "sources": {"clean": 2_600, "scraped": 400},
        "token_percentiles": {"p50": 40, "p90": 70, "p99": 120, "max": 480},
        "model_facts": ("Qwen3 architecture, 1.6 M parameters",),
        "machine_facts": ("2 CPU cores, no GPU",),
        "baseline_val": 0.1,
        "scorer": "exact_match",
        "n_val": 500,
        "rule_facts": FACTS,
    }
    return PlanContext.model_validate({**values, **changes})


def score(recipe: Recipe) -> float:
    """Return a smooth score: best at learning rate 1e-3 and 4 epochs."""
    stage = recipe.stages[0]
    miss = math.log(stage.learning_rate / 1e-3) ** 2 / 8 + math.log(stage.epochs / 4) ** 2 / 4
    return 0.9 * math.exp(-miss)


def after(before: PlanContext, proposal: Proposal, *, failed: bool = False) -> PlanContext:
    """Return the context of the next loop, with greedy acceptance on `score`."""
    old = score(before.parent_recipe)
    new = score(proposal.recipe)
    accepted = not failed and new > old
    trial = Trial(
        loop=before.loop,
        parent=before.parent,
        recipe=proposal.recipe,
        hypothesis=proposal.hypothesis,
        status="failed" if failed else "accepted" if accepted else "rejected",
        val_score=None if failed else new,
        delta=None if failed else new - old,
        ci95=None if failed else (new - old - 0.01, new - old + 0.01),
        failure="health.diverged" if failed else None,
    )
    update = {"loop": before.loop + 1, "trials": (*before.trials, trial)}
    if accepted:
        update["parent"] = before.loop
    return before.model_copy(update=update)
