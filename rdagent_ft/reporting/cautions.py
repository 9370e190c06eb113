"""What limits a claim: optimism, openings of the test, seeds, near copies, forgetting, noise.

Every sentence comes from a recorded number; nothing is said that was not measured.
"""

from __future__ import annotations

from rdagent_ft.reporting.records import ClaimOutput
from rdagent_ft.reporting.text import counted, interval_points, one_line, percent, points
from rdagent_ft.reporting.view import RunView


def cautions(view: RunView, claim: ClaimOutput) -> tuple[str, ...]:
    """Return the sentences that stand under every claim, most important first."""
    lines = _seal_lines(view)
    gap = f"{abs(100 * claim.optimism):.1f} points {'more' if claim.optimism >= 0 else 'less'}"
    lines.append(
        "On the validation items, which chose between loops, the difference to the base model was "
        f"{points(claim.val_delta)} points: {gap} than on the test. The best of several tries is partly "
        "lucky there; use the test figure."
    )
    lines += [_openings_line(view, claim), *_reopened_lines(view, claim)]
    lines += [
        *_seed_lines(claim),
        *_decoding_lines(claim),
        *_judge_lines(claim),
        *_clean_lines(claim),
        *_guard_lines(claim),
        *_noise_lines(view),
    ]
    if not claim.accepted:
        lines.append("The base model stays the best model of this run.")
    elif view.best_loop != claim.loop:
        lines.append(f"Loop {view.best_loop} leads on validation now, but only loop {claim.loop} was tested.")
    return tuple(lines)


def _seal_lines(view: RunView) -> list[str]:
    """Return a warning when the record of looks is not the one that was written."""
    if view.seal.problem is not None:
        found = one_line(view.seal.problem, 200)
    elif view.seal.lost:
        found = "a look that benchmark.json recorded is gone"
    else:
        return []
    return [
        f"The record of looks at validation and test was changed: {found}. How often the test was opened "
        "is not known, and this claim proves nothing."
    ]


def _openings_line(view: RunView, claim: ClaimOutput) -> str:
    """Return how often val was looked at and the test was opened, counted now, not when it was claimed."""
    opening = max(claim.opening, view.n_looks("test"))
    times = {1: "once", 2: "twice"}.get(opening, f"{opening} times")
    looks = view.n_looks("val")
    seen = f"The validation items were looked at {counted(looks, 'time')} to choose; " if looks else ""
    line = f"{seen}the sealed test was opened {times}."
    if opening > 1:
        line += " Each further opening makes the claim weaker evidence than its interval says."
    return line[:1].upper() + line[1:]


def _reopened_lines(view: RunView, claim: ClaimOutput) -> list[str]:
    """Return one line for each reported benchmark whose items were scored for more than one claim."""
    counts = {name: view.openings(name) for name in claim.reported}
    return [
        f"{one_line(name, 80)} was opened {'twice' if n == 2 else f'{n} times'} in this run: its figure is "
        "weaker evidence than its interval says."
        for name, n in counts.items()
        if n > 1
    ]


def _seed_lines(claim: ClaimOutput) -> list[str]:
    """Return what further trainings of the recipe say."""
    if not claim.seeds:
        return []
    shown = ", ".join(
        f"seed {training.seed}: {'failed' if training.delta is None else points(training.delta)}"
        for training in claim.seeds
    )
    if claim.own is None:
        return [f"The recipe was to be trained with further seeds, and every one failed ({shown})."]
    return [
        f"The claim is about the recipe, trained {1 + len(claim.seeds)} times; its interval covers the luck "
        f"of training. The model handed over differs from the base by {points(claim.own.delta)} points "
        f"({interval_points(claim.own.ci95)}); {shown}."
    ]


def _decoding_lines(claim: ClaimOutput) -> list[str]:
    """Return how the models were decoded, when that was chosen on val."""
    if claim.plain is None:
        return []
    chosen = ", ".join(f"{role} {penalty:g}" for role, penalty in claim.decoding.items())
    return [
        f"Each model answered with the repetition penalty that suited it best on validation ({chosen}). With "
        f"plain greedy decoding for both the difference is {points(claim.plain.delta)} points "
        f"({interval_points(claim.plain.ci95)}): {claim.plain.verdict}."
    ]


def _judge_lines(claim: ClaimOutput) -> list[str]:
    """Return the second column: differences with the judge, its worth, and what speaks against it."""
    lines: list[str] = []
    for name, judged in claim.judged.items():
        found = judged.with_judge
        difference = (
            "no item has a verdict on both sides"
            if found is None
            else f"the difference is {points(found.delta)} points ({interval_points(found.ci95)})"
        )
        worth = "" if judged.decides else f" These numbers decide nothing ({judged.status})."
        lines.append(
            f"With the judge {one_line(judged.model, 80)} on {one_line(name, 80)} {difference}; by rule "
            f"alone {points(judged.rule.delta)}. It accepted {percent(judged.base_rescued)} of the base's "
            f"answers and {percent(judged.tuned_rescued)} of the tuned model's that the rule rejects.{worth}"
        )
        lines += [one_line(text, 400) + "." for text in (judged.alert, *judged.cautions) if text]
    return lines


def _clean_lines(claim: ClaimOutput) -> list[str]:
    """Return what is left of the claim without items that have near copies in the training data."""
    if claim.clean is None or claim.clean.n_near == 0:
        return []
    near = counted(claim.clean.n_near, "test item")
    have = "has a near copy" if claim.clean.n_near == 1 else "have near copies"
    left = claim.clean.comparison
    if left is None:
        return [f"{near} {have} in the training data, which leaves none."]
    return [
        f"{near} {have} in the training data. Without them the difference is {points(left.delta)} points "
        f"({interval_points(left.ci95)}) on {counted(left.n, 'item')}: {left.verdict}."
    ]


def _guard_lines(claim: ClaimOutput) -> list[str]:
    """Return one line for each reported benchmark that is not shown to be unharmed."""
    lines: list[str] = []
    for name, guard in claim.guards.items():
        loss = f"{interval_points(claim.reported[name].comparison.ci95)} points"
        if guard.outcome == "regressed":
            holds = "" if guard.holds_after_holm else ", which does not stand after correction for several"
            lines.append(f"Forgetting: {one_line(name, 80)} got worse, {loss}{holds}.")
        elif guard.outcome == "not_shown":
            lines.append(
                f"{one_line(name, 80)} is not shown to be unharmed: a loss of more than "
                f"{100 * guard.margin:.0f} points is not excluded, {loss}."
            )
    return lines


def _noise_lines(view: RunView) -> list[str]:
    """Return what the base differs from itself by, when it does."""
    again = None if view.baseline is None else view.baseline.again
    if again is None or again.discordant == (0, 0) or again.se == 0.0:
        return []
    return [
        f"The base model, asked twice, differs from itself by {points(again.delta)} points "
        f"({interval_points(again.ci95)}) on the validation items: noise of the engine."
    ]
