"""`rdagent-ft compare A B`: did the second model improve, on the same items, and is it safe to say so."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rdagent_ft.cli.options import AsJson

if TYPE_CHECKING:
    from rdagent_ft.evaluation.results.comparison import ComparisonDocument

REJECT_EXIT_CODE = 10
"""The candidate is rejected and `--fail-on-reject` was given. No other verb uses it."""


def compare(
    base: Annotated[Path, typer.Argument(metavar="A", help="Scores of the base model.")],
    candidate: Annotated[Path, typer.Argument(metavar="B", help="Scores of the tuned model.")],
    target: Annotated[
        str | None, typer.Option("--target", help="Benchmark that should improve; the others are guards.")
    ] = None,
    margin: Annotated[
        float | None,
        typer.Option(
            "--margin", help="Tolerated loss in percentage points; by default that of the suite, or 3."
        ),
    ] = None,
    ascii_only: Annotated[bool, typer.Option("--ascii", help="Print ASCII signs only.")] = False,
    fail_on_reject: Annotated[
        bool, typer.Option("--fail-on-reject", help="Exit 10 when the decision is reject; otherwise exit 0.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Compare two models item by item.

    A and B are each a result folder (benchmark.json), a folder of lm-eval (results_*.json with
    --log_samples), or the eval folder of a run (<benchmark>-<split>/samples.jsonl).
    """
    import json

    from rdagent_ft.errors import UserError
    from rdagent_ft.evaluation.results.compare import compare_results
    from rdagent_ft.evaluation.results.read import read_result

    if margin is not None and not 0.1 <= margin < 100:
        raise UserError(f"--margin {margin:g} is no margin in percentage points", hint="3 means 3 points")
    share = None if margin is None else margin / 100
    document = compare_results(read_result(base), read_result(candidate), margin=share, target=target)
    if as_json:
        print(json.dumps(document.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False))
    else:
        show_comparison(document, ascii_only=ascii_only)
    raise SystemExit(REJECT_EXIT_CODE if fail_on_reject and document.decision == "reject" else 0)


def show_comparison(document: ComparisonDocument, *, ascii_only: bool) -> None:
    """Print the table and its sentences; partial rows are grey on a terminal."""
    import os
    import sys

    from rdagent_ft.evaluation.results.table import sentence_lines, table_lines
    from rdagent_ft.execution.outputs import clean_text

    encoding = (sys.stdout.encoding or "ascii").lower()
    plain = ascii_only or not encoding.startswith("utf")
    dim = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    head = clean_text(f"base: {document.base_run}   tuned: {document.cand_run}")
    print(head.encode("ascii", "replace").decode() if plain else head)
    for line in (
        *table_lines(document, ascii_only=plain, dim=dim),
        *sentence_lines(document, ascii_only=plain),
    ):
        print(line)
