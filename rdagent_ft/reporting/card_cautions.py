"""A claim's cautions as a published card may say them: without texts that others wrote.

The sentences are those of `cautions.py`. Names of models and benchmarks pass as words; what a judge or a
damaged record says is replaced by what it means.
"""

from __future__ import annotations

from rdagent_ft.reporting.cautions import cautions
from rdagent_ft.reporting.public import public_word
from rdagent_ft.reporting.records import ClaimOutput, JudgedBenchmark
from rdagent_ft.reporting.seal import Seal
from rdagent_ft.reporting.view import RunView


def card_cautions(view: RunView, claim: ClaimOutput) -> tuple[str, ...]:
    """Return the sentences under the scores, most important first."""
    seal = Seal(problem="a link of it is broken" if view.seal.problem else None, lost=view.seal.lost)
    public = claim.model_copy(
        update={
            "judged": {public_word(name): _judged(found) for name, found in claim.judged.items()},
            "guards": {public_word(name): guard for name, guard in claim.guards.items()},
            "reported": {public_word(name): beside for name, beside in claim.reported.items()},
        }
    )
    return cautions(view.model_copy(update={"seal": seal}), public)


def _judged(found: JudgedBenchmark) -> JudgedBenchmark:
    n_cautions = len(found.cautions)
    return found.model_copy(
        update={
            "model": public_word(found.model.rpartition("/")[2]),
            "status": public_word(found.status),
            "alert": "What the judge adds is not to be believed by the program's own rules"
            if found.alert
            else None,
            "cautions": (f"The report of the run names {n_cautions} more about the judge",)
            if n_cautions
            else (),
        }
    )
