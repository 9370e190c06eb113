"""The selection rule: code, not an LLM, moves the parent.

MOVE when the candidate scored higher than the parent on val and the posterior mean of its gain is
above zero, with an empirical-Bayes prior learnt from the run's earlier gains (`evaluation/posterior.py`)
and the parent's own luck given back (`evaluation/trials.py`). A move is no claim: the claim is made
once, on the sealed test split (`steps/claim.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rdagent_ft.engine.context import RunContext
from rdagent_ft.evaluation.posterior import GainPosterior
from rdagent_ft.evaluation.rows import Comparison
from rdagent_ft.evaluation.trials import Trial, belief_after, expected_gain, says_move
from rdagent_ft.reporting.records import EvaluateOutput, FeedbackOutput


def past_trials(ctx: RunContext, loop: int) -> list[Trial]:
    """Return the earlier candidates as they were measured against their parents, oldest first."""
    trials: list[Trial] = []
    for done in ctx.journal.finished_loops():
        if done >= loop:
            break
        evaluated = ctx.journal.output(done, "evaluate", EvaluateOutput)
        verdict = ctx.journal.output(done, "feedback", FeedbackOutput)
        if evaluated is None or evaluated.vs_parent is None or verdict is None:
            continue
        trials.append(
            Trial(
                delta=evaluated.vs_parent.delta,
                se=evaluated.vs_parent.se,
                over_base=ctx.parent_of(done) is None,
                share=evaluated.share_scored,
                moved=verdict.new_parent,
            )
        )
    return trials


def decide_move(
    comparison: Comparison, trials: Sequence[Trial], *, over_base: bool, share_scored: float = 1.0
) -> tuple[GainPosterior, bool, str]:
    """Return the posterior gain over the parent, whether to move, and the reason in one sentence.

    `share_scored` is below 1 after a race that ended early (`evaluation/racing.py`): no move then.
    """
    belief = belief_after(trials, over_base=over_base)
    posterior = expected_gain(belief, comparison.delta, comparison.se, share_scored)
    move = share_scored == 1.0 and says_move(posterior, comparison.delta)
    low, high = comparison.ci95
    rival = "the base" if over_base else "the parent"
    reason = (
        f"val {comparison.delta:+.1%} [{low:+.1%}, {high:+.1%}] over {rival} on {comparison.n} items; "
        f"expected true gain {posterior.mean:+.1%} (P(gain > 0) = {posterior.p_positive:.2f})"
    )
    if share_scored < 1.0:
        reason += (
            f"; the race ended after {share_scored:.0%} of val, as all of it would hardly move the parent"
        )
    elif posterior.mean > 0 and not move:
        reason += f", as {rival}'s own score is partly luck; no move without a higher score"
    return posterior, move, reason


def best_candidate(ctx: RunContext) -> int | None:
    """Return the loop to claim (`to_claim`); None when nothing was trained and scored."""
    loops = ctx.journal.finished_loops()
    leader = ctx.parent_of(max(loops) + 1) if loops else None
    gains: dict[int, float] = {}
    for loop in loops:
        verdict = ctx.journal.output(loop, "feedback", FeedbackOutput)
        if verdict is not None and verdict.posterior_gain is not None:
            gains[loop] = verdict.posterior_gain
    return to_claim(leader, gains)


def to_claim(leader: int | None, gains: Mapping[int, float]) -> int | None:
    """Return the leader, else the candidate with the largest expected gain, the earliest on a tie.

    Without a leader all candidates were measured against the base. The expected gain is compared and
    not the val score, as a race that ended early has scored its candidate on fewer items.
    """
    if leader is not None or not gains:
        return leader
    return min(gains, key=lambda loop: (-gains[loop], loop))
