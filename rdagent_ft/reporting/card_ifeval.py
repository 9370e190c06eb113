"""The four published measures of IFEval for base and tuned model, from the answers that a claim kept.

Strict and loose, by prompt and by instruction (Zhou et al. 2023, "Instruction-Following Evaluation for
Large Language Models"). Only numbers are taken from the answers. Where the answers are no longer there,
nothing is said.
"""

from __future__ import annotations

from rdagent_ft.errors import StateError
from rdagent_ft.evaluation.ifeval_answers import METRICS, Metric, ifeval_differences, ifeval_metrics
from rdagent_ft.evaluation.rows import SampleRow, Score
from rdagent_ft.evaluation.sample_files import read_samples
from rdagent_ft.reporting.records import ClaimOutput
from rdagent_ft.reporting.text import interval_percent, interval_points, percent, points
from rdagent_ft.reporting.view import RunView

METRIC_WORDS: dict[Metric, str] = {
    "prompt_strict": "strict, prompts: every instruction of a prompt followed exactly",
    "inst_strict": "strict, instructions: followed exactly",
    "prompt_loose": "loose, prompts: every instruction followed, small deviations forgiven",
    "inst_loose": "loose, instructions: followed, small deviations forgiven",
}


def ifeval_rows(view: RunView, claim: ClaimOutput) -> tuple[dict[str, str], ...]:
    """Return one row a measure (metric, base, tuned, delta), or () when the claim has no IFEval."""
    scored = [claim.base, *(beside.base for beside in claim.reported.values())]
    score = next((each for each in scored if each.scorer == "ifeval"), None)
    if score is None:
        return ()
    try:
        base = _samples(view, "baseline", score)
        tuned = _samples(view, f"loops/{claim.loop:03d}", score)
        before, after = ifeval_metrics(base), ifeval_metrics(tuned)
        change = ifeval_differences(base, tuned)
    except (StateError, ValueError, KeyError):
        return ()
    return tuple(
        {
            "metric": METRIC_WORDS[metric],
            "base": f"{percent(before[metric].value)} ({interval_percent(before[metric].ci95)})",
            "tuned": f"{percent(after[metric].value)} ({interval_percent(after[metric].ci95)})",
            "delta": f"{points(change[metric].value)} {interval_points(change[metric].ci95)}",
        }
        for metric in METRICS
    )


def _samples(view: RunView, owner: str, score: Score) -> list[SampleRow]:
    return read_samples(view.run_dir / owner / "eval" / f"{score.benchmark}-{score.split}" / "samples.jsonl")
