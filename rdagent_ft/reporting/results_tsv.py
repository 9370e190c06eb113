"""`results.tsv`: the ledger of a run for people, one line a loop. Cells never hold a tab or a break."""

from __future__ import annotations

from rdagent_ft.reporting.text import one_line
from rdagent_ft.reporting.view import LoopView, RunView

COLUMNS = (
    "loop",
    "parent",
    "recipe",
    "val",
    "delta_vs_parent",
    "verdict",
    "minutes",
    "dollars",
    "hypothesis",
)


def results_tsv(view: RunView) -> str:
    """Return the header and one line for each finished loop.

    Scores are fractions in 0..1: `0.6120 ± 0.0218`, `+0.0520 [+0.0190, +0.0850]`; `-` where there
    is none. The parent is a loop's number or `base`.
    """
    lines = ["\t".join(COLUMNS)]
    lines += ["\t".join(_cells(loop)) for loop in view.finished_loops]
    return "\n".join(lines) + "\n"


def _cells(loop: LoopView) -> tuple[str, ...]:
    assert loop.feedback is not None
    val = loop.evaluate.val if loop.evaluate else None
    paired = loop.evaluate.vs_parent if loop.evaluate else None
    failure = f" {loop.failure.failure_class}" if loop.failure else ""
    return (
        str(loop.number),
        "base" if loop.propose.parent is None else str(loop.propose.parent),
        loop.propose.recipe_hash or "-",
        f"{val.value:.4f} ± {val.stderr:.4f}" if val else "-",
        f"{paired.delta:+.4f} [{paired.ci95[0]:+.4f}, {paired.ci95[1]:+.4f}]" if paired else "-",
        one_line(loop.feedback.status + failure),
        f"{loop.wall_s / 60:.1f}",
        f"{loop.usd:.4f}",
        _inert(one_line(loop.propose.hypothesis, 200)) or "-",
    )


def _inert(text: str) -> str:
    """A spreadsheet runs a cell that starts like a formula: an apostrophe makes it text."""
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text
