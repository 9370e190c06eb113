"""Write all reports of a run from its journal, atomically. Writing twice gives the same files.

The two texts inside `export/` are written here as well, because they too follow from the journal
alone; the weights there are the engine's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rdagent_ft.reporting.benchmark_json import benchmark_document, comparison_document
from rdagent_ft.reporting.card import model_card
from rdagent_ft.reporting.read import open_run
from rdagent_ft.reporting.report_html import report_html
from rdagent_ft.reporting.report_md import report_markdown
from rdagent_ft.reporting.reproduce import reproduce_script
from rdagent_ft.reporting.results_tsv import results_tsv
from rdagent_ft.values import write_atomic, write_json


def write_reports(run_dir: Path) -> None:
    """Write results.tsv, report.md, report.html, benchmark.json and comparison.json.

    Where the best model was exported, also README.md, recipe.json and reproduce.sh in `export/`. Everything
    is rendered before anything is written. Raises `StateError` as `open_run` does.
    """
    view = open_run(run_dir)
    texts = {
        "results.tsv": results_tsv(view),
        "report.md": report_markdown(view),
        "report.html": report_html(view),
    }
    exported = view.export(view.best_loop) is not None and (run_dir / "export").is_dir()
    if exported:
        texts |= {"export/README.md": model_card(view), "export/reproduce.sh": reproduce_script(view)}
    documents: dict[str, Any] = {
        "benchmark.json": benchmark_document(view),
        "comparison.json": comparison_document(view),
    }
    best = None if view.best_loop is None else view.loop(view.best_loop)
    if exported and best is not None and best.propose.recipe is not None:
        documents["export/recipe.json"] = best.propose.recipe.model_dump(mode="json")
    for name, text in texts.items():
        write_atomic(run_dir / name, text)
    for name, document in documents.items():
        write_json(run_dir / name, document)
    if exported:
        (run_dir / "export/reproduce.sh").chmod(0o755)
