"""The random planner: every dimension drawn evenly. It is the yardstick that others must beat."""

from __future__ import annotations

import random
from typing import Any

from rdagent_ft.planning.port import PlanContext, Proposal
from rdagent_ft.planning.sample import first_new_proposal, space_of, uniform_value


class RandomPlanner:
    """Draws all dimensions at once; knows nothing of the history but which recipes were trained."""

    name = "random"

    def ask(self, context: PlanContext) -> Proposal:
        """Return a recipe drawn by seed and loop. See `first_new_proposal` for errors."""
        dimensions = space_of(context)
        rng = random.Random(f"random:{context.seed}:{context.loop}")

        def draw(_: int) -> dict[str, Any]:
            return {d.path: uniform_value(d, rng) for d in dimensions}

        return first_new_proposal(context, dimensions, draw, self.name)
