"""The planner port: history in, one proposal out.

Planners keep no state: everything they may know comes in `PlanContext`, built from the journal.
So a resumed run asks the same question as an uninterrupted one and, with a deterministic planner,
gets the same answer. (`tell` of the usual ask/tell pair is therefore not needed.)
"""

from __future__ import annotations

from typing import Any, Literal, Protocol

from rdagent_ft.recipe.rules import RuleFacts
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.values import Frozen

LoopStatus = Literal["accepted", "rejected", "failed"]


class Trial(Frozen):
    """A finished loop as planners see it. No val or test item is ever in here.

    Attributes:
        loop: number from 0 (loop 0 trained the default recipe).
        parent: loop whose recipe this one changed; None for the default recipe.
        recipe: the recipe that was trained.
        hypothesis: what it was meant to show.
        status: accepted, rejected or failed.
        val_score, delta, ci95: val mean, paired difference to the parent and its interval.
        failure: dotted failure class for failed loops.
        facts: deterministic sentences: scores, training health, error classes on dev items.
        lesson: the LLM's short lesson, when there is one.
        train_s: seconds of training.
    """

    loop: int
    parent: int | None
    recipe: Recipe
    hypothesis: str
    status: LoopStatus
    val_score: float | None = None
    delta: float | None = None
    ci95: tuple[float, float] | None = None
    failure: str | None = None
    facts: tuple[str, ...] = ()
    lesson: str | None = None
    train_s: float | None = None


class PlanContext(Frozen):
    """Everything a planner may know.

    Attributes:
        loop: number of the loop to be proposed (>= 1).
        seed: the run's seed.
        default_recipe: what loop 0 trained.
        parent: loop number of the best recipe so far; None while the base model leads.
        trials: finished loops in order.
        data_facts: sentences about the train split: sizes, sources, duplicates, lengths.
        sources: values of `source` in the train split with their counts.
        token_percentiles: p50, p90, p99, max of tokens per training row.
        model_facts: sentences about the base model.
        machine_facts: sentences about device and memory.
        baseline_val: base model's val score.
        scorer: how an answer is scored.
        n_val: items behind a val score.
        time_left_s: seconds until the run must end; None without a bound.
        usd_left: dollars left; None without a bound.
        script_limit_s: seconds that a data script may run; None where recipes cannot carry one.
        device: `cpu` or `cuda`; a space without GPU-only options on cpu.
        rule_facts: what the recipe rules know of model and machine, so that a proposal that could
            not start is never made; unknown facts switch their rule off.
    """

    loop: int
    seed: int
    default_recipe: Recipe
    parent: int | None
    trials: tuple[Trial, ...]
    data_facts: tuple[str, ...] = ()
    sources: dict[str, int] = {}
    token_percentiles: dict[str, int] = {}
    model_facts: tuple[str, ...] = ()
    machine_facts: tuple[str, ...] = ()
    baseline_val: float | None = None
    scorer: str = ""
    n_val: int = 0
    time_left_s: float | None = None
    usd_left: float | None = None
    script_limit_s: float | None = None
    device: Literal["cpu", "cuda"] = "cpu"
    rule_facts: RuleFacts = RuleFacts()

    @property
    def parent_recipe(self) -> Recipe:
        """The recipe that a proposal changes: the parent's, else the default."""
        by_loop = {trial.loop: trial.recipe for trial in self.trials}
        return by_loop[self.parent] if self.parent is not None else self.default_recipe


class Proposal(Frozen):
    """What a planner proposes: a difference to the parent and a prediction that can fail.

    Attributes:
        hypothesis: one sentence.
        prediction: falsifiable, e.g. "val +2 to +5 pp because 31 % of errors lack EOS".
        diff: dotted recipe path -> new value, relative to the parent's recipe.
        cites: ids of knowledge-base entries that the proposal rests on.
        recipe: the parent's recipe with `diff` applied, validated by the schema.
        planner: who proposed it (a hybrid names the one that spoke).
    """

    hypothesis: str
    prediction: str
    diff: dict[str, Any]
    cites: tuple[str, ...] = ()
    recipe: Recipe
    planner: str


class Planner(Protocol):
    """Who proposes."""

    name: str

    def ask(self, context: PlanContext) -> Proposal:
        """Return the next proposal.

        Raises `LlmError` / `BudgetError` from an LLM behind it, `PreflightError` when nothing new is
        left, and `TimeIsUpError` when nothing new can end in the time that is left.
        """
        ...
