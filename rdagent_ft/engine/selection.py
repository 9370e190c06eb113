"""The selection rule: code, not an LLM, moves the parent.

MOVE when the posterior mean of the gain over the parent on val is above zero, with an
empirical-Bayes prior learnt from the run's earlier gains (`evaluation/posterior.py`). A move is no
claim: the claim is made once, on the sealed test split (`steps/claim.py`).
"""

from __future__ import annotations

from rdagent_ft.engine.context import RunContext
from rdagent_ft.evaluation.posterior import GainPosterior, gain_over_base, gain_posterior
from rdagent_ft.evaluation.rows import Comparison
from rdagent_ft.reporting.records import EvaluateOutput, ProposeOutput


def past_gains(ctx: RunContext, loop: int) -> list[tuple[float, float]]:
    """Return (delta, SE) of earlier candidates over a trained parent, oldest first.

    The first candidate is compared with the untrained base: that gain is of another kind and would
    teach the prior that everything helps, so it is left out.
    """
    gains: list[tuple[float, float]] = []
    for done in ctx.journal.finished_loops():
        if done >= loop:
            break
        proposal = ctx.journal.output(done, "propose", ProposeOutput)
        evaluated = ctx.journal.output(done, "evaluate", EvaluateOutput)
        if proposal is None or evaluated is None or evaluated.vs_parent is None:
            continue
        if ctx.parent_of(done) is not None:
            gains.append((evaluated.vs_parent.delta, evaluated.vs_parent.se))
    return gains


def decide_move(
    comparison: Comparison, gains: list[tuple[float, float]], *, over_base: bool
) -> tuple[GainPosterior, bool, str]:
    """Return the posterior gain over the parent, whether to move, and the reason in one sentence."""
    posterior = (
        gain_over_base(comparison.delta, comparison.se)
        if over_base
        else gain_posterior(comparison.delta, comparison.se, gains)
    )
    move = posterior.mean > 0
    low, high = comparison.ci95
    rival = "the base" if over_base else "the parent"
    reason = (
        f"val {comparison.delta:+.1%} [{low:+.1%}, {high:+.1%}] over {rival} on {comparison.n} items; "
        f"expected true gain {posterior.mean:+.1%} (P(gain > 0) = {posterior.p_positive:.2f})"
    )
    return posterior, move, reason


def best_candidate(ctx: RunContext) -> int | None:
    """Return the loop to claim: the leader, else the trained loop with the best val score, else None."""
    loops = ctx.journal.finished_loops()
    leader = ctx.parent_of(max(loops) + 1) if loops else None
    if leader is not None:
        return leader
    scored: list[tuple[float, int]] = []
    for loop in loops:
        evaluated = ctx.journal.output(loop, "evaluate", EvaluateOutput)
        if evaluated is not None and evaluated.val is not None:
            scored.append((evaluated.val.value, -loop))
    return -max(scored)[1] if scored else None
