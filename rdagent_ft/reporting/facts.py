"""What the reports say about the claim and the loops, in plain words, once for HTML and Markdown.

Every sentence follows from the journal by rule; no LLM writes here. Free text is cleaned, not
escaped: that is the renderer's work.
"""

from __future__ import annotations

from typing import Any, Literal

from rdagent_ft.evaluation.rows import Comparison, Score, ScorerName
from rdagent_ft.recipe.data_script import shown_value
from rdagent_ft.recipe.schema import Recipe
from rdagent_ft.reporting.cautions import cautions
from rdagent_ft.reporting.records import ClaimOutput
from rdagent_ft.reporting.text import (
    clean_text,
    counted,
    display_name,
    interval_points,
    one_line,
    percent,
    points,
    value_text,
)
from rdagent_ft.reporting.view import LoopView, RunView, StopReason
from rdagent_ft.values import Frozen

Tone = Literal["good", "neutral", "bad", "open"]
DEFAULT_MARGIN = 0.02
SCORER_WORDS: dict[ScorerName, str] = {
    "exact_match": "exact match: the answer must equal the expected text",
    "json_match": "JSON match: the answer must parse as JSON and hold the same values as expected",
    "numeric_match": "numeric match: the final number of the answer must equal the expected one",
    "token_f1": "token F1: overlap of the words of the answer and of the expected text",
    "choice_match": "choice match: the option letter that the answer states last must be the expected one",
    "math_match": "maths match: the final answer must equal the expected one as mathematics (math-verify)",
    "ifeval": "instruction checks: the answer must follow every instruction of the question (IFEval, strict)",
    "code_pass": "tests: the program in the answer must pass the tests of the task in a sandbox",
    "rubric": "judge: a model rates the answer by a written rubric",
}
STATUS_WORDS = {"accepted": "kept", "rejected": "rejected", "failed": "failed"}

STOP_WORDS: dict[StopReason, str] = {
    "loop_n": "all loops that were asked for are done",
    "step_n": "all steps that were asked for are done",
    "timeout": "the time was up",
    "budget": "the money was spent",
    "interrupted": "somebody stopped it",
    "failures": "too many loops failed in a row",
    "error": "an error ended it",
}


class ClaimFacts(Frozen):
    """The claim in words.

    Attributes:
        kicker: the line above the headline.
        cautions: what limits the claim.
        evidence: files with every single answer behind the numbers, relative to the run's folder.
    """

    tone: Tone
    kicker: str
    headline: str
    meaning: str
    measured: str
    cautions: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()


class Change(Frozen):
    """One recipe value that a loop changed."""

    key: str
    before: str
    after: str


def claim_facts(view: RunView) -> ClaimFacts:
    """Return the claim of a run in words; a run without one says why."""
    claim = view.claim
    if claim is None:
        return _no_claim(view)
    return ClaimFacts(
        tone=_tone(claim),
        kicker=_kicker(claim),
        headline=_headline(claim.comparison),
        meaning=_meaning(claim, margin(view)),
        measured=_measured(view, claim),
        cautions=cautions(view, claim),
        evidence=_evidence(claim),
    )


def margin(view: RunView) -> float:
    """Return the half-width of `equivalent` that the run was started with."""
    value = view.settings.get("equivalence_margin", DEFAULT_MARGIN)
    return float(value) if isinstance(value, (int, float)) else DEFAULT_MARGIN


def arrow(paired: Comparison | None) -> str:
    """Return a sign for a comparison: ↑ better, ↗ perhaps, → no change, ↘ perhaps, ↓ worse, – none."""
    if paired is None:
        return "–"
    if paired.verdict in ("improved", "regressed"):
        return "↑" if paired.verdict == "improved" else "↓"
    if paired.verdict == "equivalent" or abs(paired.delta) < 0.5 * paired.se:
        return "→"
    return "↗" if paired.delta > 0 else "↘"


def recipe_changes(before: Recipe | None, after: Recipe | None) -> tuple[Change, ...]:
    """Return the flattened keys whose values differ, in the order of the schema."""
    if before is None or after is None:
        return ()
    old, new = recipe_leaves(before), recipe_leaves(after)
    keys = [*new, *(key for key in old if key not in new)]
    return tuple(
        Change(
            key=key,
            before=value_text(old[key]) if key in old else "–",
            after=value_text(new[key]) if key in new else "–",
        )
        for key in keys
        if old.get(key) != new.get(key) or (key in old) != (key in new)
    )


def recipe_leaves(recipe: Recipe) -> dict[str, Any]:
    """Return a recipe as dotted key -> leaf; a data script stands there by its hash and length."""
    return {key: shown_value(key, value) for key, value in flat(recipe.model_dump(mode="json")).items()}


def flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested JSON as dotted key -> leaf; lists of objects are numbered, other lists are leaves."""
    leaves: dict[str, Any] = {}
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, dict):
            leaves |= flat(item, f"{name}.")  # pyright: ignore[reportUnknownArgumentType]
        elif isinstance(item, list) and item and isinstance(item[0], dict):
            for index, part in enumerate(item):  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
                leaves |= flat(part, f"{name}.{index}.")  # pyright: ignore[reportUnknownArgumentType]
        else:
            leaves[name] = item
    return leaves


def decision(loop: LoopView) -> str:
    """Return why a loop ended as it did, in one or two sentences."""
    if loop.feedback is None:
        return "This loop is not finished."
    reason = clean_text(loop.feedback.reason, 600)
    sentence = (reason[:1].upper() + reason[1:]).rstrip(".") + "." if reason else ""
    gain, chance = loop.feedback.posterior_gain, loop.feedback.p_gain
    if gain is None:
        return sentence
    sentence += f" Expected gain over the parent after shrinkage: {points(gain)} points"
    return sentence + (f"; probability that it is real: {percent(chance, 0)}." if chance is not None else ".")


def limits(view: RunView) -> tuple[str, ...]:
    """Return what the report does not show, for this run."""
    claim, prepare = view.claim, view.prepare
    lines: list[str] = []
    if claim is not None:
        lines.append(
            "The interval covers the choice of test items. It does not cover the luck of one training: "
            "every recipe was trained once, with one seed (FT_CLAIM_SEEDS=3 changes that)."
            if claim.own is None
            else "The interval covers the choice of test items and the luck of training, as far as "
            f"{1 + len(claim.seeds)} trainings show it."
        )
        lines.append(
            f"A true difference smaller than about {points(claim.comparison.mde).lstrip('+')} points would "
            "probably have gone unnoticed with this many items."
        )
    lines.append(
        "The test items come from the same dataset as the training items. How the model does on other "
        "kinds of requests is shown only by the benchmarks listed beside the target, if any."
    )
    if prepare is not None:
        lines.append(
            f"Answers were scored by rule ({prepare.scorer.replace('_', ' ')}). A correct answer in another "
            "form counts as wrong, and nobody read the answers."
        )
    lines.append(
        "Near-duplicates were found by wording. Whether the base model met these items in its own "
        "pre-training is unknown."
    )
    lines.append("Safety, bias, tone and speed of answering were not measured.")
    return tuple(lines)


def stop_words(view: RunView) -> str:
    """Return why the run ended in words, or an empty text while it goes on."""
    status, reason = view.status
    if reason is None:
        return ""
    return STOP_WORDS["error" if status == "failed" and reason == "interrupted" else reason]


def score_words(score: Score) -> str:
    """Return `61.2% (± 2.2, n = 500)`: mean, standard error in points, items."""
    return f"{percent(score.value)} (± {100 * score.stderr:.1f}, n = {score.n:,})"


def names(view: RunView) -> tuple[str, str]:
    """Return display names of dataset and base model, without folders of a machine."""
    if view.prepare is not None:
        return display_name(view.prepare.dataset.name), display_name(view.prepare.model.name)
    dataset, model = view.request.get("dataset"), view.request.get("model")
    return display_name(str(dataset or "a dataset")), display_name(str(model or "a base model"))


def _no_claim(view: RunView) -> ClaimFacts:
    status, _ = view.status
    if view.baseline is None:
        meaning = "The run ended before the base model was scored." if status != "running" else ""
        meaning = meaning or "The base model has not been scored yet."
    else:
        meaning = (
            "Scores below come from validation items, which were used to choose between candidates. "
            "They are not a result: the sealed test items have not been opened."
        )
    kicker = {"running": "The run is still going", "interrupted": "The run was interrupted"}.get(
        status, f"The run ended without a claim: {stop_words(view) or status}"
    )
    measured = (
        f"{counted(view.prepare.splits['test'].n_items, 'test item')} wait untouched."
        if view.prepare is not None and "test" in view.prepare.splits
        else ""
    )
    return ClaimFacts(tone="open", kicker=kicker, headline="No claim yet", meaning=meaning, measured=measured)


def _evidence(claim: ClaimOutput) -> tuple[str, ...]:
    """Return where the answers lie, as `engine/steps/claim.py` keeps them."""
    places = [f"{claim.base.benchmark}-{claim.base.split}"]
    places += [f"{beside.base.benchmark}-{beside.base.split}" for beside in claim.reported.values()]
    folders = ["baseline/eval", f"loops/{claim.loop:03d}/eval"]
    files = [f"{folder}/{place}/samples.jsonl" for place in places for folder in folders]
    files += [
        f"loops/{claim.loop:03d}/seeds/{training.seed}/eval/{places[0]}/samples.jsonl"
        for training in claim.seeds
        if training.failure is None
    ]
    return tuple(files)


def _tone(claim: ClaimOutput) -> Tone:
    if claim.comparison.verdict == "improved":
        return "good" if claim.accepted else "neutral"
    return "bad" if claim.comparison.verdict == "regressed" else "neutral"


def _kicker(claim: ClaimOutput) -> str:
    if claim.accepted:
        return f"Result of loop {claim.loop}, the selected model"
    return f"No candidate was accepted; this is the best one tried, loop {claim.loop}"


def _headline(paired: Comparison) -> str:
    on = f"on {counted(paired.n, 'sealed test item')}"
    size = f"{abs(100 * paired.delta):.1f} points"
    low, high = 100 * paired.ci95[0], 100 * paired.ci95[1]
    if paired.verdict == "improved":
        return f"Improved by {size} [{low:.1f}, {high:.1f}] {on}"
    if paired.verdict == "regressed":
        return f"Worse by {size} [{-high:.1f}, {-low:.1f}] {on}"
    return f"No demonstrated improvement {on}"


def _meaning(claim: ClaimOutput, zone: float) -> str:
    paired = claim.comparison
    scores = f"The tuned model scores {percent(paired.tuned)}, the base model {percent(paired.base)}"
    interval = f"{interval_points(paired.ci95)} points"
    difference = f"The difference is {points(paired.delta)} points with a 95% interval of {interval}"
    if paired.verdict in ("improved", "regressed"):
        direction = "gain" if paired.verdict == "improved" else "loss"
        return (
            f"{scores}. The 95% interval of the difference, {interval}, does not contain zero: with other "
            f"items of the same kind a {direction} would very probably be seen again."
        )
    if paired.verdict == "equivalent":
        return (
            f"{scores}. {difference}, all of it within ±{100 * zone:.1f} points, the zone that this run "
            "calls no real change."
        )
    includes_zero = paired.ci95[0] <= 0.0 <= paired.ci95[1]
    reason = (
        "The interval contains zero: chance alone may explain what was seen."
        if includes_zero
        else "By the rules of this run that is not enough to call it an improvement."
    )
    return f"{scores}. {difference}. {reason}"


def _measured(view: RunView, claim: ClaimOutput) -> str:
    paired, prepare = claim.comparison, view.prepare
    text = (
        f"{counted(paired.n, 'item')} of “{one_line(paired.benchmark, 80)}” were set aside before the first "
        "loop and opened after the model had been chosen on other items. Both models answered the same items "
        "with the same prompts; the interval is that of the paired differences."
    )
    if prepare is not None:
        text += f" Scoring is by {SCORER_WORDS[prepare.scorer]}."
    if paired.discordant is not None:
        only_tuned, only_base = paired.discordant
        text += (
            f" Only the tuned model was right on {only_tuned:,} items, only the base model on {only_base:,}."
        )
    return text
